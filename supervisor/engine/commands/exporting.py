"""`supervisor export`: a verified checkpoint in a form that others read. The run itself is not touched.

An adapter is copied here; the other forms need torch and are written by a process of its own
(`worker.exporting`). Each appears whole or not at all: filled beside its name, synced, renamed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from supervisor.checkpoint.contents import ADAPTER, ADAPTER_CONFIG, EXTRA, STATE, check_file
from supervisor.checkpoint.files import OPEN_DIRECTORY, open_file
from supervisor.checkpoint.final import FINAL
from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.manifest import Entry
from supervisor.checkpoint.parts import part_from_range
from supervisor.checkpoint.reading import reading
from supervisor.checkpoint.refusals import StorageError, naming
from supervisor.checkpoint.staging import Staging, staging
from supervisor.checkpoint.sweep import sweep_partials
from supervisor.checkpoint.verify import Intact, verify
from supervisor.engine.converting import ask
from supervisor.engine.state.given import Given, find_given, read_object
from supervisor.errors import JobError
from supervisor.job import base_doubt
from supervisor.journal import JOURNAL


@dataclass(frozen=True, slots=True)
class Written:
    """One form of it, in place."""

    form: str
    path: Path
    bytes: int


@dataclass(slots=True)
class Export:
    """What became of the command.

    Attributes:
        source: what was exported.
        written: the forms, in the order of their writing.
        remarks: what the user should know.
    """

    source: Given
    written: list[Written] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """One JSON document."""
        manifest = self.source.manifest
        return {
            "checkpoint": str(self.source.path),
            "step": None if manifest is None else manifest.step,
            "exported": [{"form": one.form, "path": str(one.path), "bytes": one.bytes} for one in self.written],
            "remarks": self.remarks,
        }


def export(checkpoint: Path, targets: Mapping[str, Path]) -> Export:
    """Write a checkpoint in other forms.

    Args:
        checkpoint: a checkpoint's directory, a run's (its newest intact one is taken), or a run's `final/`.
        targets: directory for each form (``adapter``, ``hf``, ``merged``); none of them holds anything yet.

    Raises:
        JobError: there is nothing to export, or not in that form.
        StorageError: a file system refused; what it was asked for did not appear.
    """
    if not targets:
        raise JobError("no form to export was named", "give --adapter DIR, --hf DIR or --merged DIR")
    _check_targets(targets)
    found = find_source(checkpoint)
    with reading(found.path) as marked:
        source = replace(find_source(marked), passed=found.passed)  # verified again: from here on nobody deletes it
        for form in targets:
            _check_form(source, form)
        made = Export(source, remarks=_remarks(source, targets))
        for form, target in targets.items():
            made.written.append(_write(source, form, target.absolute(), made.remarks))
    return made


def find_source(checkpoint: Path) -> Given:
    """Find and verify what a path stands for; besides what a checkpoint can be, a run's `final/`.

    Raises:
        JobError: it is no checkpoint, or not an intact one.
    """
    checkpoint = checkpoint.absolute()
    if checkpoint.name == FINAL and (checkpoint.parent / JOURNAL).is_file():
        return _final(checkpoint)
    return find_given(checkpoint)


def _final(path: Path) -> Given:
    """The adapter that a run ended with: it has no manifest, so what can be known is that its files make sense."""
    with naming(f"reading {path}"):
        try:
            fd = os.open(path, OPEN_DIRECTORY | os.O_NOFOLLOW)
            try:
                for name in (ADAPTER_CONFIG, ADAPTER):
                    _look(name, fd)
            finally:
                os.close(fd)
        except FileNotFoundError as error:
            raise JobError(f"{path} holds no adapter: {error.filename} is missing", "give a checkpoint") from error
        except FlawError as flaw:
            raise JobError(f"{path} is torn: {flaw.reason}", "give a checkpoint, which has digests") from flaw
    return Given(path, None, {"base": _base_beside(path.parent)}, read_object(path / ADAPTER_CONFIG))


def _base_beside(run_dir: Path) -> Any:
    """The base model that a run's checkpoints tell of: `final/` has its name, but no revision."""
    for directory in (run_dir / "checkpoints").glob("checkpoint-*"):
        if isinstance(verify(directory, None), Intact):
            return read_object(directory / STATE).get("base")
    return None


def _look(name: str, directory_fd: int) -> None:
    fd = open_file(name, directory_fd)
    try:
        check_file(name, fd, os.fstat(fd).st_size, step=0, world_size=1)
    except FlawError as flaw:
        raise FlawError(f"{name}: {flaw.reason}") from flaw
    finally:
        os.close(fd)


