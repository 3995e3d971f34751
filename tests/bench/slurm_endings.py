"""Every way in which SLURM takes a job away, on a real cluster, on one node and on two, and what becomes of the run.

Measured: a run of two ranks (that of lives.py, shortened) is submitted with slurm/run.sbatch to a cluster of
slurm/cluster, and ended in the middle of training. Told are the time from the notice to the last commit
(after the loss of a node: from the loss), the settled steps that were done again, whether the result is that
of an undisturbed run, bit for bit, how the job stood in the end, and, where a node or a supervisor is lost, the
time until no worker of the other node lived. Whoever was cancelled or stopped has to stay away. SLURM's
two minutes of waiting are skipped from outside.

Not shown: a machine that falls silent (here its processes die, and its kernel says so), per-rank random
states (all ranks have the same seed, so what stands in for a lost node's is the same).

Run it as root (exit 1 if anything was lost, differs, or came back that should not):
    python -m tests.bench.slurm_endings --nodes 2 --repeats 5
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench.lives import ARGS, completed, differences, fresh_run, resumed, undisturbed
from tests.harness import command, redone, until
from tests.slurm.one_machine import Cluster
from tests.slurm.submitted import Submitted

#: One-minute limits need slow steps, see `SLOW_S`.
SHORT = {**ARGS, "max_steps": 32, "workers": 1, "sleep": 0.1}
#: The end comes when so many steps are settled.
STEP = 12
#: A step this slow, and a minute is too short for the run, but not for half of it [s].
SLOW_S = 1.3
#: So long slurmctld is away [s].
AWAY_S = 40.0
#: Enough for a rank and its loader workers, and soon used up [MB].
MEMORY_MB = 2500


@dataclass(frozen=True)
class Kind:
    """One way to end a job.

    Attributes:
        does: it; gives the time until the other node's workers were gone, where there is one [s].
        back: whether the job is to be requeued.
        state: of the job in the end.
        mode: of preemption.
        grace_s: of the partition.
        limited: whether the job has a minute only.
        options: more for sbatch.
    """

    does: Callable[[Submitted], float | None]
    back: bool = True
    state: str = "COMPLETED"
    mode: str = "REQUEUE"
    grace_s: int = 15
    limited: bool = False
    options: tuple[str, ...] = ()


def preempted(job: Submitted) -> None:
    job.preempt()


def requeued(job: Submitted) -> None:
    job.cluster.slurm("scontrol", "requeue", job.job)


def cancelled(job: Submitted) -> None:
    job.cluster.slurm("scancel", job.job)


def stopped(job: Submitted) -> None:
    done = command("stop", str(job.run.run_dir))
    assert done.returncode == 0, done.stderr


def stopped_and_requeued(job: Submitted) -> None:
    stopped(job)
    job.over()
    started_once_more(job)


def finished(job: Submitted) -> None:
    job.over()
    started_once_more(job)


def started_once_more(job: Submitted) -> None:
    requeued(job)
    job.again(1)


def member_lost(job: Submitted) -> float:
    first, second = job.nodes()
    return job.lose(second, [first])


def leader_lost(job: Submitted) -> float | None:
    first, *others = job.nodes()
    took_s = job.lose(first, others)
    return took_s if others else None


def member_killed(job: Submitted) -> float:
    """Only its supervisor: the node lives on, and nobody comes back."""
    first, second = job.nodes()
    began_s = time.monotonic()
    os.kill(job.supervisor(second), signal.SIGKILL)
    job.until(lambda: not job.processes(first) and not job.processes(second), "end of all workers", 60.0)
    return time.monotonic() - began_s


def unheard(job: Submitted) -> None:
    """Preempted while no rank settles a step, so that slurmctld is gone when the job is to be requeued."""
    for step in range(STEP, STEP + 20):
        job.run.place(f"step-{step}")
    preempted(job)
    job.until(lambda: job.told("notice"), "notice", 60.0)
    away(job)
    shutil.rmtree(job.run.out / "places")


def unheard_at_limit(job: Submitted) -> None:
    """Gone before the time limit's drain, and back after the limit."""
    job.at_step(2)
    away(job)


