"""Leading a run: from the lease to the exit code, on the only node or the first of several."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from supervisor.board.store import Board, left_behind, remove_boards
from supervisor.engine.disk import within
from supervisor.engine.ending import unsaved
from supervisor.engine.loop import Loop
from supervisor.engine.machine import board_roots, room
from supervisor.engine.members.crew import Crew
from supervisor.engine.members.joining import said_of, unlike
from supervisor.engine.members.meeting import announce
from supervisor.engine.members.messages import Wanted
from supervisor.engine.members.place import Stand
from supervisor.engine.opening import (
    Terms,
    admit,
    as_mapping,
    check_directory,
    check_terms,
    history,
    is_done,
    make_directory,
    max_steps,
)
from supervisor.engine.ranks.predecessor import end_supervisor, end_workers
from supervisor.engine.state.beginning import begin_run
from supervisor.engine.state.memory import Memory
from supervisor.engine.state.mirroring import Mirroring
from supervisor.engine.world import World
from supervisor.errors import DiskError, ExitCode, JobError, MachineError, SupervisorError
from supervisor.job import Job, check_program
from supervisor.journal import Journal, read_run
from supervisor.launch.processes import adopt_orphans
from supervisor.launch.resubmit import AFTER
from supervisor.launch.slurm import incarnation
from supervisor.lease import Lease, acquire
from supervisor.link.address import Address, new_token
from supervisor.link.hub import Hub
from supervisor.mirror.messages import Settings, address
from supervisor.owner import Owner, this_process
from supervisor.policy.ledger import Ledger
from supervisor.policy.scheduler import stopped_for
from supervisor.watch.ready import ready
from supervisor.watch.requests import forget_stop
from supervisor.watch.signals import Inbox

if TYPE_CHECKING:
    from supervisor.engine.telling import Telling


#: How long giving the run back may take on a disk that hangs [s].
RELEASE_S = 2.0


def lead(job: Job, terms: Terms, world: World, stand: Stand) -> ExitCode:
    """Lead a run: the only node, or the first of several."""
    check_directory(job.run_dir)
    before = history(job.run_dir)
    check_terms(job, before, terms)
    at = incarnation(os.environ)
    if at is not None and stopped_for(_told(job.run_dir), at.job_id, at.restart):
        world.tell("already_stopped", {"run_dir": str(job.run_dir), "job": at.job_id})
        return ExitCode.STOPPED
    done = is_done(job, before, terms)
    if done and not left_behind(str(before.run_id), board_roots()):
        world.tell("already_finished", {"run_dir": str(job.run_dir)})
        return ExitCode.FINISHED
    if not done and (before.run_id is None or terms.fresh or terms.accept_changes):
        check_program(job, Path.cwd())
    make_directory(job.run_dir)
    try:
        lease = acquire(
            job.run_dir,
            wait=partial(_wait, world.inbox),
            floor_epoch=before.epoch,
            owner=_owner(os.environ),
            over=_over(os.environ),
        )
    except _Signalled as signalled:
        return signalled.code
    mirror = mirror_of(job, terms, before, lease)
    try:
        return _owned(job, terms, world, stand, lease, mirror=mirror)
    except _Signalled as signalled:
        return signalled.code
    finally:
        mirror.close(lambda: True)  # also after a refusal the lease is given back
        try:
            within(RELEASE_S, lease.release)
        except DiskError:
            pass  # the next owner finds this process dead, which is as good


def _told(run_dir: Path) -> list[dict[str, Any]]:
    return [as_mapping(record) for record in read_run(run_dir)]


def _owned(job: Job, terms: Terms, world: World, stand: Stand, lease: Lease, *, mirror: Mirroring) -> ExitCode:
    """The same, once the run is ours."""
    end_supervisor(lease.previous, lease.owner)
    forget_stop(job.run_dir)  # from here on a stop is meant for us
    wait = partial(_wait, world.inbox)
    mirror.open(wait)  # to a machine that has none it brings the journal
    journal = Journal.open(job.run_dir, time.time, socket.gethostname())
    journal.fold_in(job.run_dir)
    mirror.close_attempt(journal, history(job.run_dir).open_attempt)
    before = history(job.run_dir)  # the owner before us may have written since
    check_terms(job, before, terms)
    done = is_done(job, before, terms)
    if before.run_id is not None and (done or terms.fresh):
        end_workers(before.run_id)
        remove_boards(before.run_id, board_roots())
    if done:
        world.tell("already_finished", {"run_dir": str(job.run_dir)})
        return ExitCode.FINISHED
    mirror.without(safe=terms.fresh or _is_here(before))
    _check_processes(before, terms, world)
    if before.finished and not terms.fresh:
        world.tell("continued", {"step": before.trained_step, "max_steps": max_steps(job)})
    opened = begin_run(
        job, journal, before, terms, world_size=world.world_size, lease=lease, wait=wait, tell=world.tell
    )
    if opened.changes:
        world.tell("accepted", {"changes": "; ".join(opened.changes)})
    adopt_orphans()
    crew = _crew(job, world, stand, lease, opened.run_id) if world.nodes > 1 else None
    board = Board(opened.run_id, world.processes, board_roots(), room, anonymous=lease.owner.job is not None)
    memory = Memory(board, admit=lambda _size: None)
    loop = Loop(
        job=job,
        world=world,
        run_id=opened.run_id,
        ledger=opened.ledger,
        journal=journal,
        lease=lease,
        memory=memory,
        accept_changes=terms.accept_changes,
        crew=crew,
        mirror=mirror,
    )
    memory.admit = lambda size: admit(job.run_dir, size, first=not loop.ledger.committed)
    keep, telling = True, _telling(job, world)
    try:
        code = loop.run()
        mirror.write = journal.note  # the loop writes no more
        mirror.close(lambda: bool(ready([world.inbox.fd], 0.0)))
        keep = loop.board_is_needed
        _say_unsaved(loop, keep=keep)
    except SupervisorError:
        keep = loop.board_is_needed
        raise
    finally:
        memory.close(remove=not keep)
        if telling is not None:
            telling.close()
    return code


def _say_unsaved(loop: Loop, *, keep: bool) -> None:
    """Where the disk refused to the end, people are told what is on none."""
    whole = next(iter(loop.memory.wholes()), None) if keep else None
    board = None if loop.memory.board.anonymous else loop.memory.board.directory
    newest = max((step for _, step, _ in loop.ledger.committed), default=-1)
    words = unsaved(whole.step if whole is not None else None, board, newest, loop.journal.unwritten)
    if words is not None:
        loop.world.tell("unsaved", {"detail": words})


def mirror_of(job: Job, terms: Terms, before: Ledger, lease: Lease) -> Mirroring:
    """What keeps a copy of the run, if the job wants one."""
    if job.checkpoint.mirror is None:
        return Mirroring()
    return Mirroring(
        Settings(
            url=address(job.checkpoint.mirror, job.name),
            run_dir=str(job.run_dir),
            owner=lease.owner,
            over=tuple(_over(os.environ)),
            epoch=lease.epoch,
            keep_last=job.checkpoint.keep_last,
            run_id=None if terms.fresh else before.run_id,
            fresh=terms.fresh,
        ),
        environment=job.env,
    )


def _is_here(before: Ledger) -> bool:
    """Whether this machine holds what the run goes on from; then it does not begin at step 0 for want of a mirror."""
    return bool(before.committed) or (before.run_id is not None and bool(left_behind(before.run_id, board_roots())))


def _telling(job: Job, world: World) -> Telling | None:
    """Have people told, if the job wants that; nothing of it is even imported otherwise."""
    if not job.notify:
        return None
    from supervisor.engine.telling import Telling

    try:
        return Telling(job, world.name)
    except (OSError, RuntimeError):  # no descriptor or no thread is left; training may do without either
        return None


def _owner(environment: Mapping[str, str]) -> Owner:
    """This process, and the job that it runs in."""
    at = incarnation(environment)
    return this_process() if at is None else this_process(job=at.job_id, restart=at.restart)


def _over(environment: Mapping[str, str]) -> frozenset[str]:
    """Jobs that this one waited for until they were over."""
    return frozenset(word for word in environment.get(AFTER, "").split(",") if word.isdigit())


def _crew(job: Job, world: World, stand: Stand, lease: Lease, run_id: str) -> Crew:
    """Listen for the other nodes, and tell them where.

    Raises:
        MachineError: the address cannot be listened on.
        DiskError: the run directory refused.
    """
    secret = stand.token or new_token()
    try:
        hub = Hub(world.host, stand.port, secret, {"run_id": run_id})
    except OSError as error:
        raise MachineError(
            f"{world.host}:{stand.port} cannot be listened on: {error.strerror}", "give another port with --leader"
        ) from error
    try:
        announce(job.run_dir, stand.allocation, Address(*hub.address, secret))
    except OSError as error:
        raise DiskError(f"{job.run_dir}/control: {error.strerror}", "the run directory must be writable") from error
    epoch, owner = lease.witness()
    ours = said_of(job, world)
    return Crew(hub, world.nodes, Wanted(run_id=run_id, epoch=epoch, token=owner), lambda theirs: unlike(ours, theirs))


def _check_processes(before: Ledger, terms: Terms, world: World) -> None:
    """Refuse to go on with another number of processes, before anything counts fewer ranks as all of them.

    From what is on disk a run goes on with any number if its batch divides, which is found out later. What
    is in memory bears the old numbers; of nodes of the same kind the loop puts it together.

    Raises:
        JobError: the run has a state in memory only, and another number of processes made it.
    """
    size, processes = before.world_size, world.world_size
    if terms.fresh or size is None or size == processes:
        return
    if before.processes == world.processes and (world.nodes > 1 or (size % world.processes == 0 and size > processes)):
        return
    in_memory = bool(left_behind(str(before.run_id), board_roots()))
    if in_memory or (before.best_step > 0 and not before.committed):
        raise JobError(
            f"the run was made with {size} processes, {processes} are to be launched, and its newest state is in "
            "their memory",
            f"set `launch.processes_per_node: {size}` and start it once more: stopped, it leaves all on disk",
        )


class _Signalled(Exception):  # noqa: N818 - it ends a wait and is no error
    """A signal came while nothing had been started yet."""

    def __init__(self, code: ExitCode) -> None:
        self.code = code


def _wait(inbox: Inbox, seconds: float) -> None:
    """Let time pass, but not deaf to signals."""
    if select.select([inbox.fd], [], [], seconds)[0]:
        raise _Signalled(leaving_code(inbox.read()))


def leaving_code(caught: list[signal.Signals]) -> ExitCode:
    """What to exit with when signals came before there was anything to drain."""
    return ExitCode.STOPPED if signal.SIGINT in caught else ExitCode.HANDED_BACK
