"""The running sums behind a Trainer's next log line, kept so that no row differs in a later life.

All of them are private, so each is optional. TRL's trainers add theirs, on every rank: lists of what was measured since
the last row, and the tokens seen so far.
"""

from __future__ import annotations

from typing import Any

from supervisor.worker import tree

_SUMS = ("_total_loss_scalar", "_globalstep_last_logged", "current_flos", "_total_train_tokens")
#: TRL's lists, by what they are for ("train", "eval") and by name.
_LISTS = "_metrics"
#: So many numbers may stand in each snapshot; with rarer rows a row covers only the life that it is written in.
_MOST = 2000


def told(trainer: Any) -> dict[str, Any]:
    """What a trainer has, as JSON."""
    found = {name: tree.encode(getattr(trainer, name), name) for name in _SUMS if hasattr(trainer, name)}
    lists = getattr(trainer, _LISTS, None)
    return {**found, _LISTS: tree.encode(lists, _LISTS)} if _plain(lists) else found


def restore(trainer: Any, own: dict[str, Any]) -> None:
    """Put back what `told` said."""
    for name in _SUMS:
        # Older Trainers keep the running loss in a local: the sums behind it cannot be restored alone.
        if name in own and hasattr(trainer, name) and hasattr(trainer, "_tr_loss"):
            setattr(trainer, name, tree.decode(own[name]))
    lists: Any = getattr(trainer, _LISTS, None)
    if _LISTS not in own or not _plain(lists):
        return
    for purpose, named in tree.decode(own[_LISTS]).items():
        if purpose in lists:  # they give themselves a list for each new name: only what is in them is replaced
            lists[purpose].clear()
            lists[purpose].update(named)


def _plain(lists: Any) -> bool:
    """Whether it is what TRL keeps: lists of numbers by name, by purpose; and few enough."""
    if not isinstance(lists, dict) or not all(isinstance(named, dict) for named in lists.values()):
        return False
    listed = [values for named in lists.values() for values in named.values()]
    if not all(isinstance(values, list) for values in listed) or sum(map(len, listed)) > _MOST:
        return False
    return all(isinstance(value, (int, float)) for values in listed for value in values)
