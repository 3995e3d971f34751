"""Where the members find their leader: `control/leader.json` in the run directory, readable by its owner only.

It holds the address and the token of the leader's link, or the exit code with which a leader left that
had nothing to lead: a run that has finished, a job file that was refused. What is there speaks for one
allocation only; an older one's is no answer.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.engine.opening import write_whole
from supervisor.link.address import Address

_FILE = "leader.json"


@dataclass(frozen=True, slots=True)
class Over:
    """The leader has left.

    Attributes:
        code: its exit code.
    """

    code: int


def announce(run_dir: Path, allocation: str, what: Address | Over) -> None:
    """Tell the members of an allocation.

    Raises:
        OSError: the run directory refused.
    """
    directory = run_dir / "control"
    directory.mkdir(mode=0o700, exist_ok=True)
    told = {"over": what.code} if isinstance(what, Over) else {"address": what.encode()}
    write_whole(directory / _FILE, json.dumps({"allocation": allocation, **told}))


def find(run_dir: Path, allocation: str) -> Address | Over | None:
    """What the leader of an allocation tells; None while it has told nothing.

    Opened by its own name each time, since on NFS a listing may be a minute old.
    """
    try:
        told: Any = json.loads((run_dir / "control" / _FILE).read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict) or told.get("allocation") != allocation:
        return None
    code = told.get("over")
    return Over(code) if isinstance(code, int) else Address.parse(told.get("address"))


def own_host(peer: str) -> str:
    """The address of this machine that a peer sees, as a number.

    Args:
        peer: its name or address.

    Raises:
        OSError: the name is not known, or there is no way to it.
    """
    family, kind, protocol, _, where = socket.getaddrinfo(peer, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(where)  # nothing is sent: the kernel chooses the way, and with it our address
        return str(probe.getsockname()[0])
