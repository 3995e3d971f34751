"""`supervisor run` on a node that does not lead: from a job file to an exit code."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from supervisor import __version__
from supervisor.board.store import Board
from supervisor.engine.members.leaderless import LeaderWatch, commit_alone, must_act
from supervisor.engine.members.meeting import own_host
from supervisor.engine.members.member import Member
from supervisor.engine.members.messages import Wanted, Warned
from supervisor.engine.members.place import Stand
from supervisor.engine.members.whereabouts import Whereabouts
from supervisor.engine.ranks.gpus import Gpus
from supervisor.engine.ranks.node import Node
from supervisor.engine.ranks.predecessor import end_workers
from supervisor.engine.ranks.starting import Starter
from supervisor.engine.state.memory import Memory
from supervisor.engine.state.retention import keep_of
from supervisor.engine.wishes import Wishes
from supervisor.engine.world import World
from supervisor.errors import ExitCode
from supervisor.job import Job, mathematics
from supervisor.launch.interfaces import interface_of
from supervisor.launch.processes import adopt_orphans
from supervisor.launch.slurm import Incarnation
from supervisor.link.address import Address
from supervisor.link.line import Line
from supervisor.owner import Life
from supervisor.policy.lifecycle import Gang, Wish
from supervisor.policy.notices import Heard, most_pressing

Roots = list[Path]


def said_of(job: Job, world: World) -> dict[str, Any]:
    """What a member says of itself, and the leader compares with its own."""
    return {
        "node": world.node,
        "host": world.name,
        "pid": os.getpid(),
        "release": __version__,
        "mathematics": mathematics(job),
        "processes": world.processes,
        "on_nan": job.recovery.on_nan,
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
    if theirs.get("on_nan") != ours.get("on_nan"):  # else one waits for its end, and nobody ends it
        return f"its job file says `on_nan: {theirs.get('on_nan')}`, the leader's {ours.get('on_nan')}"
    if theirs.get("processes") != ours["processes"]:
        return f"it has {theirs.get('processes')} processes, the leader {ours['processes']}; every node has as many"
    return None


def warning(standing: Sequence[Heard], now_s: float) -> Warned | None:
    """What a member tells its leader of a cloud's notices.

    Args:
        standing: all of them.
        now_s: monotonic time [s].
    """
    heard = most_pressing(standing)
    if heard is None:
        return None
    told = heard.notice
    return Warned(
        cloud=told.cloud,
        kind=told.kind,
        detail=told.detail,
        key=told.key,
        urgent=told.urgent,
        left_s=None if heard.deadline_s is None else heard.deadline_s - now_s,
    )


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
    whereabouts = Whereabouts(job.run_dir, stand)
    line = Line(whereabouts.leader, said_of(job, world))
    gpus = Gpus.of(world.gpus)
    wishes = Wishes(
        world.inbox,
        job.run_dir,
        job.recovery.grace.s,
        world.ignore_hangup,
        lambda *_a, **_k: None,  # the journal is the leader's
        clouds=world.clouds,
    )

    def heard(now_s: float) -> tuple[Wish, str]:
        wishes.look(now_s)
        return wishes.wish, wishes.by

    def opened(wanted: Wanted) -> Node:
        end_workers(wanted.run_id)  # what an earlier supervisor of this node left
        board = Board(wanted.run_id, world.processes, roots, room, node=world.node, anonymous=at is not None)
        memory = Memory(board, admit=lambda _size: None)
        if job.recovery.on_nan != "ignore":
            memory.counts = lambda whole: not whole.diverged
        starter = Starter(
            job, _connected(world, whereabouts.leader()), wanted.run_id, board.directory, board.control, gpus.hold
        )
        return Node(wanted.run_id, memory, starter, gpus=gpus)

    member = Member(
        line,
        world.inbox.fd,
        heard,
        opened,
        world.tell,
        stand.node,
        warned=lambda now_s: warning(wishes.standing, now_s),
    )
    keep = True  # whoever ends unforeseen leaves its board, as one that was killed does
    try:
        code, keep = _stay(job, world, whereabouts, member, at)
    finally:
        line.flush(1.0)
        line.close()
        if member.node is not None:
            member.node.leave(keep=keep)
        gpus.close()
    return code


def _stay(
    job: Job, world: World, whereabouts: Whereabouts, member: Member, at: Incarnation | None
) -> tuple[ExitCode, bool]:
    """What to exit with, and whether the board is to stay."""
    watch: LeaderWatch | None = None
    while True:
        code = member.step()
        if code is not None:
            return code, member.keeps
        now_s = time.monotonic()
        if member.line.joined:
            watch = None
        else:
            over = whereabouts.over()
            if over is not None and (member.node is None or not member.node.present):
                return over.code, over.code is not ExitCode.FINISHED
            if member.wanted is None and (member.overdue or member.wish is not Wish.GO_ON):
                stopped = member.wish in (Wish.STOP, Wish.KILL)
                return ExitCode.STOPPED if stopped else ExitCode.HANDED_BACK, True
            if member.wanted is not None and member.node is not None:
                watch = watch or LeaderWatch(job.run_dir, member.wanted.epoch, member.wanted.token)
                leader = whereabouts.ask(partial(watch.look, now_s), Life.UNKNOWN)
                silent_s = member.line.silent_s(now_s)
                if must_act(silent_s, leader, member.wish) and _ended(member.node):
                    alone = commit_alone(
                        job.run_dir,
                        member.wanted,
                        member.node,
                        world.node,
                        at,
                        received=_received(member, leader, silent_s),
                        stopped=member.wish in (Wish.STOP, Wish.KILL),
                        tell=world.tell,
                        keep=keep_of(job),
                    )
                    return alone.code, not alone.secured
        member.wait()


def _connected(world: World, leader: Address | None) -> World:
    """This machine with the network on which it reaches its leader."""
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
