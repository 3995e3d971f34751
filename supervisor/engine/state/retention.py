"""What stays on disk after a commit, and what goes."""

from __future__ import annotations

from pathlib import Path

from supervisor.checkpoint.retain import NotDeleted, delete, to_delete
from supervisor.checkpoint.verify import Intact, read_manifest


def retain(run_dir: Path, run_id: str, keep_last: int) -> str | None:
    """Delete the checkpoints of a run that are no longer needed; what could not be removed, None if all went well."""
    intact, diverged = [], set()
    for path in (run_dir / "checkpoints").glob("checkpoint-*"):
        verdict = read_manifest(path, run_id)
        if isinstance(verdict, Intact):
            intact.append((verdict.manifest.lineage, verdict.manifest.step, path))
            diverged |= {path} if verdict.manifest.health.diverged else set()
    outcomes = [delete(path) for path in to_delete(intact, keep_last, diverged=diverged)]
    problems = [f"{o.path.name} could not be removed: {o.reason}" for o in outcomes if isinstance(o, NotDeleted)]
    return "; ".join(problems) or None