def away(job: Submitted) -> None:
    job.cluster.away()
    try:
        assert job.verdict().get("requeue") != "done", "slurmctld was too late away"
        time.sleep(AWAY_S)  # that is what is measured
    finally:
        job.cluster.come_back()


def too_much(job: Submitted) -> None:
    assert job.cluster.limits_memory(), "jobs are not held to their memory here"
    job.run.place(f"step-{STEP + 4}", "eat")


def nothing(job: Submitted) -> None:
    """It comes by itself."""


KINDS = {
    "preemption, REQUEUE, 15 s": Kind(preempted),
    "preemption, REQUEUE, 0 s": Kind(preempted, grace_s=0),
    "preemption, CANCEL, 15 s": Kind(preempted, mode="CANCEL"),
    "preemption, CANCEL, 0 s": Kind(preempted, mode="CANCEL", grace_s=0),
    "time limit": Kind(nothing, limited=True),
    "scontrol requeue": Kind(requeued),
    "scancel": Kind(cancelled, back=False, state="CANCELLED"),
    "supervisor stop": Kind(stopped, back=False, state="FAILED"),
    "stop, then scontrol requeue": Kind(stopped_and_requeued, back=False, state="FAILED"),
    "finished, then scontrol requeue": Kind(finished, back=False),
    "member's node lost": Kind(member_lost),
    "leader's node lost": Kind(leader_lost),
    "member's supervisor killed": Kind(member_killed),
    "slurmctld away, preemption": Kind(unheard, mode="CANCEL"),
    "slurmctld away, time limit": Kind(unheard_at_limit, limited=True),
    "out of memory": Kind(too_much, back=False, options=(f"--mem={MEMORY_MB}",)),
}
#: Those that a run on one node cannot have.
FOR_TWO = ("member's node lost", "member's supervisor killed")
#: Those that strike by themselves.
BY_ITSELF = (nothing, unheard_at_limit, finished)


@dataclass
class Outcome:
    """What one run gave; `wrong` is what is not as it should be."""

    commit_s: float | None
    gone_s: float | None
    again: int | None
    wrong: list[str]
    words: str


