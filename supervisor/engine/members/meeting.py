"""Where the members find their leader: `control/leader*.json` in the run directory, readable by its owner only.

It holds the address and the token of the leader's link, or the exit code with which a leader left that
had nothing to lead: a run that has finished, a job file that was refused. Each allocation has a file of its
own: one that finds the run led elsewhere says so to its members, and to nobody else's.
"""

from __future__ import annotations

import errno
import json
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.errors import ExitCode
from supervisor.link.address import Address
from supervisor.whole import write_whole

#: No allocation's members look for their leader so long after it has said where it is [s].
OLD_S = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Over:
    """The leader has left.

    Attributes:
        code: its exit code.
    """

    code: ExitCode


def announce(run_dir: Path, allocation: str, what: Address | Over) -> None:
    """Tell the members of an allocation.

    Raises:
        OSError: the run directory refused.
    """
    directory = run_dir / "control"
    directory.mkdir(mode=0o700, exist_ok=True)
    told = {"over": int(what.code)} if isinstance(what, Over) else {"address": what.encode()}
    write_whole(directory / _name(allocation), json.dumps({"allocation": allocation, **told}))
    for left in (*directory.glob("leader-*.json"), *directory.glob("leaderless-*")):
        with suppress(FileNotFoundError):  # another supervisor of the run may sweep, too
            if left.stat().st_mtime < time.time() - OLD_S:
                left.unlink()  # of an allocation that is over: a weekend of requeues leaves many


def find(run_dir: Path, allocation: str) -> Address | Over | None:
    """What the leader of an allocation tells; None while it has told nothing.

    Opened by its own name each time, since on NFS a listing may be a minute old.
    """
    try:
        told: Any = json.loads((run_dir / "control" / _name(allocation)).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or told.get("allocation") != allocation:
        return None
    code = told.get("over")
    return Over(ExitCode(code)) if code in list(ExitCode) else Address.parse(told.get("address"))


def _name(allocation: str) -> str:
    return f"leader-{allocation}.json" if allocation else "leader.json"


def own_host(peer: str) -> str:
    """The address of this machine that a peer sees, as a number.

    Args:
        peer: its name or address.

    Raises:
        OSError: the name is not known or is none, or there is no way to it.
    """
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(peer, 9, type=socket.SOCK_DGRAM)[0]
    except UnicodeError as error:  # a part of it is empty or too long
        raise OSError(errno.EINVAL, "it is no host's name") from error
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(where)  # nothing is sent: the kernel chooses the way, and with it our address
        return str(probe.getsockname()[0])
