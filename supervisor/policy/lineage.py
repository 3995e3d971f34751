"""What a run has gone back behind does not count any more, wherever it lies."""

from __future__ import annotations

from collections.abc import Collection


def counts(behind: Collection[tuple[int, int]], lineage: int, step: int) -> bool:
    """Whether a state still counts: the run has not gone back behind it since.

    Args:
        behind: as the ledger has it.
        lineage: of the state.
        step: of the state.

    >>> counts([(1, 7)], 0, 6), counts([(1, 7)], 0, 7), counts([(1, 7)], 1, 7)
    (True, False, True)
    """
    return all(lineage >= began or step < before for began, before in behind)