def main() -> None:
    parser = argparse.ArgumentParser(description="every way a SLURM job ends")
    parser.add_argument("--nodes", type=int, choices=[1, 2], default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    given = parser.parse_args()
    kinds = [kind for kind in given.kinds if given.nodes == 2 or kind not in FOR_TWO]
    base = Path(tempfile.mkdtemp(prefix="bench-slurm-"))
    expected = undisturbed(base / "undisturbed", SHORT)
    cluster = Cluster(base / "cluster")
    outcomes: dict[str, list[Outcome]] = {kind: [] for kind in kinds}
    try:
        cluster.up("--nodes", str(given.nodes + 1), "--slurmd-timeout", "5")
        for number in range(given.repeats):
            for at, kind in enumerate(kinds):
                outcome = once(cluster, base / f"run-{at}-{number}", KINDS[kind], given.nodes, expected)
                outcomes[kind].append(outcome)
                print(f"{kind:32} {outcome.words}{''.join(f'; WRONG: {one}' for one in outcome.wrong)}", flush=True)
    finally:
        cluster.down()
        show(outcomes, given.nodes)  # also of a bench that is cut short
    wrong = any(outcome.wrong for found in outcomes.values() for outcome in found)
    if not wrong:
        shutil.rmtree(base)
    sys.exit(wrong)


def once(
    cluster: Cluster, home: Path, kind: Kind, nodes: int, expected: tuple[dict[str, str], dict[int, str]]
) -> Outcome:
    """One run that is ended so."""
    cluster.empty().mode(kind.mode, kind.grace_s)
    run = fresh_run(home, args={**SHORT, "sleep": SLOW_S} if kind.limited else SHORT, nodes=nodes)
    options = (f"--nodes={nodes}", f"--time={1 if kind.limited else 60}", *kind.options)
    job = Submitted.submit(cluster, run, *options)
    gone_s = struck_s = None
    wrong = []
    try:
        if kind.does not in BY_ITSELF:
            job.at_step(STEP)
        struck_s = time.time()
        gone_s = kind.does(job)
        if kind.back:
            resume(job)
        state, restarts = job.over(), int(job.shown("Restarts"))
        wrong = [
            *unlike(job, kind, state, restarts),
            *(differences(run, expected) if kind.state == "COMPLETED" else []),
        ]
        words = f"{state} {job.shown('ExitCode')}, {restarts} requeues"
    except AssertionError as error:
        words, wrong = "", [str(error)]
    finally:
        mend(cluster)
    commit_s = committed_s(job, struck_s if gone_s is not None else None)
    lost = again(job)
    if lost and (nodes > 1 or kind.does is not leader_lost):  # a lone node takes its memory along
        wrong.append(f"{lost} settled steps done again")
    words += "" if commit_s is None else f", committed after {commit_s:.2f} s"
    words += "" if gone_s is None else f", other workers gone after {gone_s:.2f} s"
    words += f", causes {', '.join(str(r.fields['cause']) for r in job.told('attempt_ended'))}"
    words += f", verdict {job.verdict()}"
    return Outcome(commit_s, gone_s, lost, wrong, words)


def committed_s(job: Submitted, since_s: float | None) -> float | None:
    """From the notice, or from a certain moment, to the last commit of the attempt [s]."""
    heard = [record.time for record in job.told("notice")]
    if since_s is None and heard:
        since_s = heard[0]
    commits = [r.time for r in job.told("checkpoint_committed") if r.attempt == 1 and r.fields["reason"] == "emergency"]
    return max(commits) - since_s if commits and since_s is not None else None


def resume(job: Submitted) -> None:
    """Skip SLURM's waiting, as often as the job is requeued before the run is finished."""
    restart = 0
    while not job.told("run_finished"):
        restart += 1
        job.again(restart)
        began = len(job.told("allocation_started"))
        job.until(
            lambda began=began: job.told("run_finished") or len(job.told("requeued")) > began, "end of the run", 150.0
        )


def unlike(job: Submitted, kind: Kind, state: str, restarts: int) -> list[str]:
    """What of the job's end is not as it should be."""
    found = [] if state == kind.state else [f"the job ended as {state}"]
    if not kind.back:
        by_us = kind.does in (stopped_and_requeued, finished)
        found += [f"{restarts} requeues"] if restarts != by_us else []
        found += ["it was requeued"] if job.told("requeued") else []
        limit = 1 if kind.state != "COMPLETED" or kind.does is finished else 2
        found += ["it trained on"] if len(job.told("training_started")) > limit else []
        return found
    found += [] if restarts == 1 or (kind.limited and restarts > 0) else [f"{restarts} requeues"]
    doubled = job.cluster.slurm("squeue", "-h", "-p", "low", "-o", "%A").split()
    return [*found, *([f"jobs left in the queue: {doubled}"] if doubled else [])]


def again(job: Submitted) -> int | None:
    """Settled steps that were lost, as the traces and the journal tell; None if nothing was resumed."""
    starts = resumed(job.run)
    by_trace = [completed(job.run, attempt) - step for attempt, (step, _) in starts.items() if attempt > 1]
    return max(0, *by_trace, *redone(job.run)) if by_trace else None


def mend(cluster: Cluster) -> None:
    """Every node back, whatever was done to it."""
    for node in sorted(cluster.nodes()):
        cluster.back(node)
    until(lambda: set(cluster.states()) <= {"idle", "alloc", "mix", "comp"}, "nodes that answer", 120.0)


def show(outcomes: dict[str, list[Outcome]], nodes: int) -> None:
    """The table: the worst of each kind."""
    head = f"two ranks on {nodes} node{'s' * (nodes > 1)}"
    print(f"\n{head:32}{'runs':>5}{'right':>6}{'commit s':>10}{'redone':>8}{'gone s':>8}   (worst)")
    for kind, found in outcomes.items():
        right = sum(not outcome.wrong for outcome in found)
        commit, gone = worst([one.commit_s for one in found]), worst([one.gone_s for one in found])
        redone_steps = worst([one.again for one in found], "d")
        print(f"{kind:32}{len(found):5}{right:6}{commit:>10}{redone_steps:>8}{gone:>8}")


def worst(values: list[float | None], form: str = ".2f") -> str:
    known = [value for value in values if value is not None]
    return format(max(known), form) if known else "-"


if __name__ == "__main__":
    main()
