"""What waits to leave, leaves in order; what is replaced never leaves, and what has begun to leave is not replaced."""

from __future__ import annotations

import socket

from hypothesis import given
from hypothesis import strategies as st

from supervisor.link.stream import Outbox, Stream
from supervisor.link.wire import HEAD_LIMIT, Frame, encode

#: Either a frame (to send, or to post under a kind), or a number of bytes that the kernel takes.
ACTIONS = st.lists(st.tuples(st.sampled_from([None, "state", "plan"]), st.integers(1, 9)) | st.integers(0, 40))


def drained(outbox: Outbox) -> bytes:
    said = bytearray()
    while piece := outbox.next():
        said += piece
        outbox.left(len(piece))
    return bytes(said)


def test_the_newest_of_a_kind_leaves_in_its_own_place() -> None:
    outbox = Outbox()
    for data, kind in ((b"a1", "a"), (b"x", None), (b"b1", "b"), (b"a2", "a"), (b"y", None)):
        outbox.put(data, kind)
    assert outbox.waiting_bytes == 6
    assert drained(outbox) == b"xb1a2y"
    assert outbox.waiting_bytes == 0


def test_what_has_begun_to_leave_leaves_whole() -> None:
    outbox = Outbox()
    outbox.put(b"first", "a")
    assert bytes(outbox.next()) == b"first"
    outbox.left(2)
    outbox.put(b"second", "a")
    outbox.put(b"third", "a")
    assert outbox.waiting_bytes == 8
    assert drained(outbox) == b"rstthird"


@given(ACTIONS)
def test_every_frame_leaves_whole_and_in_order_unless_it_was_replaced(
    actions: list[tuple[str | None, int] | int],
) -> None:
    outbox, said, put = Outbox(), bytearray(), 0
    frames: dict[int, tuple[str | None, bytes]] = {}
    for action in actions:
        if isinstance(action, int):
            piece = outbox.next()[:action]
            said += piece
            outbox.left(len(piece))
            continue
        put += 1
        frames[put] = (action[0], b"<%d%s>" % (put, b"." * action[1]))
        outbox.put(frames[put][1], action[0])
    waiting = outbox.waiting_bytes
    rest = drained(outbox)
    assert len(rest) == waiting
    numbers = [int(piece.strip(b".")) for piece in bytes(said + rest).strip(b"<>").split(b"><") if piece]
    assert numbers == sorted(numbers)
    assert bytes(said + rest) == b"".join(frames[number][1] for number in numbers)
    for number in frames.keys() - set(numbers):  # every frame that never left was followed by one of its kind
        kind = frames[number][0]
        assert kind is not None
        assert any(frames[later][0] == kind for later in range(number + 1, put + 1))


def test_all_that_was_said_is_read_although_writing_fails_first() -> None:
    ours, theirs = socket.socketpair()
    stream, frames = Stream(ours, 0.0), [Frame("said", {"n": n}, bytes(10_000)) for n in range(15)]
    stream.decoder.limit = HEAD_LIMIT
    theirs.sendall(b"".join(map(encode, frames)))
    theirs.close()
    stream.put(Frame("plan"))
    stream.write()
    stream.put(Frame("plan"))
    assert not stream.waits
    read: list[Frame] = []
    while not stream.ended:
        read += stream.read(1.0)
    stream.close()
    assert read == frames
    assert stream.ended == "the connection ended"


def test_a_connection_is_one_that_the_kernel_repeats_soon() -> None:
    """Without both of the last two it takes four seconds to get over a cut of two."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stream = Stream(connection := socket.create_connection(server.getsockname()), 0.0)
        asked = {name: connection.getsockopt(socket.IPPROTO_TCP, name) for name in (socket.TCP_NODELAY, 16)}
        congestion = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        stream.close()
    assert asked == {socket.TCP_NODELAY: 1, 16: 1}
    assert congestion.rstrip(b"\0") == b"reno"
