"""A checkpoint that somebody names, by its own path or by its run's: found, and verified."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from supervisor.checkpoint.contents import ADAPTER, ADAPTER_CONFIG, STATE
from supervisor.checkpoint.flaws import FlawError, load_json
from supervisor.checkpoint.inventory import Newest, newest_intact
from supervisor.checkpoint.manifest import Manifest
from supervisor.checkpoint.refusals import naming
from supervisor.checkpoint.verify import Intact, verify
from supervisor.engine.opening import history
from supervisor.engine.state.resuming import wanted_by
from supervisor.errors import JobError
from supervisor.job import read_resolved
from supervisor.journal import JOURNAL
from supervisor.policy.ledger import Ledger

#: The largest adapter configuration or state that is read whole [B].
_MAX_JSON_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Given:
    """What the path stands for.

    Attributes:
        path: its directory.
        manifest: what was committed; None for `final/`, which has none.
        state: of ``state.json``; of `final/` no more than the base model.
        config: of the adapter; None without one.
        passed: where a run was named, its newer checkpoints, and why each was passed over.
    """

    path: Path
    manifest: Manifest | None
    state: Mapping[str, Any]
    config: Mapping[str, Any] | None
    passed: tuple[str, ...] = ()

    @property
    def base(self) -> tuple[str | None, str | None]:
        """Name and revision of the base model, as far as they are told.

        A model that came from the local cache because the hub did not answer has a path for its name in the state, and
        no revision; the adapter's configuration has both.
        """
        told, config = self.state.get("base"), self.config or {}
        pairs = [(config.get("base_model_name_or_path"), config.get("revision"))]
        if isinstance(told, dict):
            pairs.insert(0, (told.get("name"), told.get("revision")))
        named = [(name, _text(revision)) for name, revision in pairs if _text(name)]
        return next((pair for pair in named if pair[1]), named[0] if named else (None, None))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def find_given(path: Path) -> Given:
    """Find and verify a checkpoint.

    Args:
        path: a checkpoint's directory, or a run's, whose newest intact one is meant.

    Raises:
        JobError: it is no checkpoint, or not an intact one.
        StorageError: it could not be read.
    """
    path = path.absolute()
    if (path / JOURNAL).is_file():
        return _newest(path)
    if not path.exists():
        raise JobError(f"there is no {path}", "name a checkpoint's directory, or a run's")
    verdict = verify(path.resolve(), None)
    if not isinstance(verdict, Intact):
        what = type(verdict).__name__.lower()
        raise JobError(f"{path} is {what}: {verdict.reason}", "see `supervisor verify RUN_DIR` for intact ones")
    return _given(path, verdict.manifest)


def _newest(run_dir: Path) -> Given:
    ledger = history(run_dir)
    known = [run_dir / path for _, _, path in ledger.committed]
    found = newest_intact(run_dir / "checkpoints", ledger.run_id, known, wants(run_dir, ledger))
    if found.intact is None or not isinstance(found.intact.verdict, Intact):
        reasons = [f"{one.path.name}: {getattr(one.verdict, 'reason', '')}" for one in found.rejected]
        listed = f" ({'; '.join(reasons[:3])})" if reasons else ""
        raise JobError(f"{run_dir} holds no intact checkpoint{listed}", "see `supervisor verify`")
    return replace(_given(found.intact.path, found.intact.verdict.manifest), passed=_passed(found, found.intact.step))


def _passed(found: Newest, step: int) -> tuple[str, ...]:
    told = [(one, getattr(one.verdict, "reason", "")) for one in found.rejected]
    told += [(one, "the run does not go on from it") for one in found.unwanted]
    return tuple(f"{one.path.name} ({reason})" for one, reason in told if one.step > step)


def _given(checkpoint: Path, manifest: Manifest) -> Given:
    config = read_object(checkpoint / ADAPTER_CONFIG) if ADAPTER in manifest.files else None
    return Given(checkpoint, manifest, read_object(checkpoint / STATE), config)


def wants(run_dir: Path, ledger: Ledger) -> Callable[[Manifest], bool]:
    """Asks whether a run would go on from a checkpoint, as far as its manifest tells."""
    return wanted_by(ledger, take_diverged=_takes_diverged(run_dir))


def _takes_diverged(run_dir: Path) -> bool:
    try:
        recovery = read_resolved(run_dir / "job.yaml").get("recovery")
    except JobError:
        return False  # it is lost or damaged; the next start writes it anew
    return isinstance(recovery, dict) and recovery.get("on_nan") == "ignore"


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a small file holds; an empty one for a file that holds something else.

    Raises:
        JobError: it is not JSON.
        StorageError: it could not be read.
    """
    with naming(f"reading {path}"):
        data = path.read_bytes() if path.stat().st_size <= _MAX_JSON_BYTES else b""
    try:
        value = load_json(data)
    except FlawError as flaw:
        raise JobError(f"{path}: {flaw.reason}", "give another checkpoint") from flaw
    return value if isinstance(value, dict) else {}
