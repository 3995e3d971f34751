"""One checkpoint, committed.

It is written beside its final name, listed in a manifest, forced to disk,
looked at, and renamed. The rename is the commit: before it nothing is there,
after it everything is. What is committed is never written again.

What it does not protect against: a disk that loses what it has synced, and
bytes that were wrong in the parts already, as long as their headers parse.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from supervisor.checkpoint.contents import check_file, missing_part
from supervisor.checkpoint.files import identity, make_directory, open_file, sync_directory
from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.manifest import Health, Manifest, encode
from supervisor.checkpoint.names import MANIFEST, checkpoint_name
from supervisor.checkpoint.parts import Part, part_from_bytes
from supervisor.checkpoint.refusals import PartError, StepTakenError, naming
from supervisor.checkpoint.staging import Staging, staging
from supervisor.checkpoint.verify import Intact, verify

#: What rename(2) says when the name is taken by something that is not an empty directory.
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})


@dataclass(frozen=True, slots=True)
class Committed:
    """A checkpoint that is intact on disk.

    Attributes:
        path: its directory.
        bytes: size of all its files, without the manifest [B].
        write_s: how long the commit took [s].
        manifest: what it consists of.
        already: it was there before, intact and of the same run, lineage and
            step; nothing was written.
    """

    path: Path
    bytes: int
    write_s: float
    manifest: Manifest
    already: bool = False


def commit(
    checkpoints: Path,
    *,
    run_id: str,
    lineage: int,
    step: int,
    world_size: int,
    parts: Sequence[Part],
    confirm: Callable[[], None],
    clock: Callable[[], float],
    health: Health | None = None,
) -> Committed:
    """Write a checkpoint that appears whole or not at all.

    Args:
        checkpoints: the directory that holds checkpoints; created if only it is missing.
        run_id: the run.
        lineage: the run's lineage.
        step: optimizer steps done.
        world_size: ranks that took part.
        parts: its files. All are open at once, so a thousand are too many.
        confirm: called when all is on disk, right before the rename; raises
            what it likes if the commit must not be (the lease is lost, a slot
            was overwritten while it was read).
        clock: monotonic time [s].
        health: how training was; None where nobody knows.

    Raises:
        StepTakenError: the name is taken by anything but this same checkpoint.
        PartError: a part is short or long, or is not what its name says.
        StorageError: the file system refused; nothing appeared, unless the last
            sync failed after the rename, and then committing again finds it.

    Source:
        rename(2): "newpath will be atomically replaced"; fsync(2): the
        directory needs its own fsync for the name to last.
    """
    _check_names(parts)
    began_s = clock()
    target = checkpoints / checkpoint_name(step)
    wanted = (run_id, lineage, step)
    with naming(f"committing {target}"):
        make_directory(checkpoints)
        if identity(target) is not None:
            return _already(target, wanted, began_s, clock)
        try:
            with staging(checkpoints, target.name) as staged:
                entries = staged.write(parts)
                manifest = Manifest(
                    run_id=run_id,
                    lineage=lineage,
                    step=step,
                    world_size=world_size,
                    files=entries,
                    health=health or Health(),
                )
                _look(staged, manifest)
                staged.write([part_from_bytes(MANIFEST, encode(manifest))])
                staged.publish(target, confirm)
        except OSError as error:
            if error.errno not in _TAKEN or identity(target) is None:
                raise
            return _already(target, wanted, began_s, clock)  # somebody else was faster
    return Committed(target, manifest.total_bytes, clock() - began_s, manifest)


def _already(target: Path, wanted: tuple[str, int, int], began_s: float, clock: Callable[[], float]) -> Committed:
    """Accept what is there if it is the same checkpoint."""
    verdict = verify(target, None)
    if isinstance(verdict, Intact):
        manifest = verdict.manifest
        if (manifest.run_id, manifest.lineage, manifest.step) == wanted:
            sync_directory(target.parent)  # whoever renamed it may have died before this
            return Committed(target, verdict.bytes, clock() - began_s, manifest, already=True)
        reason = f"run {manifest.run_id}, lineage {manifest.lineage}"
    else:
        reason = f"{type(verdict).__name__.lower()}: {verdict.reason}"
    raise StepTakenError(
        f"{target} is there already ({reason})",
        "move it away; a commit is never rewritten",
        errno.EEXIST,
    )


def _check_names(parts: Sequence[Part]) -> None:
    names = [part.name for part in parts]
    assert len(set(names)) == len(names), f"a part's name came twice: {sorted(names)}"
    assert MANIFEST not in names, f"{MANIFEST} is not a part"


def _look(staged: Staging, manifest: Manifest) -> None:
    """Refuse what `verify` would call torn, while older checkpoints are still there."""
    remedy = "nothing was committed; older checkpoints are untouched"
    missing = missing_part(manifest.files)
    if missing is not None:
        raise PartError(f"{missing}: not among the parts; a resume needs it", remedy)
    for name, entry in manifest.files.items():
        fd = open_file(name, staged.fd)
        try:
            check_file(name, fd, entry.bytes, step=manifest.step, world_size=manifest.world_size)
        except FlawError as flaw:
            raise PartError(f"{name}: {flaw.reason}", remedy) from flaw
        finally:
            os.close(fd)
