"""`supervisor verify`: what each checkpoint of a run is, and which one would be resumed from. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.checkpoint.inventory import Found, survey
from supervisor.checkpoint.manifest import Manifest
from supervisor.checkpoint.programs import Judged
from supervisor.checkpoint.verify import Foreign, Intact, Torn
from supervisor.engine.opening import history
from supervisor.engine.state.given import wants
from supervisor.engine.state.own import Own
from supervisor.engine.state.resuming import torn_ones
from supervisor.report.find import check_run


@dataclass(frozen=True, slots=True)
class Inspection:
    """The checkpoints of a run.

    Attributes:
        found: those below ``checkpoints/``, the intact ones first, newest first.
        set_aside: those below ``torn/``, with the reason.
        wanted: asks whether one would be resumed from, as far as its manifest tells.
        own: those that its program writes by itself, newest first.
        handed: which of these it would be handed.
    """

    found: list[Found]
    set_aside: tuple[str, ...]
    wanted: Callable[[Manifest], bool] = lambda _manifest: True
    own: Sequence[Judged] = ()
    handed: Path | None = None

    @property
    def resume_from(self) -> Path | None:
        """The newest intact one that counts; without any of ours the program's own that it would be handed."""
        ours = next((f.path for f in self.found if isinstance(f.verdict, Intact) and self._wants(f)), None)
        return ours or self.handed

    def _wants(self, one: Found) -> bool:
        return isinstance(one.verdict, Intact) and self.wanted(one.verdict.manifest)

    def as_json(self) -> dict[str, Any]:
        """The contract's `verify --json`."""
        own = {one.named.path: _own_entry(one) for one in self.own}
        listed = [_entry(one, wanted=self._wants(one)) for one in self.found if one.path not in own]
        listed += own.values()
        for line in self.set_aside:
            path, _, reason = line.partition(": ")
            listed.append({"path": path, "step": _step(path), "state": "torn", "reason": reason, "bytes": None})
        resume_from = self.resume_from
        return {"checkpoints": listed, "resume_from": str(resume_from) if resume_from is not None else None}

    def as_text(self) -> str:
        """For people, a line each."""
        lines = []
        for entry in self.as_json()["checkpoints"]:
            reason = f": {entry['reason']}" if entry["reason"] else ""
            lines.append(f"{entry['state']:8} {Path(entry['path']).name}{reason}")
        resume_from = self.resume_from
        lines.append(f"resume from {resume_from.name}" if resume_from else "no checkpoint to resume from")
        return "\n".join(lines)


def inspect(run_dir: Path) -> Inspection:
    """Verify every checkpoint of a run.

    Raises:
        JobError: the directory holds no run.
        DiskError: the directory could not be listed.
    """
    check_run(run_dir)
    ledger = history(run_dir)
    known = [run_dir / path for _, _, path in ledger.committed]
    found = survey(run_dir / "checkpoints", ledger.run_id, known)
    own = Own(run_dir)
    if not ledger.committed:
        own.look()
    handed = own.newest.path if own.newest is not None else None
    return Inspection(found, torn_ones(run_dir), wants(run_dir, ledger), own.listed(), handed)


def _own_entry(one: Judged) -> dict[str, Any]:
    """One that the program wrote: nobody can say that it is intact, only what is wrong with it."""
    reason = f"the program's own, {one.reason or 'nothing wrong to be seen'}"
    state = "foreign" if one.known else "unknown"
    return {"path": str(one.named.path), "step": one.named.number, "state": state, "reason": reason, "bytes": None}


def _entry(one: Found, *, wanted: bool) -> dict[str, Any]:
    state, reason, size = "unknown", getattr(one.verdict, "reason", None), None
    match one.verdict:
        case Intact(manifest):
            state, size = "intact", one.verdict.bytes
            reason = None if wanted else "the run has gone back behind it"
            reason = "taken after training had diverged" if manifest.health.diverged else reason
        case Torn():
            state = "torn"
        case Foreign():
            state = "foreign"
    return {"path": str(one.path), "step": one.step, "state": state, "reason": reason, "bytes": size}


def _step(path: str) -> int | None:
    parts = Path(path).name.split("-")
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else None
