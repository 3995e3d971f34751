"""Measures silences: of each rank, to learn from, and of all together, to judge.

A rank moves when its beat changes. The run moves when any rank does: whoever waits for a rank that evaluates or saves
is silent, and the one it waits for is not. Time counts only in pieces that the watcher itself was awake for: when
the machine sleeps, or the disk that everything waits for, nobody stands still by himself.

Pure: time is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from supervisor.policy.patience import Doing, Patience

#: The longest time between two looks that counts [s]: more of it the watcher was not awake.
AWAKE_S = 2.0


@dataclass(frozen=True, slots=True)
class Pulse:
    """What is compared of a rank.

    Attributes:
        mark: anything that is another one when the rank has moved.
        doing: what it was at; None where nothing is to be expected of it.
        step_s: usual duration of a step [s]; None while unknown.
    """

    mark: object
    doing: Doing | None
    step_s: float | None = None


@dataclass(frozen=True, slots=True)
class Silence:
    """How long nothing has moved, and what is made of that.

    Attributes:
        patience: learnt so far.
        silent_s: of all ranks together [s].
        pulses: as they were seen last.
        own_s: how long each has been silent [s].
        looked_s: time of the last look [s]; None before the first.
    """

    patience: Patience = field(default_factory=Patience)
    silent_s: float = 0.0
    pulses: tuple[Pulse, ...] = ()
    own_s: tuple[float, ...] = ()
    looked_s: float | None = None

    def after(self, pulses: Sequence[Pulse], now_s: float, *, awake: bool = True) -> Silence:
        """What is known after another look.

        Args:
            pulses: of all ranks.
            now_s: any monotonic time [s].
            awake: False while something outside keeps everybody waiting.
        """
        passed_s = 0.0 if self.looked_s is None or not awake else min(now_s - self.looked_s, AWAKE_S)
        if len(pulses) != len(self.pulses):
            return replace(self, pulses=tuple(pulses), own_s=(0.0,) * len(pulses), silent_s=0.0, looked_s=now_s)
        own_s: list[float] = []
        ended: dict[Doing, tuple[float, bool]] = {}  # ranks move together, and are learnt from together
        moved = False
        for before, pulse, silent_s in zip(self.pulses, pulses, self.own_s, strict=True):
            if pulse.mark == before.mark:
                own_s.append(silent_s + passed_s)
                continue
            moved = True
            own_s.append(0.0)
            if before.doing is not None:
                longest_s, left = ended.get(before.doing, (0.0, False))
                left = left or pulse.doing is not before.doing
                ended[before.doing] = max(longest_s, silent_s + passed_s), left
        patience = self.patience
        for doing, (longest_s, left) in ended.items():
            patience = patience.learnt(doing, longest_s, left=left)
        return Silence(patience, 0.0 if moved else self.silent_s + passed_s, tuple(pulses), tuple(own_s), now_s)

    def anew(self) -> Silence:
        """At the beginning of another attempt: what was learnt stays."""
        return Silence(self.patience)

    def broken(self) -> Silence:
        """Something moved that no beat tells of, such as a log that grew."""
        return replace(self, silent_s=0.0)

    def believed(self) -> Silence:
        """Take this silence for one that might have ended by itself: the next is given longer."""
        patience = self.patience
        for pulse in self.pulses:
            if pulse.doing is not None:
                patience = patience.learnt(pulse.doing, self.silent_s, left=True)
        return replace(self, patience=patience)

    @property
    def soon_s(self) -> float | None:
        """How long it may last until the ranks are looked at [s]; None while nothing is to be expected of any."""
        patiences = [self.patience.soon_s(p.doing, p.step_s) for p in self.pulses if p.doing is not None]
        return max(patiences, default=None)

    @property
    def late_s(self) -> float | None:
        """How long it may last until it is a stall, proved or not [s]; None while nothing is to be expected."""
        patiences = [self.patience.late_s(p.doing, p.step_s) for p in self.pulses if p.doing is not None]
        return max(patiences, default=None)

    @property
    def doing(self) -> frozenset[Doing]:
        """What the ranks are at."""
        return frozenset(p.doing for p in self.pulses if p.doing is not None)
