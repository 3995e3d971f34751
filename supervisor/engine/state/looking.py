"""The disk is looked at again while it shows less than the journal knows: a while, and then what it shows counts.

A server that fails over answers ESTALE or EIO for some seconds, and a client of NFS may say for as long as it
remembers that a name is not there. Going on from an older checkpoint at the first such answer
would redo what was done; waiting for long would keep an allocation idle.

Source:
    nfs(5), "Directory entry caching" and `lookupcache`: entries that are not there are remembered, too, until
    the directory's attributes are asked for again (`acdirmin`, 30 s at first).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from supervisor.checkpoint.inventory import Newest
from supervisor.checkpoint.verify import Intact
from supervisor.errors import DiskError
from supervisor.policy.ledger import Ledger
from supervisor.policy.storage import GONE

if TYPE_CHECKING:
    from supervisor.engine.state.resuming import OnDisk

#: How long the disk is looked at again [s]: as long as a node may take to come up.
PATIENCE_S = 10.0


def newest_missing(run_dir: Path, ledger: Ledger, found: Newest) -> tuple[str, ...]:
    """The newest checkpoint that the journal knows, where nothing shows it; retention would have kept that one.

    Args:
        run_dir: of the run.
        ledger: of the run.
        found: what the file system shows.
    """
    counting = [one for one in ledger.committed if ledger.counts(one[0], one[1])]
    if not counting:
        return ()
    lineage, step, where = max(counting)
    name = Path(where).name
    intact = found.intact.verdict if found.intact is not None else None
    if isinstance(intact, Intact) and (intact.manifest.lineage, intact.manifest.step) >= (lineage, step):
        return ()
    shown = [one.path.name for one in (*found.rejected, *found.unwanted)]
    aside = next((run_dir / "torn").glob(f"{name}-*"), None)
    return () if name in shown or aside is not None else (name,)


def look_patiently(look: Callable[[], OnDisk], patience_s: float = PATIENCE_S) -> OnDisk:
    """Look at the disk, and again while what it shows is doubtful.

    Args:
        look: looks once; what it sets aside, the next look does not find any more.
        patience_s: after this long the last look counts [s].

    Raises:
        DiskError: the file system refused each time.
    """
    first = _tried(look)
    if not _is_doubtful(first):
        return _given(first)
    from supervisor.retry import until_certain  # only now: the library behind it takes longer to import than a look

    looks = [first, *until_certain(lambda: _tried(look), doubtful=_is_doubtful, within_s=patience_s)]
    found = _given(looks[-1])
    rejected = [one for each in looks if not isinstance(each, DiskError) for one in each.rejected]
    return replace(found, rejected=tuple(dict.fromkeys(rejected)))


def _tried(look: Callable[[], OnDisk]) -> OnDisk | DiskError:
    try:
        return look()
    except DiskError as error:
        return error


def _is_doubtful(found: OnDisk | DiskError) -> bool:
    if isinstance(found, DiskError):
        return getattr(found, "errno", None) in GONE
    return bool(found.missing or found.passing)


def _given(found: OnDisk | DiskError) -> OnDisk:
    if isinstance(found, DiskError):
        raise found
    return found
