"""The kinds of faults of the fault matrix: what is done, what the journal must say of it, how the run must end."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.policy.causes import Cause
from tests.apart import allowed
from tests.bench import faults_around as around
from tests.bench import faults_done as does
from tests.harness import Run
from tests.memory_groups import may_make_groups

KILLED = -signal.SIGKILL.value


def root() -> str:
    """What is missing for a file system of one's own, nothing if all is there."""
    return "" if os.geteuid() == 0 and shutil.which("mount") else "needs root"


def groups() -> str:
    return "" if may_make_groups() else "needs memory control groups that can be made"


def namespaces() -> str:
    return "" if allowed() else "needs network namespaces"


def compiler() -> str:
    return "" if shutil.which("gcc") or shutil.which("cc") else "needs a C compiler"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of fault.

    Attributes:
        does: it, and waits for the end.
        said: what is done, for people.
        causes: of the attempts, in order.
        follows: for people.
        decisions: that the journal has to hold, in order; those that follow an attempt and those before leaving.
        codes: with which the supervisors leave, in order; of several nodes the leader first.
        same: the undisturbed run whose result this one's has to be, bit for bit; None for a run that does not finish.
        near: whether rounding may make a difference to it.
        incidents: causes of the journal's incidents; those of the causes that end an attempt if it is None.
        events: how often the journal has to hold some others.
        redoes: whether settled steps are done again, as they are if the run goes back or memory is lost.
        needs: what of the machine is missing.
    """

    does: does.Doing
    said: str
    causes: tuple[str, ...]
    follows: str
    decisions: tuple[str, ...] = ("finish",)
    codes: tuple[int, ...] = (0,)
    same: str | None = None
    near: bool = False
    incidents: tuple[str, ...] | None = None
    events: Mapping[str, int] = field(default_factory=dict)
    redoes: bool = False
    needs: Callable[[], str] = lambda: ""

    @property
    def faults(self) -> set[str]:
        """What the incidents have to name."""
        return set(self.causes if self.incidents is None else self.incidents) - NO_INCIDENT


#: Ends of attempts that nobody has to be told of as of an incident.
NO_INCIDENT = {"finished", "user_stop", "preempted", "unknown"}

#: Undisturbed runs, each made once.
REFERENCES: dict[str, Callable[[Path], does.Done]] = {
    "alone": does.undisturbed,
    "pair": lambda base: does.ended(does.pair(base).start()),
    "left out": does.left_out,
    "small batch": does.small_batch,
}

RESTART = ("restart", "finish")
AT_ONCE = "all start again at once from the snapshot in memory"
SAME_COMMAND = "what was settled is committed; the same command goes on"

KINDS: dict[str, Kind] = {
    "nothing": Kind(
        does=does.undisturbed, said="nothing", causes=("finished",), follows="training ends", same="alone"
    ),
    "rank killed": Kind(
        does=does.rank_killed, said="SIGKILL to one rank of two in the middle of a step",
        causes=("crashed", "finished"),
        decisions=RESTART, follows=AT_ONCE, same="pair",
    ),
    "rank stopped": Kind(
        does=does.rank_stopped, said="SIGSTOP to one rank of two", causes=("stalled", "finished"), decisions=RESTART,
        follows=f"noticed, stacks kept; {AT_ONCE}", same="pair",
    ),
    "tree killed": Kind(
        does=does.tree_killed, said="SIGKILL to the supervisor and everything else", causes=("unknown", "finished"),
        codes=(KILLED, 0), follows="the same command goes on from the snapshot in memory", same="alone",
    ),
    "sigterm": Kind(
        does=does.asked(does.sigterm, "notice"), said="SIGTERM to every process", causes=("preempted", "finished"),
        decisions=("leave", "finish"), codes=(75, 0), follows=SAME_COMMAND, same="alone",
    ),
    "ctrl-c": Kind(
        does=does.asked(does.interrupt, "stop_asked"), said="Ctrl-C", causes=("user_stop", "finished"), codes=(130, 0),
        follows=SAME_COMMAND, same="alone", events={"run_stopped": 1},
    ),
    "stop": Kind(
        does=does.asked(does.stop, "stop_asked"), said="`supervisor stop`", causes=("user_stop", "finished"),
        codes=(130, 0), follows=SAME_COMMAND, same="alone", events={"run_stopped": 1},
    ),
    "loaders killed": Kind(
        does=does.loaders_killed, said="the kernel kills for memory in a control group with a limit",
        causes=("host_oom", "finished"), decisions=("adapt", "finish"), follows="half the data-loader workers",
        same="alone", events={"adapted": 1}, needs=groups,
    ),
    "gpu full": Kind(
        does=does.gpu_full, said="torch.OutOfMemoryError in the fourth step", causes=("gpu_oom", "finished"),
        decisions=("adapt", "finish"), follows="half the micro-batch, the same steps", same="small batch", near=True,
        events={"adapted": 1},
    ),
    "gpu too small": Kind(
        does=does.gpu_too_small, said="torch.OutOfMemoryError always, with one sample", causes=("gpu_oom", "gpu_oom"),
        decisions=("adapt", "give_up"), codes=(3,), follows="gradient checkpointing, then gives up with the numbers",
    ),
    "neighbour": Kind(
        does=does.met("neighbour", at=3), said="torch.OutOfMemoryError, and another's process holds the memory",
        causes=("gpu_oom", "finished"), decisions=RESTART, follows="starts again, nothing is changed", same="alone",
        events={"adapted": 0},
    ),
    "poisoned data": Kind(
        does=does.poisoned, said="the loss is NaN on one sample", causes=("diverged", "finished"),
        decisions=("roll_back", "finish"), follows="goes back behind it and passes its data over", same="left out",
        events={"adapted": 1}, redoes=True,
    ),
    "always wrong": Kind(
        does=does.always_wrong, said="the loss is NaN from a step on, whatever the data", causes=("diverged",) * 4,
        decisions=(*["roll_back"] * 3, "give_up"), codes=(3,), follows="goes back three times, then gives up",
        redoes=True,
    ),
    "crash": Kind(
        does=does.met("crash", at=3), said="an exception in the program, once", causes=("crashed", "finished"),
        decisions=RESTART, follows=AT_ONCE, same="alone",
    ),
    "crash again": Kind(
        does=does.met("crash", at=3, times=9), said="the same exception at the same step", causes=("crashed",) * 2,
        decisions=("restart", "give_up"), codes=(3,), follows="gives up the second time",
    ),
    "import": Kind(
        does=does.failing("fails", "import"), said="ImportError", causes=("user_error",), decisions=("give_up",),
        codes=(3,), follows="gives up at once",
    ),
    "disk full": Kind(
        does=around.program_fills_disk, said="the program meets a full disk (ENOSPC)", causes=("disk_full",),
        decisions=("give_up",), codes=(3,), follows="gives up at once", needs=root,
    ),
    "no room for checkpoints": Kind(
        does=around.disk_full_for_a_while, said="the run directory's disk is full for five steps",
        causes=("finished",), incidents=("disk_full",), follows="training goes on; what was missed is written later",
        same="alone", needs=root,
    ),
    "storage gone": Kind(
        does=around.storage_gone, said="the run directory's file system is gone for five steps", causes=("finished",),
        incidents=("storage",), follows="training goes on; what was missed is written later", same="alone", needs=root,
    ),
    "newest torn": Kind(
        does=around.torn(6), said="memory lost, a bit of the newest checkpoint turned", causes=("unknown", "finished"),
        codes=(KILLED, 0), follows="set aside with the reason; goes on from the one before", same="alone",
        events={"checkpoint_rejected": 1}, redoes=True,
    ),
    "all torn": Kind(
        does=around.torn(2, 4, 6), said="memory lost, a bit of every checkpoint turned", causes=("unknown",),
        incidents=("bad_checkpoint",), decisions=("give_up",), codes=(KILLED, 3),
        follows="gives up; never step 0 unasked", events={"checkpoint_rejected": 3},
    ),
    "refused": Kind(
        does=does.met("refused", at=3), said="connection refused, once", causes=("network", "finished"),
        decisions=RESTART, follows="starts again", same="alone",
    ),
    "always refused": Kind(
        does=does.failing("dies", "network", recovery={"max_barren": 2}), said="connection refused, always",
        causes=("network",) * 2, decisions=("restart", "give_up"), codes=(3,),
        follows="a pause, then gives up after `max_barren` attempts (2 here)",
    ),
    "hub away": Kind(
        does=around.hub_away, said="the hub does not answer, its cache is empty, later it answers",
        causes=("network", "user_error", "finished"), decisions=("adapt", "adapt", "finish"),
        follows="the cache is tried, then the hub again", same="alone", events={"adapted": 2},
    ),
    "aws": Kind(
        does=around.aws_notice, said="a spot notice of AWS (fake metadata), 7 s ahead",
        causes=("preempted", "finished"), decisions=("leave", "finish"), codes=(75, 0),
        follows="committed at once, trained on, left in time; the same command goes on", same="alone",
    ),
    "azure": Kind(
        does=around.azure_takes_back, said="an eviction of Azure (fake metadata), taken back", causes=("finished",),
        follows="committed; training goes on", same="alone", events={"notice": 2},
    ),
    "node lost": Kind(
        does=around.member_killed, said="SIGKILL to everything on one node of two", causes=("node_lost", "finished"),
        decisions=RESTART, codes=(0, 0), follows="what is left is committed; goes on when it is back", same="pair",
    ),
    "node silent": Kind(
        does=around.member_stopped, said="SIGSTOP to the supervisor of one node of two",
        causes=("disconnected", "finished"), decisions=RESTART, codes=(0, 0),
        follows="the workers are ended; goes on when it is back", same="pair",
    ),
    "network cut": Kind(
        does=around.network_cut, said="the network between two nodes (namespaces) loses everything for 10 s",
        causes=("disconnected", "finished"), decisions=RESTART, codes=(0, 0),
        follows="the workers are ended; goes on when it heals", same="pair", needs=namespaces,
    ),
    "gpu lost": Kind(
        does=around.gpu_lost, said="the driver reports Xid 79 (fake driver), the rank dies", causes=("gpu_fault",),
        decisions=("give_up",), codes=(3,), follows="without a scheduler: gives up, the node is named", needs=compiler,
    ),
}  # fmt: skip

#: Causes that nothing here brings about, and who does.
ELSEWHERE = {Cause.TIME_LIMIT: "only a scheduler has one: tests/bench/slurm_endings.py"}


def unlike(kind: Kind, done: does.Done, references: Mapping[str, Run]) -> list[str]:
    """What of a run's end is not as it should be; nothing if all is."""
    run = done.run
    ends = run.journal("attempt_ended")
    found = {
        "causes": (tuple(str(r.fields["cause"]) for r in ends), kind.causes),
        "decisions": (tuple(str(r.fields["decision"]) for r in run.journal("decision")), kind.decisions),
        "exit codes": (done.codes, kind.codes),
        "incidents": ({str(r.fields["cause"]) for r in run.journal("incident")}, kind.faults),
        "processes left": (run.workers(), []),
        "run_finished": (len(run.journal("run_finished")), int(kind.codes[-1] == 0)),
        "run_gave_up": (len(run.journal("run_gave_up")), int(kind.codes[-1] == 3)),
        **{event: (len(run.journal(event)), many) for event, many in kind.events.items()},
    }
    wrong = [f"{what}: {is_} instead of {due}" for what, (is_, due) in found.items() if is_ != due]
    wrong += [] if kind.redoes else lost(run)
    if kind.same is not None and done.codes[-1] == 0:
        wrong += result(run, references[kind.same], near=kind.near)
    return wrong


def lost(run: Run) -> list[str]:
    """Settled steps that were done again."""
    newest, wrong = 0, []
    for record in run.journal():
        step = record.count("step") or 0
        if record.event == "attempt_ended":
            newest = max(newest, step)
        elif record.event == "training_started" and step < newest:
            wrong.append(f"attempt {record.attempt} began at step {step}, {newest} was settled")
    return wrong


def result(run: Run, undisturbed: Run, *, near: bool) -> list[str]:
    """How the result differs from that of an undisturbed run."""
    if near:
        from tests.small_runs import difference

        apart = difference(run, undisturbed)
        return [] if apart < 1e-4 else [f"the adapter is {apart:.1e} apart"]
    due = undisturbed.digests()
    wrong = [f"the {name} differs" for name, digest in run.digests().items() if digest != due[name]]
    digests = {line["step"]: line["digest"] for line in undisturbed.trace()}
    newest = {line["step"]: line["digest"] for line in run.trace()}  # of several lives the last one's
    return wrong + [f"step {step} differs" for step, digest in digests.items() if newest.get(step) != digest]
