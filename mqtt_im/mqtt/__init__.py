"""MQTT itself, without I/O: where packets begin and end, what is in them, and what their codes mean.

Both versions, 3.1.1 and 5, from one set of tables. Nothing here knows a socket, a session or a message of ours.

- `framing`: the fixed header, in bytes that arrive in pieces.
- `packets`: strict decoders of what clients send. `encode`: what a server sends.
- `properties`: the table of MQTT 5's properties, both ways.
- `reasons`: reason codes, and the one exception for a peer that breaks the protocol.
- `topics`: what a topic and a filter may look like, and which of them match.
"""

V311 = 4
"""The protocol level of MQTT 3.1.1 in a CONNECT."""
V5 = 5
"""That of MQTT 5."""
