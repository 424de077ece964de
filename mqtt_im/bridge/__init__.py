"""Floor 3: joins transport and store: uplink in, downlink out.

`service` is the bridge, and has the life of a connection; `channel` is one, as the bridge serves it. From there:

- In: `uplink` makes jobs of `payloads`, by `changing` or `reading`, for a price (`prices`); `calls` are requests without a
  connection; `leaving` is what a connection that is gone has left under way. `logins/` says who comes.
- Out: `telling` is told of what was committed; `pump` sends what can be sent, by `offering`; `slices` does a part of what is for
  many in each turn of the loop.
- A device's place: `attaching` begins and ends its delivery, `cursors` writes down what was acknowledged, `parking` keeps what
  was in flight, `claims` knows what may still be replaced, `lightening` bounds the memory of all of it, `taking_back` takes what
  is recalled out of it.
- Who is there: `audience`, `presence`, `nearby`, `watching` (without a device), `neighbourhood` (other nodes), `pulling` (large
  groups).
- `searching` asks the index, `erasing` hands on the groups of who is removed.

Everything runs on the event loop, but for passwords that are hashed. `seam` is what the parts know of each other.
"""
