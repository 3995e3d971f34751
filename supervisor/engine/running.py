"""`supervisor run`: from a job file to an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from supervisor.board.sweep import sweep_boards
from supervisor.engine.disk import within
from supervisor.engine.leading import RELEASE_S, lead
from supervisor.engine.machine import board_roots, count_processes, room, spare_bytes
from supervisor.engine.members.joining import join
from supervisor.engine.members.meeting import Over, announce
from supervisor.engine.members.place import Options, Stand, find_stand
from supervisor.engine.opening import Terms
from supervisor.engine.world import World
from supervisor.errors import ExitCode, SupervisorError
from supervisor.job import Job
from supervisor.launch.interfaces import interface_of
from supervisor.launch.slurm import incarnation
from supervisor.watch.clouds.finding import suspected
from supervisor.watch.clouds.watch import CloudWatch
from supervisor.watch.gpus import visible_gpus
from supervisor.watch.signals import Inbox, listen

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

Tell = Callable[[str, Mapping[str, Any]], None]


def run(job: Job, terms: Terms, inbox: Inbox, tell: Tell, options: Options | None = None) -> ExitCode:
    """Run a job here to its end.

    Args:
        job: checked.
        terms: how an earlier run is to be gone on with.
        inbox: signals, listened for since the process began.
        tell: shown every change, for people.
        options: what the command line says of other nodes.

    Returns:
        What to exit with.

    Raises:
        SupervisorError: something outside refused.
    """
    stand = find_stand(job, options or Options(), os.environ)
    found = suspected(os.environ)
    clouds = CloudWatch(found.clouds, found.problems)
    clouds.start()
    try:
        return _take_part(job, terms, _world(job, inbox, tell, stand, clouds), stand)
    finally:
        clouds.close()


def _world(job: Job, inbox: Inbox, tell: Tell, stand: Stand, clouds: CloudWatch) -> World:
    """What this machine has.

    Raises:
        MachineError: more processes are asked for than there are GPUs.
    """
    gpus = visible_gpus()
    return World(
        processes=count_processes(job, gpus),
        gpus=gpus,
        environment=os.environ,
        inbox=inbox,
        tell=tell,
        clouds=clouds,
        spare_bytes=spare_bytes,
        ignore_hangup=sys.stdin is None or not sys.stdin.isatty(),
        node=stand.node,
        nodes=stand.nodes,
        host=stand.host or "127.0.0.1",
        interface=interface_of(stand.host) if stand.host is not None else None,
    )


def _take_part(job: Job, terms: Terms, world: World, stand: Stand) -> ExitCode:
    """The same, on this machine and in this place."""
    sweep_boards(board_roots())
    if stand.node > 0:
        return join(job, world, stand, at=incarnation(os.environ), roots=board_roots(), room=room)
    if stand.nodes == 1:
        return lead(job, terms, world, stand)
    code = ExitCode.BUG
    try:
        code = lead(job, terms, world, stand)
    except SupervisorError as error:
        code = error.exit_code
        raise
    finally:
        _say_over(job, stand, code)
    return code


def _say_over(job: Job, stand: Stand, code: ExitCode) -> None:
    """Members that have not joined, or come back later, learn that there is nobody to come to.

    Outside of a scheduler nobody asks, and the file may be that of another leader, which has the run.
    """
    if not stand.allocation:
        return
    try:
        within(RELEASE_S, partial(announce, job.run_dir, stand.allocation, Over(code)))
    except OSError:
        return  # then they wait for a while


def listen_early() -> Inbox:
    """Catch what a scheduler may send, before anything slow is imported."""
    return listen(SIGNALS)
