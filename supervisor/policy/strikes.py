"""Nodes that have hurt the run: strikes with expiry, and which nodes to keep away from.

Folded from the journal, so they survive a requeue. A node is avoided, never condemned: a strike is forgotten
after a day, and the job must still fit its partition.

What this does *not* protect against: a partition of unlike nodes, of which only the excluded ones suit the job. It
then waits until the strike has expired and somebody has submitted it again, or updated its ExcNodeList.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from supervisor.policy.causes import Cause

#: A node that was mended comes back by itself after this long [s].
EXPIRY_S = 86_400.0
#: So much and a node is avoided.
ENOUGH = 2
#: What a cause tells against the node that it happened on. The second kind may be the network's or the
#: file system's own, and is believed when it happens twice in one place.
WEIGHTS = {
    Cause.NODE_LOST: 2,
    Cause.GPU_FAULT: 2,
    Cause.DISCONNECTED: 1,
    Cause.NETWORK: 1,
    Cause.STALLED: 1,
}


@dataclass(frozen=True, slots=True)
class Strikes:
    """What the journal tells against nodes.

    Attributes:
        nodes: to be avoided, the one with the oldest strike first.
        excluded: what the scheduler was told to avoid before; it still does unless it is told anew.
    """

    nodes: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


def strikes_of(records: Iterable[Mapping[str, Any]], now_s: float) -> Strikes:
    """The strikes after these journal records.

    An attempt counts once against a node, however many records tell of it.

    Args:
        records: oldest first, each with `event`, `time` [unix s], `attempt` and its fields. Told against a node are
            `incident` and `attempt_ended` that carry `node` or `nodes`; what the scheduler was
            told stands in `adapted`, as `excluded`.
        now_s: wall time [unix s].

    >>> lost = {"event": "incident", "time": 5.0, "attempt": 1, "cause": "node_lost", "nodes": ["n1"]}
    >>> strikes_of([lost], 10.0), strikes_of([lost], 90_000.0)
    (Strikes(nodes=('n1',), excluded=()), Strikes(nodes=(), excluded=()))
    """
    against: dict[str, dict[object, int]] = {}
    newest_s: dict[str, float] = {}
    excluded: tuple[str, ...] = ()
    for record in records:
        time_s = record.get("time")
        if record.get("event") == "adapted" and "excluded" in record:
            excluded = _named(record.get("excluded"))
        weight = _weight(record)
        if not weight or not isinstance(time_s, int | float) or now_s - time_s > EXPIRY_S:
            continue
        for node in _named(record.get("nodes")) or _named(record.get("node")):
            attempts = against.setdefault(node, {})
            attempts[record.get("attempt")] = max(weight, attempts.get(record.get("attempt"), 0))
            newest_s[node] = time_s
    struck = [node for node, attempts in against.items() if sum(attempts.values()) >= ENOUGH]
    return Strikes(tuple(sorted(struck, key=lambda node: newest_s[node])), excluded)


def to_exclude(
    strikes: Strikes,
    *,
    own: Collection[str],
    requested: Collection[str],
    available: Sequence[str] | None,
    needed: int,
) -> tuple[str, ...]:
    """Which nodes the job is not to get, besides those that the user excludes.

    Args:
        strikes: against nodes.
        own: nodes that the job excludes already.
        requested: nodes that the job asks for; one that is requested and excluded would never start.
        available: nodes of the partition that are up; None if nobody can tell.
        needed: how many nodes the job takes.

    >>> told = Strikes(nodes=("n1", "n2"))
    >>> to_exclude(told, own=(), requested=(), available=("n1", "n2", "n3"), needed=1)
    ('n1', 'n2')
    >>> to_exclude(told, own=(), requested=(), available=("n1", "n2", "n3"), needed=2)
    ('n2',)
    """
    if available is None:
        return ()  # the job must start somewhere: better on a bad node than never
    users = set(own) - set(strikes.excluded)
    left = set(available) - users
    chosen = []
    for node in reversed(strikes.nodes):  # the oldest strike is dropped first
        if node in requested or node in users or len(left - {node}) < needed:
            continue
        left.discard(node)
        chosen.append(node)
    return tuple(reversed(chosen))


def _weight(record: Mapping[str, Any]) -> int:
    if record.get("event") not in ("incident", "attempt_ended"):
        return 0
    try:
        return WEIGHTS.get(Cause(record.get("cause")), 0)
    except ValueError:
        return 0


def _named(told: object) -> tuple[str, ...]:
    if isinstance(told, str):
        return (told,)
    return tuple(one for one in told if isinstance(one, str)) if isinstance(told, list | tuple) else ()
