"""Who owns a run: a process, named so that nobody else can be taken for it.

A pid alone is reused, so its start time goes with it; a start time counts from
the boot, so the boot goes with it; and containers number their processes
anew, so the pid namespace does, too.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any


class Life(Enum):
    """What is known about an owner from here."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"  # on another machine, or where /proc does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """One supervisor process.

    Attributes:
        host: its machine's name, for messages.
        boot_id: of the kernel that it runs on; None where it could not be read.
        pid_ns: its pid namespace, such as `pid:[4026531836]`; None where it could not be read.
        pid: its process id in there.
        start_ticks: when it started [clock ticks since boot]; None where it could not be read.
        token: drawn anew at each acquisition.
        job: the scheduler's id of the job that it runs in; None outside of one.
        restart: how often that job was put back into the queue before.
    """

    host: str
    boot_id: str | None
    pid_ns: str | None
    pid: int
    start_ticks: int | None
    token: str
    job: str | None = None
    restart: int | None = None

    def encode(self) -> dict[str, Any]:
        """The owner as JSON holds it."""
        return asdict(self)

    @staticmethod
    def parse(values: Any) -> Owner | None:
        """Read back what `encode` gave; None for anything else.

        >>> Owner.parse({"host": "a"}) is None
        True
        """
        if not isinstance(values, Mapping):
            return None
        host, pid, token = values.get("host"), whole(values.get("pid")), values.get("token")
        boot_id, pid_ns, job = values.get("boot_id"), values.get("pid_ns"), values.get("job")
        if not isinstance(host, str) or not isinstance(token, str) or not pid:
            return None
        return Owner(
            host=host,
            boot_id=boot_id if isinstance(boot_id, str) else None,
            pid_ns=pid_ns if isinstance(pid_ns, str) else None,
            pid=pid,
            start_ticks=whole(values.get("start_ticks")),
            token=token,
            job=job if isinstance(job, str) else None,
            restart=whole(values.get("restart")),
        )


def this_process(*, job: str | None = None, restart: int | None = None) -> Owner:
    """This process, with a token of its own.

    Args:
        job: the scheduler's id of the job that it runs in.
        restart: how often that job was put back into the queue before.
    """
    pid = os.getpid()
    return Owner(
        host=os.uname().nodename,
        boot_id=_boot_id(),
        pid_ns=_pid_namespace(),
        pid=pid,
        start_ticks=start_ticks(pid),
        token=uuid.uuid4().hex,
        job=job,
        restart=restart,
    )


def life(owner: Owner, here: Owner) -> Life:
    """Whether ``owner`` lives, as far as it can be told from the machine of ``here``.

    Only the same kernel and the same pid namespace can tell. A pid that has
    gone, is a zombie, or has started at another time, is dead.
    """
    if owner.boot_id is None or owner.pid_ns is None or owner.start_ticks is None:
        return Life.UNKNOWN
    if (owner.boot_id, owner.pid_ns) != (here.boot_id, here.pid_ns):
        return Life.UNKNOWN
    return Life.ALIVE if start_ticks(owner.pid) == owner.start_ticks else Life.DEAD


def follows(here: Owner, owner: Owner) -> bool:
    """Whether ``here`` is a later stay of the very job that ``owner`` runs in.

    A scheduler starts a job again only after it has taken the job away.

    >>> first = this_process(job="17", restart=0)
    >>> follows(this_process(job="17", restart=1), first), follows(this_process(job="18", restart=1), first)
    (True, False)
    """
    if here.job is None or here.restart is None or owner.restart is None:
        return False
    return here.job == owner.job and owner.restart < here.restart


def start_ticks(pid: int) -> int | None:
    """When a process started [clock ticks since boot]; None if there is none, or it is a zombie.

    Source:
        proc_pid_stat(5): field 22 is the start time, field 3 the state; field 2
        is a name in parentheses that may itself hold spaces and parentheses.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
        fields = stat[stat.rindex(b")") + 2 :].split()
        return None if fields[0] in (b"Z", b"X", b"x") else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() or None
    except OSError:
        return None


def _pid_namespace() -> str | None:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def whole(value: Any) -> int | None:
    """``value`` if it is a whole number that counts something, else None.

    >>> whole(3), whole(-1), whole(True), whole("3")
    (3, None, None, None)
    """
    counts = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
    return value if counts else None
