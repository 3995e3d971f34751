"""Whatever comes over the link, it is a message of this version or a `MessageError`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.board.pages import Beat, Phase
from supervisor.engine.attempt import AttemptOrder, Start
from supervisor.engine.members.messages import SEEN, WANTED, MessageError, Seen, Wanted, Warned
from supervisor.engine.ranks import node
from supervisor.launch.command import Rendezvous
from supervisor.link.wire import HEAD_LIMIT, Decoder, Frame, encode
from supervisor.policy.adapt import Adaptation
from supervisor.policy.causes import RankEnd
from supervisor.policy.lifecycle import Gang
from supervisor.policy.stalls import Account

WHOLE = st.integers(-1, 1 << 62)
WORDS = st.text(max_size=12)
IDENTITY = st.tuples(WHOLE, WHOLE, WHOLE, WHOLE)
FLOATS = st.floats(allow_nan=False)
BEATS = st.builds(
    Beat,
    pid=WHOLE,
    phase=st.sampled_from(Phase),
    step=WHOLE,
    loss=FLOATS,
    step_s=FLOATS,
    snapshot_s=FLOATS,
    grad_norm=FLOATS,
    own_s=FLOATS,
    micro_batch=WHOLE,
)
ENDS = st.builds(
    RankEnd,
    WHOLE,
    FLOATS,
    st.none() | WORDS,
    st.lists(WORDS, max_size=3).map(tuple),
    WORDS,
    st.none() | WHOLE,
    st.none() | WORDS,
    st.none() | WHOLE,
    st.lists(WORDS, max_size=2).map(tuple),
    st.none() | st.booleans(),
    st.none() | WORDS,
    st.none() | WHOLE,
    st.lists(WORDS, max_size=2).map(tuple),
    WHOLE,
    st.none() | WHOLE,
)
STARTS = st.builds(
    Start, WHOLE, WORDS, st.none() | WORDS.map(lambda name: Path("/run") / name), st.booleans(), st.none() | IDENTITY
)
ORDERS = st.builds(
    AttemptOrder,
    number=WHOLE,
    lineage=WHOLE,
    rendezvous=st.builds(Rendezvous, WORDS, WHOLE, WHOLE, WHOLE),
    processes=WHOLE,
    start=STARTS,
    accept_changes=st.booleans(),
    adaptation=st.builds(Adaptation, micro_batch=st.none() | st.integers(1, 64), offline=st.none() | st.booleans()),
)
WANTEDS = st.builds(
    Wanted,
    run_id=WORDS,
    epoch=WHOLE,
    token=WORDS,
    order=st.none() | ORDERS,
    kill=st.booleans(),
    drain=WHOLE,
    part=st.none() | st.tuples(WHOLE, IDENTITY),
    leave=st.none() | WHOLE,
    inquiry=WHOLE,
    native=st.booleans(),
)
ACCOUNTS = st.builds(
    Account,
    rank=WHOLE,
    pid=WHOLE,
    state=st.none() | WORDS,
    waits_in=st.none() | WORDS,
    frames=st.none() | st.lists(WORDS, max_size=3).map(tuple),
    gpu_percent=st.none() | WHOLE,
    files=st.lists(WORDS, max_size=2).map(tuple),
)
WARNED = st.builds(
    Warned,
    cloud=WORDS,
    kind=WORDS,
    detail=WORDS,
    key=WORDS,
    urgent=st.booleans(),
    left_s=st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
SEENS = st.builds(
    Seen,
    attempt=WHOLE,
    gang=st.sampled_from(Gang),
    beats=st.lists(BEATS, max_size=2).map(tuple),
    whole=st.lists(IDENTITY, max_size=3).map(tuple),
    lingers=st.booleans(),
    shortage=st.none() | WORDS,
    gpu_fault=st.none() | WORDS,
    failure=st.none() | WORDS,
    testimony=st.builds(
        node.Testimony, st.booleans(), st.lists(ENDS, max_size=2).map(tuple), st.none() | WORDS, st.none() | WHOLE
    ),
    notice=st.none() | WORDS,
    warned=st.none() | WARNED,
    stop=st.booleans(),
    answered=WHOLE,
    accounts=st.lists(ACCOUNTS, max_size=2).map(tuple),
)
ODD = st.sampled_from(
    [
        None,
        True,
        -1,
        1 << 80,
        0.5,
        float("inf"),
        float("nan"),
        "",
        "7",
        [],
        ["7"],
        [1, 2, 3, float("inf")],
        {},
        {"a": 1},
    ]
)


def sent(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    """What arrives of it at the other end."""
    [frame] = Decoder(HEAD_LIMIT).feed(encode(Frame(kind, fields)))
    return dict(frame.fields)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something can be put in a message's place."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


def put(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    """A message with something odd in one place."""
    if not path:
        return odd
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = put(copied[path[0]], path[1:], odd)
    return copied


@given(WANTEDS)
def test_what_a_leader_wants_arrives_as_it_was_said(wanted: Wanted) -> None:
    assert Wanted.read(sent(WANTED, wanted.fields())) == wanted


@given(SEENS)
def test_how_a_node_is_arrives_as_it_was_said(seen: Seen) -> None:
    assert Seen.read(sent(SEEN, seen.fields())) == seen


@pytest.mark.parametrize(("kind", "messages", "of"), [(WANTED, WANTEDS, Wanted), (SEEN, SEENS, Seen)])
@given(data=st.data())
def test_something_odd_anywhere_is_refused_or_means_what_it_says(
    kind: str, messages: st.SearchStrategy[Any], of: Any, data: st.DataObject
) -> None:
    told = sent(kind, data.draw(messages).fields())
    odd = put(told, data.draw(st.sampled_from(places(told))), data.draw(ODD))
    try:
        made = of.read(odd)
    except MessageError:
        return
    assert json.dumps(sent(kind, made.fields()), sort_keys=True) == json.dumps(odd, sort_keys=True)


@pytest.mark.parametrize("of", [Wanted, Seen])
@given(fields=st.dictionaries(WORDS | st.sampled_from(["order", "part", "ends", "beats"]), ODD, max_size=5))
def test_what_is_no_message_at_all_is_refused(of: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        of.read(fields)


def test_only_what_the_leader_acts_on_is_news() -> None:
    beat = Beat(pid=7, phase=Phase.TRAINING, step=3, resumed=0)
    seen = Seen(attempt=1, gang=Gang.ALIVE, beats=(beat,), whole=((0, 3, 0, 1),))
    assert seen.is_news(None)
    assert not replace(seen, beats=(replace(beat, step=4, loss=0.5),), whole=((0, 4, 0, 1),)).is_news(seen)
    warned = Warned(cloud="aws", kind="spot", detail="", key="spot", urgent=True, left_s=120.0)
    noticed = replace(seen, warned=warned)
    assert not replace(noticed, warned=replace(warned, left_s=119.0)).is_news(noticed)
    assert replace(noticed, warned=replace(warned, left_s=None)).is_news(noticed)
    assert seen.is_news(noticed)
    for other in (
        noticed,
        replace(seen, gang=Gang.BROKEN),
        replace(seen, stop=True),
        replace(seen, notice="SIGTERM"),
        replace(seen, failure="no room"),
        replace(seen, shortage="memory"),
        replace(seen, gpu_fault="GPU 0: Xid 79"),
        replace(seen, answered=1001),
        replace(seen, beats=(replace(beat, phase=Phase.PAUSED),)),
        replace(seen, testimony=node.Testimony(ends=(RankEnd(0, 1.0),))),
        replace(seen, testimony=node.Testimony(oom_kills=1)),
    ):
        assert other.is_news(seen)
