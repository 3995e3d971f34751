"""Keeps watch over the ranks' pace: who stands still, who is always slow.

A stall is noticed from beats alone, looked into before anything is done about it, and then is an early verdict like
any other. Nothing here waits: ranks are asked on threads, and what has not come in time is gone without.

A program that tells nothing (neither transformers' Trainer nor our callback) is never ended for a silence, unless
`recovery.stall_after` is given; then its log has to stand still as well, and for half an hour at least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.board.pages import Beat, Phase
from supervisor.engine.disk import Disk, Pending
from supervisor.engine.members.team import Team
from supervisor.policy.causes import Cause, Verdict
from supervisor.policy.patience import FIRST_STEPS, UNSEEN_LATE_S, Doing, Patience
from supervisor.policy.silence import Pulse, Silence
from supervisor.policy.stalls import Account, Finding, Proof, judge
from supervisor.policy.stragglers import Stragglers

#: How long asking all ranks of all nodes may take [s].
LIMIT_S = 3.0
#: How often logs are looked at, of ranks that tell nothing else [s].
_LOGS_EVERY_S = 5.0
#: How often beats are looked at, and while ranks are asked [s]; the loop may turn more often for other reasons.
_EVERY_S, _ASKING_EVERY_S = 0.4, 0.02
#: How often ranks are compared [s].
_COMPARE_EVERY_S = 5.0
#: In these a program says what it does in its log only.
_LOGGED = frozenset((Doing.START, Doing.REST))


@dataclass(slots=True)
class Vigil:
    """Watches the attempts of one stay.

    Attributes:
        team: all nodes.
        disk: for the looks at logs; while it is stuck, so may be the ranks.
        write: the journal's append.
        logs: directory of all attempts' logs.
        fixed_s: patience of steps as the job file has it [s]; None to learn it.
        limit_s: how long asking all ranks may take [s].
        asking: whether they are being asked.
        hosts: names of the nodes whose ranks were behind at the last stall; none where there is only one.
    """

    team: Team
    disk: Disk
    write: Callable[..., Any]
    logs: Path
    fixed_s: float | None = None
    limit_s: float = LIMIT_S
    asking: bool = False
    hosts: tuple[str, ...] = ()
    _silence: Silence = field(default_factory=Silence)
    _looked_s: float = 0.0
    _attempt: int = 0
    _question: int = 0
    _asked_s: float = 0.0
    _due_s: float | None = None  # the silence at which ranks are asked again; None before the first time
    _sizes: Pending[list[int]] | None = None
    _grown: list[int] = field(default_factory=list)
    _sized_s: float = 0.0
    _stragglers: Stragglers = field(default_factory=Stragglers)
    _compared_s: float = 0.0

    def __post_init__(self) -> None:
        self._silence = Silence(Patience(self.fixed_s))

    def begin(self, attempt: int) -> None:
        """Watch another attempt; what was learnt of the ones before stays."""
        self._attempt, self._question = attempt, 0
        self._silence, self._stragglers = self._silence.anew(), Stragglers()
        self._due_s, self.asking, self.hosts, self._grown = None, False, (), []

    def look(self, now_s: float, *, trains: bool) -> Verdict | None:
        """Look at every rank; the verdict if they stand still.

        Args:
            now_s: monotonic time [s].
            trains: whether the program is known to tell when it trains.
        """
        if now_s - self._looked_s < (_ASKING_EVERY_S if self.asking else _EVERY_S):
            return None
        self._looked_s = now_s
        beats = self.team.beats
        self._silence = self._silence.after([pulse_of(beat) for beat in beats], now_s, awake=not self.disk.stuck)
        self._compare(beats, now_s)
        silence = self._silence
        if silence.silent_s == 0.0:
            self._due_s, self.asking = None, False
            return None
        soon_s, late_s = silence.soon_s, silence.late_s
        if soon_s is None or late_s is None or (Doing.START in silence.doing and not trains and self.fixed_s is None):
            return None
        if silence.doing & _LOGGED and self._log_grows(len(beats), now_s):
            self._silence, self._due_s = silence.broken(), None
            return None
        if self.asking:
            return self._hear(beats, late_s, now_s)
        if silence.silent_s >= (soon_s if self._due_s is None else self._due_s):
            self._question += 1
            self.asking, self._asked_s = True, now_s
            self.team.inquire(self._number, native=silence.silent_s >= late_s)
        return None

    @property
    def _number(self) -> int:
        """Of the question, over all attempts: a member remembers the last one that it answered."""
        return self._attempt * 1000 + self._question

    def _hear(self, beats: Sequence[Beat], late_s: float, now_s: float) -> Verdict | None:
        accounts, complete = self.team.accounts(self._number)
        if not complete and now_s - self._asked_s < self.limit_s:
            return None
        self.asking = False
        finding = judge(accounts, {rank: beat.step for rank, beat in enumerate(beats)}, self.team.hosts)
        silent_s = self._silence.silent_s
        excused_s = max(late_s, UNSEEN_LATE_S) if finding.proof is Proof.EXCUSED and self.fixed_s is None else late_s
        if finding.proof is Proof.STOPPED or silent_s >= excused_s:
            return self._verdict(finding, accounts)
        self._due_s = late_s if silent_s < late_s else excused_s
        return None

    def _verdict(self, finding: Finding, accounts: Sequence[Account]) -> Verdict:
        silent_s, hosts = self._silence.silent_s, self.team.hosts
        if finding.proof is not Proof.STOPPED:
            self._silence = self._silence.believed()
        self.hosts = tuple(sorted({hosts[rank] for rank in finding.behind if rank in hosts}))
        told = [f"nothing moved for {silent_s:.0f} s: {finding.words}", *_gpus(accounts)]
        if files := sorted({name for account in accounts for name in account.files}):
            where = f"{self.logs.name}/{self._logs_of_attempt.name}"
            told.append(f"stacks in {where}: {', '.join(files[:8])}{', …' if len(files) > 8 else ''}")
        return Verdict(Cause.STALLED, "; ".join(told))

    # -- logs

    @property
    def _logs_of_attempt(self) -> Path:
        return self.logs / f"attempt-{self._attempt}"

    def _log_grows(self, ranks: int, now_s: float) -> bool:
        """Whether a log has grown since it was looked at before; looked at now and then, and not here."""
        if self._sizes is not None and self._sizes.over:
            sizes, self._sizes = self._sizes.result(), None
            grown, self._grown = bool(self._grown) and sizes != self._grown, sizes
            return grown
        if self._sizes is None and now_s - self._sized_s >= _LOGS_EVERY_S:
            paths, self._sized_s = [self._logs_of_attempt / f"rank-{rank}.log" for rank in range(ranks)], now_s
            self._sizes = self.disk.ask(lambda: [_size(path) for path in paths])
        return False

    # -- stragglers

    def _compare(self, beats: Sequence[Beat], now_s: float) -> None:
        if len(beats) < 2 or now_s - self._compared_s < _COMPARE_EVERY_S:
            return
        self._compared_s = now_s
        own_s, steps = [beat.own_s for beat in beats], [beat.step for beat in beats]
        self._stragglers, found = self._stragglers.after(own_s, steps, now_s)
        for one in found:
            host = self.team.hosts.get(one.rank)
            # It has no cause of the list: those say why an attempt ended, and nothing ended.
            detail = f"straggler{f' on {host}' if host else ''}: {one}"
            node = {"node": host} if host else {}
            self.write("incident", cause=None, detail=detail, decision="training goes on", rank=one.rank, **node)


def pulse_of(beat: Beat) -> Pulse:
    """What is compared of a beat, and what its rank is at.

    >>> pulse_of(Beat(phase=Phase.TRAINING, step=7, resumed=7)).doing, pulse_of(Beat(phase=Phase.PAUSED)).doing
    (<Doing.FIRST: 'first steps'>, None)
    """
    mark = (beat.pid, beat.phase, beat.step, beat.time_s)
    return Pulse(mark, _doing(beat), None if math.isnan(beat.step_s) else beat.step_s)


def _doing(beat: Beat) -> Doing | None:
    match beat.phase:
        case Phase.ABSENT | Phase.STARTING | Phase.LOADING:
            return Doing.START
        case Phase.TRAINING:
            return Doing.FIRST if beat.step - beat.resumed < FIRST_STEPS else Doing.STEP
        case Phase.EVALUATING:
            return Doing.EVALUATION
        case Phase.SAVING:
            return Doing.SAVE
        case Phase.TRAINED:
            return Doing.REST
    return None  # it waits because we asked it to, or has ended


def _gpus(accounts: Collection[Account]) -> list[str]:
    uses = [account.gpu_percent for account in accounts if account.gpu_percent is not None]
    return [f"GPUs {', '.join(f'{use} %' for use in uses[:8])} busy"] if uses else []


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
