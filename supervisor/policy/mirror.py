"""What a mirror offers to go on from, and when its failures are worth a word."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from supervisor.policy.lineage import counts

#: Lineage and step.
At = tuple[int, int]

#: It is said when it begins, and again when it has gone on for so long [s].
COMPLAIN_AFTER_S = (0.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)


def newer(
    there: Mapping[At, bool],
    than: At | None,
    behind: Collection[At],
    passed_over: Collection[At],
    *,
    take_diverged: bool,
) -> At | None:
    """The newest checkpoint of a mirror, if it is newer than what there is elsewhere.

    Args:
        there: lineage and step of each, and whether training had gone wrong by then.
        than: the newest elsewhere; None for none.
        behind: as the ledger has it.
        passed_over: those that turned out to be damaged, or could not be had.
        take_diverged: whether to go on from a state that was taken after training had gone wrong.

    >>> there = {(0, 10): False, (0, 20): False, (0, 30): True}
    >>> newer(there, (0, 10), [], [], take_diverged=False)
    (0, 20)
    >>> newer(there, (0, 20), [], [], take_diverged=False) is None
    True
    """
    hopeful = [
        at
        for at, diverged in there.items()
        if counts(behind, *at) and at not in passed_over and (take_diverged or not diverged)
    ]
    newest = max(hopeful, default=None)
    return newest if newest is not None and (than is None or newest > than) else None


def complaint_due(said: int, failing_s: float) -> bool:
    """Whether it is time to say that a mirror fails.

    Args:
        said: how often that has been said since it last worked.
        failing_s: since it began [s].

    >>> [complaint_due(0, 0.0), complaint_due(1, 599.0), complaint_due(1, 600.0), complaint_due(5, 1e9)]
    [True, False, True, False]
    """
    return said < len(COMPLAIN_AFTER_S) and failing_s >= COMPLAIN_AFTER_S[said]
