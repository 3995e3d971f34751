"""The daemons of one cluster: which of them run, what SLURM says of them, how they start and end.

A daemon, and every process of a job, is known by the slurm.conf in its environment: no pid that was
written down earlier is ever believed, so that no other cluster's processes can be hit.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from machine import Process, below, end, freeze, holders, processes, ran
from settings import MARK, OWN_SHM, nodes_of, spool


class Refused(Exception):  # noqa: N818 - not ours to raise an error about
    """Something cannot be done; the words name the remedy."""


def conf_of(base: Path) -> Path:
    """The cluster's slurm.conf."""
    return base / "slurm.conf"


def is_ours(base: Path) -> bool:
    """Whether `up` made this directory."""
    try:
        return conf_of(base).read_text().startswith(MARK)
    except OSError:
        return False


def nodes(base: Path) -> list[str]:
    """All of them, whether they run or not."""
    return nodes_of(conf_of(base).read_text())


def running(base: Path, name: str, node: str = "", among: list[Process] | None = None) -> list[Process]:
    """This cluster's daemons of that name; of slurmd, the one of that node."""
    everything = processes() if among is None else among
    found = [p for p in everything if p.name == name and f"SLURM_CONF={conf_of(base)}" in p.environment]
    return [p for p in found if p.words[-2:] == ("-N", node)] if node else found


def wrong(base: Path) -> list[str]:
    """What does not run, each with its remedy."""
    if not running(base, "munged"):
        return ["its munged does not run: `down` takes it away"]
    found = [] if running(base, "slurmctld") else ["slurmctld is away: `return` starts it"]
    failed = [node for node in nodes(base) if not running(base, "slurmd", node)]
    return found + [f"node {node} has failed: `back {node}` starts it" for node in failed]


def last_words(base: Path) -> list[str]:
    """Of each daemon: why it gave up, or else its last line."""
    logs = [path.read_text(errors="replace").splitlines() for path in sorted(base.glob("*.log"))]
    fatal = [line for lines in logs for line in lines if " fatal: " in line]
    return fatal or [line for lines in logs for line in lines[-1:]]


def start(*command: str) -> None:
    """Run a command that ends by itself, as a daemon's does that goes into the background.

    Raises:
        Refused: it failed.
    """
    done = ran(*command)
    if done.returncode != 0:
        raise Refused(f"{' '.join(command)}: {done.stderr.strip()}")


def start_slurmd(base: Path, node: str) -> None:
    """Start a node's slurmd, in a mount namespace with its own /dev/shm if the cluster has it so.

    Raises:
        Refused: it failed.
    """
    daemon = ("slurmd", "-N", node)
    if OWN_SHM not in conf_of(base).read_text():
        start(*daemon)
        return
    # The file system goes with the last process of the namespace, that is, with the node [mount_namespaces(7)].
    start("unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o mode=1777 shm /dev/shm && exec "$@"', "sh", *daemon)


def end_all(base: Path, name: str, signum: signal.Signals = signal.SIGKILL) -> None:
    """End this cluster's daemons of that name, with what they have started.

    Raises:
        Refused: they do not end.
    """
    if not end(lambda everything: below(running(base, name, among=everything), everything), signum):
        raise Refused(f"{name} does not end")


def end_node(base: Path, node: str) -> None:
    """Kill a node's slurmd and everything that it has started, all at once, as a machine dies.

    Were they killed one by one, a batch script could still report the end of its srun. A process of a job
    may have left its parents, but not its environment. A step's daemon has left its slurmd, and is known
    by its socket in the node's spool.

    Raises:
        Refused: something of it does not end.
    """
    mine = {f"SLURM_CONF={conf_of(base)}", f"SLURMD_NODENAME={node}"}

    def of_node(everything: list[Process]) -> Iterable[Process]:
        pids = holders(f"{spool(base, node)}/")
        roots = [p for p in everything if p.pid in pids or mine <= p.environment]
        return below([*roots, *running(base, "slurmd", node, among=everything)], everything)

    freeze(of_node)
    if not end(of_node):
        raise Refused(f"processes of node {node} do not end")


def states() -> dict[str, str]:
    """Each node's, in sinfo's short words; nothing while slurmctld does not answer."""
    return dict(line.split() for line in ran("sinfo", "-h", "-N", "-p", "low", "-o", "%N %t").stdout.splitlines())


def heard_of(node: str, since_s: float = 0.0) -> bool:
    """Whether slurmctld has heard of a node whose slurmd started then or later [s since the epoch].

    A node's state alone does not say: a node that has failed keeps its state until SlurmdTimeout.
    """
    at = re.search(r"SlurmdStartTime=(\d\S+)", said("node", node))
    if at is None or datetime.fromisoformat(at[1]).timestamp() < int(since_s):
        return False
    state = states().get(node, "unk")
    return not state.endswith("*") and state not in ("unk", "down")  # `*` is a node that does not answer


def said(kind: str, name: str) -> str:
    """What SLURM shows of a job, node or partition, on one line; nothing if it cannot be asked."""
    return ran("scontrol", "show", kind, "-o", name).stdout
