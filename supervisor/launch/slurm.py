"""SLURM, through `scontrol`: what is seen of our own job, and its way back into the queue.

The only door to it at run time; what it prints is read in `launch.slurm_text`. Nothing is asked in a loop:
once at the start, for the real end of the allocation, and once when the end is near, to learn why.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from supervisor.errors import JobError
from supervisor.launch.slurm_text import Site, addresses_in, answer, expand, nodes_up, parse, site_in
from supervisor.policy.handback import Answer, Said
from supervisor.policy.scheduler import JobSeen

#: slurmctld may be busy, but whoever asks has little time left [s].
ASK_S = 5.0
#: From here on step ids are SLURM's own: a batch script's, an interactive shell's (slurm.h: SLURM_MAX_NORMAL_STEP_ID).
OWN_STEPS = 0xFFFFFFF0


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One stay of a job with its nodes.

    Attributes:
        job_id: of the job; for an array's task the task's own id.
        restart: how often it was requeued before.
        task: how SLURM is asked for it. An array's last task has the array's own id: asked for by that,
            all of its tasks are shown, and requeued.
        nodes: names of the nodes that it has; none where they are not told.
        no_kill: whether the job outlives a node of its own.
    """

    job_id: str
    restart: int
    task: str = ""
    nodes: tuple[str, ...] = ()
    no_kill: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", self.task or self.job_id)

    @property
    def name(self) -> str:
        """As the verdict's file is called.

        >>> Incarnation("17", 2).name
        '17-2'
        """
        return f"{self.job_id}-{self.restart}"


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a job step this process stands: one task on each of its nodes.

    Attributes:
        node_rank: from 0; the first one leads.
        names: of the step's nodes, in the order of their ranks.
    """

    node_rank: int
    names: tuple[str, ...]


def incarnation(environment: Mapping[str, str]) -> Incarnation | None:
    """The job that this process belongs to; None outside of one.

    >>> incarnation({"SLURM_JOB_ID": "17", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "4"}).task
    '17_4'
    >>> incarnation({"SLURM_JOB_ID": "x; rm"})
    """
    job_id = environment.get("SLURM_JOB_ID", "")
    if not job_id.isascii() or not job_id.isdigit():
        return None
    try:
        nodes = expand(environment.get("SLURM_JOB_NODELIST", ""))
    except ValueError:
        nodes = ()
    # `sbatch --no-kill` leaves no trace in the job's environment; this is what makes its sruns do the same.
    no_kill = environment.get("SLURM_NO_KILL", "") not in ("", "0", "no")
    array, number = _number(environment, "SLURM_ARRAY_JOB_ID"), _number(environment, "SLURM_ARRAY_TASK_ID")
    task = job_id if array is None or number is None else f"{array}_{number}"
    return Incarnation(job_id, _number(environment, "SLURM_RESTART_COUNT") or 0, task, nodes, no_kill)


def place(environment: Mapping[str, str]) -> Place | None:
    """Where in a job step this process stands; None in a batch script, a shell, or outside of SLURM.

    Raises:
        JobError: the step has another number of tasks than nodes, or its nodes cannot be told.

    >>> step = {"SLURM_STEP_ID": "0", "SLURM_NODEID": "1", "SLURM_NNODES": "3", "SLURM_STEP_NUM_NODES": "2"}
    >>> place({**step, "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "n[2-3]"})
    Place(node_rank=1, names=('n2', 'n3'))
    """
    step, rank = _number(environment, "SLURM_STEP_ID"), _number(environment, "SLURM_NODEID")
    if step is None or step >= OWN_STEPS or rank is None:
        return None
    # A step's variables stand beside the job's, which may have more nodes.
    nodes = _number(environment, "SLURM_STEP_NUM_NODES", "SLURM_NNODES")
    tasks = _number(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    if tasks != nodes:
        raise JobError(
            f"the job step has {tasks} tasks on {nodes} nodes; one supervisor runs on each node",
            "start it with `srun --ntasks-per-node=1`; it starts the node's processes itself",
        )
    told = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    try:
        names = expand(told)
    except ValueError:
        names = ()
    if len(names) != nodes or rank >= len(names):
        raise JobError(
            f"SLURM_STEP_NODELIST={told} and SLURM_NODEID={rank} do not name one of {nodes} nodes",
            "start the supervisor with `srun` and leave SLURM's variables as they are",
        )
    return Place(rank, names)


def _number(environment: Mapping[str, str], *names: str) -> int | None:
    """The first of these variables that is set, if it is a number."""
    word = next((environment[name] for name in names if environment.get(name)), "")
    return int(word) if word.isascii() and word.isdigit() else None


def ask(task: str, timeout_s: float = ASK_S) -> JobSeen | Said:
    """What SLURM shows of a job, or why it shows nothing."""
    done = run("scontrol", "show", "job", "-o", task, timeout_s=timeout_s)
    if isinstance(done, Said):
        return done
    return parse(done) or Said(Answer.REFUSED, f"scontrol show job: {done.strip()[:200] or 'nothing'}")


def ask_site() -> Site | None:
    """What the cluster's settings mean for the way back; None if it does not tell."""
    done = run("scontrol", "show", "config")
    return None if isinstance(done, Said) else site_in(done)


def requeue(task: str, timeout_s: float = ASK_S) -> Said:
    """Put the job back into the queue. SLURM does so with a cancelled job, too: look before."""
    return _deed("requeue", task, timeout_s=timeout_s)


def release(task: str) -> Said:
    """Let a job go that is held in the queue."""
    return _deed("release", task)


def exclude(task: str, nodes: Sequence[str]) -> Said:
    """Keep a job that is in the queue from these nodes, and from no others; it holds while it is COMPLETING, too."""
    return _deed("update", f"jobid={task}", f"ExcNodeList={','.join(nodes)}")


def usable(partition: str) -> tuple[str, ...] | None:
    """The partition's nodes that can run a job now or later; None if nobody can tell."""
    done = run("sinfo", "-h", "-N", "-p", partition, "-o", "%N %t")
    return None if isinstance(done, Said) else nodes_up(done)


def addresses(names: Sequence[str]) -> dict[str, str]:
    """Where each node listens, as SLURM reaches it; a node that it says nothing of is called by its name."""
    if not names:
        return {}
    done = run("scontrol", "show", "node", "-o", ",".join(names))
    told = {} if isinstance(done, Said) else addresses_in(done)
    return {name: told.get(name, name) for name in names}


def cancel(task: str, cluster: str | None = None) -> Said:
    """Take a job out of the queue for good, as its user would."""
    said = run("scancel", *(["-M", cluster] if cluster is not None else []), task)
    return said if isinstance(said, Said) else Said(Answer.DONE)


def run(
    program: str, *arguments: str, timeout_s: float = ASK_S, environment: Mapping[str, str] | None = None
) -> str | Said:
    """Run one of SLURM's commands: what it printed, or why it failed."""
    told = {**(os.environ if environment is None else environment), "SLURM_TIME_FORMAT": "standard"}
    command = [program, *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
            errors="replace",
            env=told,
        )
    except subprocess.TimeoutExpired:
        return Said(Answer.SILENT, f"{program} {arguments[0]}: no answer within {timeout_s:.0f} s")
    except OSError as error:
        return Said(Answer.ABSENT, f"{program}: {error.strerror}")
    # Asked from a thread, the loop may have reaped it first, and its exit code is lost: then the text decides.
    if done.returncode == 0 and (done.stdout or not done.stderr):
        return done.stdout
    said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
    return Said(answer(said), f"{program} {arguments[0]}: {said}")


def _deed(*arguments: str, timeout_s: float = ASK_S) -> Said:
    done = run("scontrol", *arguments, timeout_s=timeout_s)
    return done if isinstance(done, Said) else Said(Answer.DONE)
