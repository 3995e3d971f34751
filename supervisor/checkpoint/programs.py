"""Checkpoints that a program writes by itself: found by their names, the newest one that is not visibly damaged.

A name ends in a word for progress and a number: `checkpoint-40`, `checkpoint_40` and `step_40` (directories, as the
Trainer, accelerate's `save_state` and its examples name them), `epoch_3`, `run-ckpt-40.pt`. What a save has not
finished yet has another name with whoever is careful (`tmp-checkpoint-40`), and fails to verify with all others.

What it does not protect against: what `foreign` does not see; a program that counts down.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.foreign import TORCH, check_directory, check_file, files_of
from supervisor.checkpoint.verify import Foreign, read_manifest

_NAME = re.compile(
    r"((?:[a-z0-9]+[-_])*?)(checkpoint|ckpt|global_step|steps?|epoch|iteration|iter)[-_]?([0-9]{1,18})((?:\.[a-z]+)*)",
    re.IGNORECASE | re.ASCII,
)
#: In a name before the word: no checkpoint to go on from, not yet, or not any more.
_NOT = frozenset({"tmp", "temp", "partial", "incomplete", "old", "backup", "best", "optimizer", "optim", "scheduler"})
#: So many older ones are asked what belongs to a checkpoint.
_SIBLINGS = 3
#: Of so many of the newest the first good one is looked for.
_MOST = 20


@dataclass(frozen=True, slots=True)
class Named:
    """What has a checkpoint's name.

    Attributes:
        path: directory or file.
        kind: its place and name without the number.
        number: of steps or epochs.
        stamp_ns: when anything in it was last written [ns since the epoch of its file system's clock].
    """

    path: Path
    kind: str
    number: int
    stamp_ns: int


@dataclass(frozen=True, slots=True)
class Judged:
    """One that was looked at.

    Attributes:
        named: which.
        reason: what is wrong with it; None if nothing can be seen.
        known: whether it could be read at all.
    """

    named: Named
    reason: str | None
    known: bool = True


def number_in(name: str) -> tuple[str, int] | None:
    """Kind and number of a checkpoint's name; None for every other name.

    >>> number_in("checkpoint-40"), number_in("run-ckpt_0040.pt"), number_in("epoch_3")
    (('checkpoint-#', 40), ('run-ckpt_#.pt', 40), ('epoch_#', 3))
    >>> [number_in(name) for name in ("tmp-checkpoint-40", "best_step_4", "model-00001-of-00002.safetensors", "step")]
    [None, None, None, None]
    """
    match = _NAME.fullmatch(name)
    if match is None or _NOT & set(re.split(r"[-_]", match[1].lower())):
        return None
    if match[4] and not match[4].lower().endswith((*TORCH, ".safetensors")):
        return None
    return name[: match.start(3)] + "#" + match[4], int(match[3])


def find(places: Iterable[Path], before: Mapping[str, int] | None = None) -> list[Named]:
    """Whatever has a checkpoint's name and is none of ours, newest first.

    What was written last comes first, and with it all of its kind, by number: copies of a directory may have
    lost the times of its files, and a number means nothing between kinds.

    Args:
        places: directories to look in; one that is not there holds nothing.
        before: stamps of those that were there before, by path; such a one is passed over until it is written anew.

    Raises:
        OSError: a directory could not be read.
    """
    found: dict[str, list[Named]] = {}
    for place in places:
        try:
            names = sorted(os.listdir(place))  # noqa: PTH208 - only the names
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            told = number_in(name)
            stamp_ns = _stamp_ns(place / name) if told is not None else None
            if told is not None and stamp_ns is not None and (before or {}).get(str(place / name)) != stamp_ns:
                kind = f"{place}/{told[0]}"
                found.setdefault(kind, []).append(Named(place / name, kind, told[1], stamp_ns))
    kinds = sorted(found.values(), key=lambda kind: max(one.stamp_ns for one in kind), reverse=True)
    return [one for kind in kinds for one in sorted(kind, key=lambda one: one.number, reverse=True)]


def _stamp_ns(path: Path) -> int | None:
    """When it was last written; None for a link, for one of ours, and for what is neither directory nor file."""
    try:
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            return status.st_mtime_ns if path.suffix else None
        if not stat.S_ISDIR(status.st_mode) or not isinstance(read_manifest(path, None), Foreign):
            return None
        inside = [os.lstat(path / name).st_mtime_ns for name in os.listdir(path)]  # noqa: PTH208 - only the names
    except FileNotFoundError:
        return None
    return max([status.st_mtime_ns, *inside])


def judge(
    found: Sequence[Named], late: Callable[[], bool] = lambda: False, known: Mapping[Named, Judged] | None = None
) -> list[Judged]:
    """Look at them one by one, newest first, until one is good.

    Args:
        found: by `find`.
        late: asked whether time is up; then contents are not read through any more.
        known: what was found out earlier.

    Returns:
        All that were looked at; if one is good, it is the last.
    """
    judged: list[Judged] = []
    for named in found[:_MOST]:
        judged.append((known or {}).get(named) or judge_one(named, found, late))
        if judged[-1].reason is None:
            break
    return judged


def judge_one(named: Named, found: Sequence[Named], late: Callable[[], bool] = lambda: False) -> Judged:
    """Look at one of them, and at what those of its kind consist of that came before."""
    siblings = [one for one in found if one.kind == named.kind and one.number < named.number][:_SIBLINGS]
    try:
        if named.path.is_dir():
            check_directory(named.path, late)
            _check_complete(named, siblings)
        else:
            check_file(named.path, late)
    except FlawError as flaw:
        return Judged(named, flaw.reason)
    except OSError as error:
        return Judged(named, f"could not be read: {(error.strerror or str(error)).lower()}", known=False)
    return Judged(named, None)


def _check_complete(named: Named, siblings: Sequence[Named]) -> None:
    """What all of the few before it have, it has to have.

    So a file that a program leaves out from some day on is missed once: two in a row without it, and it is no more.
    """
    older = []
    for one in siblings:
        try:
            older.append({_without(one.number, name) for name in files_of(one.path)})
        except (OSError, FlawError):
            continue
    own = {_without(named.number, name) for name in files_of(named.path)}
    missing = sorted(set.intersection(*older) - own) if older else []
    if missing:
        raise FlawError(f"{missing[0].replace('#', str(named.number))}: missing; the ones before it have it")


def _without(number: int, name: str) -> str:
    return re.sub(rf"(?<![0-9])0*{number}(?![0-9])", "#", name)
