"""This machine's place among the nodes of a run: told by SLURM, by the command line, or alone."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from supervisor.engine.members.meeting import own_host
from supervisor.errors import JobError, MachineError
from supervisor.job import Job
from supervisor.launch.slurm import addresses, incarnation, place
from supervisor.link.address import TOKEN_BYTES

#: Where the token may be given to members that do not share the run directory.
TOKEN = "SUPERVISOR_LINK_TOKEN"  # noqa: S105 - the variable's name


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says of nodes; None where it says nothing.

    Attributes:
        node_rank: number of this node, from 0.
        nodes: how many take part.
        leader: ``HOST:PORT`` of the first one.
    """

    node_rank: int | None = None
    nodes: int | None = None
    leader: str | None = None


@dataclass(frozen=True, slots=True)
class Stand:
    """Where this machine stands.

    Attributes:
        node: its number, from 0; the first one leads.
        nodes: how many take part.
        allocation: what tells their meeting from an earlier one's.
        host: address of the leader, as a number; None where members learn it in the run directory.
        port: that it listens on; 0 for any.
        token: that leader and members prove; None where it lies in the run directory.
    """

    node: int = 0
    nodes: int = 1
    allocation: str = ""
    host: str | None = None
    port: int = 0
    token: bytes | None = field(default=None, repr=False)


def find_stand(job: Job, options: Options, environment: Mapping[str, str]) -> Stand:
    """Find out where this machine stands.

    Raises:
        JobError: what the job, the command line and the scheduler say does not go together.
        MachineError: the leader's address cannot be found.
    """
    if options != Options():
        return replace(_told(job, options), token=_token(environment))
    at = place(environment)
    if at is None or (len(at.names) == 1 and job.launch.nodes == 1):
        if job.launch.nodes > 1:
            raise JobError(
                f"launch.nodes is {job.launch.nodes}, and this process stands alone",
                "start one supervisor on each node: with `srun --ntasks-per-node=1`, or by hand with --node-rank, "
                "--nodes and --leader",
            )
        return Stand()
    if len(at.names) != job.launch.nodes:
        raise JobError(
            f"launch.nodes is {job.launch.nodes}, the job step has {len(at.names)} nodes",
            f"set `launch.nodes: {len(at.names)}`, or start it with `srun --nodes={job.launch.nodes}`",
        )
    stay = incarnation(environment)
    allocation = f"{stay.name if stay is not None else ''}.{environment.get('SLURM_STEP_ID', '')}"
    host = _leader_host(at.names) if at.node_rank == 0 else None
    return Stand(at.node_rank, len(at.names), allocation, host, token=_token(environment))


def _token(environment: Mapping[str, str]) -> bytes | None:
    word = environment.get(TOKEN, "")
    if not word:
        return None
    if re.fullmatch(f"[0-9a-f]{{{2 * TOKEN_BYTES}}}", word) is None:
        raise JobError(
            f"{TOKEN} is set, but not to {2 * TOKEN_BYTES} hexadecimal digits",
            f"make one with `openssl rand -hex {TOKEN_BYTES}`, the same on every node",
        )
    return bytes.fromhex(word)


def _told(job: Job, options: Options) -> Stand:
    rank, nodes = options.node_rank, options.nodes
    if rank is None or nodes is None or not 0 <= rank < nodes:
        raise JobError(
            f"--node-rank {rank} and --nodes {nodes} do not name one of several nodes",
            "give both, such as --node-rank 0 --nodes 2",
        )
    if job.launch.nodes not in (1, nodes):
        raise JobError(f"launch.nodes is {job.launch.nodes}, --nodes is {nodes}", "let both say the same")
    if nodes == 1:
        return Stand()
    host, colon, port = (options.leader or "").rpartition(":")
    if not colon or not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 1 << 16:
        raise JobError(
            f"--leader {options.leader or ''} names no address", "give the first node's, such as --leader node1:29400"
        )
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0][4]
    except (OSError, UnicodeError) as error:  # UnicodeError: a part of it is empty or too long
        why = error.strerror if isinstance(error, OSError) else "it is no host's name"
        raise MachineError(f"--leader {options.leader}: {why}", "give a name that resolves") from error
    return Stand(rank, nodes, "", str(found[0]), int(port))


def _leader_host(names: tuple[str, ...]) -> str:
    """The address that the second node sees of this one.

    Raises:
        MachineError: there is no way to it.
    """
    if len(names) == 1:
        return "127.0.0.1"
    peer = addresses(names)[names[1]]
    try:
        return own_host(peer)
    except OSError as error:
        raise MachineError(
            f"there is no way from this node to {names[1]} ({peer}): {error.strerror or error}",
            "see `scontrol show node`: its NodeAddr has to be known here",
        ) from error
