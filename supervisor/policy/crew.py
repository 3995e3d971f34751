"""Several nodes taken together: how their gangs make one, and who is missing.

Pure. What is seen of the nodes are values; the wire is `link`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from supervisor.policy.lifecycle import Attendance, Gang


def together(gangs: Sequence[Gang], *, lost: bool = False, killing: bool = False) -> Gang:
    """One gang made of those of all nodes.

    What is broken anywhere is broken, for the others hang in a sum that never comes. It is gone when nothing
    is left anywhere; of a node that is lost nothing can be seen any more, and nothing is waited for.

    Args:
        gangs: of the nodes that are there.
        lost: a node was lost in this attempt.
        killing: the attempt is being ended.

    >>> together([Gang.ALIVE, Gang.BROKEN]).value, together([Gang.DONE, Gang.GONE]).value
    ('broken', 'done')
    >>> together([Gang.GONE, Gang.ALIVE], killing=True).value, together([Gang.GONE], lost=True, killing=True).value
    ('broken', 'gone')
    """
    if all(gang is Gang.NONE for gang in gangs):
        return Gang.NONE
    if all(gang in (Gang.GONE, Gang.NONE) for gang in gangs) and (killing or not lost):
        return Gang.GONE
    if lost or killing or Gang.BROKEN in gangs:
        return Gang.BROKEN
    if all(gang in (Gang.DONE, Gang.GONE) for gang in gangs):
        return Gang.DONE
    return Gang.ALIVE


def attendance(absent: Collection[int], waited_s: float, patience_s: float) -> Attendance:
    """Whether every node but the leader's is there with nothing of an earlier attempt left.

    Args:
        absent: numbers of the nodes that are not.
        waited_s: how long somebody has been missing [s].
        patience_s: how long that may be [s].

    >>> attendance([], 99.0, 60.0).value, attendance([1], 1.0, 60.0).value, attendance([1], 61.0, 60.0).value
    ('complete', 'awaited', 'overdue')
    """
    if not absent:
        return Attendance.COMPLETE
    return Attendance.OVERDUE if waited_s > patience_s else Attendance.AWAITED