def _check_targets(targets: Mapping[str, Path]) -> None:
    """Nothing is overwritten, and no two forms are mixed.

    Raises:
        JobError: a target is taken.
    """
    absolute = [target.absolute() for target in targets.values()]
    for target in absolute:
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise JobError(f"{target} is there and no directory", "name one that is not there yet, or empty")
        if target.is_dir() and any(target.iterdir()):
            raise JobError(f"{target} is not empty", "name a directory that is not there yet, or empty")
        if any(target == other or target in other.parents for other in absolute if other is not target):
            raise JobError(f"{target} was named for two forms, or holds another", "give each a directory of its own")


def _check_form(source: Given, form: str) -> None:
    if form == "hf" and source.manifest is None:
        raise JobError(
            f"{source.path} is no checkpoint: optimizer and random states are not in it", "give a checkpoint"
        )
    if form in ("adapter", "merged") and source.config is None:
        raise JobError(f"{source.path} holds a whole model and no adapter", "use --hf; it has the weights, too")
    if form == "merged" and source.base[0] is None:
        raise JobError(
            f"{source.path} does not tell the name of its base model",
            "use --adapter, and merge it with peft into the model that your program makes",
        )


def _remarks(source: Given, targets: Mapping[str, Path]) -> list[str]:
    """What is not to be had in the forms that were asked for."""
    told = []
    if source.passed:
        told.append(f"{source.path.name} was taken, the newest intact one; passed over: {', '.join(source.passed)}")
    extra = source.manifest is not None and EXTRA in source.manifest.files
    if extra and targets.keys() & {"adapter", "hf"}:
        told.append(f"{EXTRA} (trained, but no part of the adapter) has no place in --adapter and --hf")
    if "hf" in targets and source.state.get("trained"):
        told.append("training had reached its end here: a Trainer that is not given more steps trains one too many")
    if "merged" in targets:
        base = source.state.get("base")
        if isinstance(base, dict) and base.get("quantization"):
            told.append(f"trained on a base quantised with {base['quantization']}, merged into one that is not")
        name, revision = source.base
        run_dir = source.path.parents[0 if source.manifest is None else 1]
        if name is not None and revision is None and (doubt := base_doubt(run_dir, Path(name))):
            told.append(f"{doubt}: what is there now was taken")
    return told


def _write(source: Given, form: str, target: Path, remarks: list[str]) -> Written:
    doing = f"exporting to {target}"
    with naming(doing):
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep_partials(target.parent)
        with staging(target.parent, target.name) as staged:
            if form == "adapter":
                _copy_adapter(source, staged)
            else:
                remarks += _ask(source, form, staged.path)
            size = _settle(staged)
            staged.publish(target, confirm=lambda: None)
    return Written(form, target, size)


def _copy_adapter(source: Given, staged: Staging) -> None:
    """Copy the adapter, and see that what was read now is what was committed."""
    files = [source.path / name for name in (ADAPTER, ADAPTER_CONFIG)]
    entries = staged.write([part_from_range(f.name, f, 0, f.stat().st_size) for f in files])
    committed: Mapping[str, Entry] = {} if source.manifest is None else source.manifest.files
    for name, entry in entries.items():
        if committed.get(name, entry) != entry:
            raise StorageError(f"{source.path / name} changed while it was being read", "try again")


def _ask(source: Given, form: str, target: Path) -> list[str]:
    """Have the process that knows torch write a form.

    Raises:
        JobError: it cannot be had in this form.
        MachineError: the process ended without an answer.
    """
    base, revision = source.base
    request = {
        "form": form,
        "checkpoint": str(source.path),
        "target": str(target),
        "base": base,
        "revision": revision,
        "step": None if source.manifest is None else source.manifest.step,
        "world_size": None if source.manifest is None else source.manifest.world_size,
    }
    return ask("exporting", request)


def _settle(staged: Staging) -> int:
    """Sync every file, and give each the rights that files of this user usually have; their size in all [B]."""
    mask = os.umask(0o077)
    os.umask(mask)
    size = 0
    for name in _names(staged.fd):
        fd = open_file(name, staged.fd)
        try:
            os.fchmod(fd, 0o666 & ~mask)
            os.fsync(fd)
            size += os.fstat(fd).st_size
        finally:
            os.close(fd)
    os.fchmod(staged.fd, 0o777 & ~mask)
    return size


def _names(fd: int) -> Sequence[str]:
    return sorted(os.listdir(fd))
