"""Any stream of packets, right or wrong, cut into pieces anywhere: the pieces make no difference, and nothing is left behind."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import packets
from tests.unit.transport.harness import Client, Server, on_loop

UP = "im/v1/alice/phone/up"
IDS = st.integers(1, 65_535)
TOPICS = st.sampled_from([UP, "open/a", "open/b", "closed", "im/v1/bob/phone/up"])

GOOD = st.one_of(
    st.builds(packets.publish, TOPICS, st.binary(max_size=300), qos=st.integers(0, 2), packet_id=IDS, retain=st.booleans()),
    st.builds(packets.acknowledge, st.sampled_from([packets.PUBACK, packets.PUBREC, packets.PUBREL, packets.PUBCOMP]), IDS),
    st.builds(lambda packet_id, name: packets.subscribe(packet_id, (name, 1)), IDS, TOPICS),
    st.builds(packets.unsubscribe, IDS, TOPICS),
    st.just(packets.packet(packets.PINGREQ)),
)
BAD = st.one_of(
    st.builds(packets.packet, st.integers(0, 15), st.binary(max_size=20), st.integers(0, 15)),
    st.binary(min_size=1, max_size=30),
)
STREAM = st.tuples(st.lists(GOOD, max_size=12), st.one_of(st.just(b""), BAD)).map(lambda parts: b"".join(parts[0]) + parts[1])


async def outcome(server: Server, stream: bytes, cuts: list[int]) -> tuple[list[Any], list[Any]]:
    """What the bridge was told and what the client was answered."""
    handler = server.handler
    handler.log.clear()
    client: Client = await server.connect("phone")
    edges = [0, *sorted({cut % (len(stream) + 1) for cut in cuts}), len(stream)]
    for start, end in itertools.pairwise(edges):
        client.send(stream[start:end])
        await client.writer.drain()
    client.writer.write_eof()
    answers = await client.gone()
    await handler.saw("detached", "alice", "phone")
    # PINGREQ and PUBACK may pass what waits, so their place among the others says nothing.
    told = [entry for entry in handler.log if entry[0] in ("uplink", "subscribe", "unsubscribed")]
    told += [entry for entry in handler.log if entry[0] == "acked"]
    return told, [(packet.kind, packet.packet_id) for packet in answers if packet.kind in (packets.PUBACK, packets.PUBREC)]


@settings(max_examples=60)
@given(STREAM, st.lists(st.integers(0, 5_000), max_size=8))
def test_the_pieces_of_a_stream_make_no_difference(stream: bytes, cuts: list[int]) -> None:
    @on_loop
    async def run(folder: Path) -> None:
        async with Server(folder, plain_topics=("open/#",)) as server:
            whole = await outcome(server, stream, [])
            cut = await outcome(server, stream, cuts)
            assert whole == cut

    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder))
