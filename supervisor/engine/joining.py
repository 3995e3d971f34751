"""`supervisor run` on a node that does not lead: from a job file to an exit code."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from supervisor import __version__
from supervisor.board.store import Board
from supervisor.engine import meeting
from supervisor.engine.leaderless import LeaderWatch, commit_alone, must_act
from supervisor.engine.meeting import own_host
from supervisor.engine.member import Member
from supervisor.engine.memory import Memory
from supervisor.engine.messages import Wanted
from supervisor.engine.node import Node
from supervisor.engine.opening import as_mapping
from supervisor.engine.place import Stand
from supervisor.engine.predecessor import end_workers
from supervisor.engine.starting import Starter
from supervisor.engine.wishes import Wishes
from supervisor.engine.world import World
from supervisor.errors import DiskError, ExitCode
from supervisor.job import Job, mathematics
from supervisor.journal import read_run
from supervisor.launch.gpus import memory_held_by
from supervisor.launch.interfaces import interface_of
from supervisor.launch.processes import adopt_orphans
from supervisor.launch.slurm import Incarnation
from supervisor.link.address import TOKEN_BYTES, Address
from supervisor.link.line import Line
from supervisor.owner import Life
from supervisor.policy.ledger import fold
from supervisor.policy.lifecycle import Gang, Wish

#: Where the token may be given to members that do not share the run directory.
TOKEN = "SUPERVISOR_LINK_TOKEN"  # noqa: S105 - the variable's name

Roots = list[Path]


def said_of(job: Job, world: World) -> dict[str, Any]:
    """What a member says of itself, and the leader compares with its own."""
    return {
        "node": world.node,
        "host": world.environment.get("SLURMD_NODENAME") or socket.gethostname(),
        "pid": os.getpid(),
        "release": __version__,
        "mathematics": mathematics(job),
        "processes": world.processes,
    }


def unlike(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    """Why two nodes cannot train together; None if they can.

    >>> ours = {"release": "1", "mathematics": "a", "processes": 2}
    >>> unlike(ours, {**ours, "mathematics": "b"}), unlike(ours, dict(ours))
    ('its job file is another one', None)
    """
    if theirs.get("release") != ours["release"]:
        return f"it runs release {theirs.get('release')}, the leader {ours['release']}"
    if theirs.get("mathematics") != ours["mathematics"]:
        return "its job file is another one"
    if theirs.get("processes") != ours["processes"]:
        return f"it has {theirs.get('processes')} processes, the leader {ours['processes']}; every node has as many"
    return None


def join(
    job: Job,
    world: World,
    stand: Stand,
    *,
    at: Incarnation | None,
    roots: Roots,
    room: Callable[[Path | None], int],
) -> ExitCode:
    """Take part in a run that another node leads.

    Args:
        job: checked.
        world: this machine.
        stand: its place.
        at: the scheduler's job, None outside of one.
        roots: where a board may live.
        room: what one of them can still give [bytes].

    Returns:
        What to exit with.

    Raises:
        MachineError: the leader does not want this node.
    """
    adopt_orphans()
    line = Line(lambda: _where(job.run_dir, stand), said_of(job, world))
    wishes = Wishes(world.inbox, job.run_dir, job.recovery.grace.s, world.ignore_hangup, lambda *_a, **_k: None)

    def heard(now_s: float) -> tuple[Wish, str]:
        wishes.look(now_s)
        return wishes.wish, wishes.by

    def opened(wanted: Wanted) -> Node:
        end_workers(wanted.run_id)  # what an earlier supervisor of this node left
        board = Board(wanted.run_id, world.processes, roots, room, node=world.node, anonymous=at is not None)
        memory = Memory(board, admit=lambda _size: None)
        held = memory_held_by if world.gpus else lambda _pids: False
        starter = Starter(job, _connected(job, world, stand), wanted.run_id, board.directory, board.control, held)
        return Node(wanted.run_id, memory, starter)

    member = Member(line, world.inbox.fd, heard, opened, world.tell, stand.node)
    try:
        return _stay(job, world, stand, member, at)
    finally:
        line.flush(1.0)
        line.close()
        if member.node is not None:
            member.node.end()
            member.node.memory.close(remove=not member.keeps)


def _stay(job: Job, world: World, stand: Stand, member: Member, at: Incarnation | None) -> ExitCode:
    watch: LeaderWatch | None = None
    while True:
        code = member.step()
        if code is not None:
            return code
        now_s = time.monotonic()
        if member.line.joined:
            watch = None
        else:
            over = meeting.find(job.run_dir, stand.allocation) if stand.allocation else None
            if isinstance(over, meeting.Over) and (member.node is None or not member.node.present):
                return over.code
            if member.wanted is None and (member.overdue or member.wish is not Wish.GO_ON):
                return ExitCode.STOPPED if member.wish in (Wish.STOP, Wish.KILL) else ExitCode.HANDED_BACK
            if member.wanted is not None and member.node is not None:
                watch = watch or LeaderWatch(job.run_dir, member.wanted.epoch, member.wanted.token)
                leader = watch.look(now_s)
                silent_s = member.line.silent_s(now_s)
                if must_act(silent_s, leader, member.wish) and _ended(member.node):
                    return commit_alone(
                        job.run_dir,
                        member.wanted,
                        member.node,
                        stand.node,
                        at,
                        received=_received(member, leader, silent_s),
                        tell=world.tell,
                        keep_last=job.checkpoint.keep_last,
                    )
        member.wait()


def _is_on_disk(run_dir: Path, node: Node) -> bool:
    """Whether the newest state of this node's board is committed; else the next start may want the board."""
    whole = next(iter(node.memory.wholes()), None)
    try:
        committed = fold(as_mapping(record) for record in read_run(run_dir)).committed
    except DiskError:
        return whole is None
    return whole is None or any((lineage, step) >= whole.key for lineage, step, _ in committed)


def _connected(job: Job, world: World, stand: Stand) -> World:
    """This machine with the network on which it reaches its leader."""
    leader = _where(job.run_dir, stand)
    try:
        return replace(world, interface=interface_of(own_host(leader.host))) if leader is not None else world
    except OSError:
        return world


def _ended(node: Node) -> bool:
    """Whether none of its workers lives; they are ended if one does."""
    if node.present and node.gang is not Gang.GONE:
        node.end()
        node.look(time.monotonic())
    return True


def _received(member: Member, leader: Life, silent_s: float) -> str:
    if member.wish is not Wish.GO_ON:
        return f"received {member.by}, and nothing from the leader for {silent_s:.0f} s"
    return "the leader is dead" if leader is Life.DEAD else f"nothing from the leader for {silent_s:.0f} s"


def _where(run_dir: Path, stand: Stand) -> Address | None:
    """Where the leader listens: as the command line says, and with the token that it left in the run directory."""
    found = meeting.find(run_dir, stand.allocation)
    token = os.environ.get(TOKEN)
    if stand.host is None:
        return found if isinstance(found, Address) else None
    if token is not None and len(token) == 2 * TOKEN_BYTES:
        return Address(stand.host, stand.port, bytes.fromhex(token))
    return replace(found, host=stand.host, port=stand.port) if isinstance(found, Address) else None
