"""How long nothing may move before somebody looks, and before it is called a stall.

Two patiences, because a silence has two explanations. `soon` is when the ranks are looked at: what is proved then
(a stopped process) is a stall at once. `late` is when a silence that nobody can explain counts as one: three times
that, since to end a slow step is the dearer mistake. Both are learnt, phase by phase, from the silences that ended by
themselves; a silence that was ended for a stall without proof counts as one of those, so that the same slow thing is
not ended twice.

Pure. Silences are measured by whoever asks, on one clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum


class Doing(Enum):
    """What a rank does, as far as patience is concerned."""

    START = "start"  # imports, data, the model
    FIRST = "first steps"  # compile, warm-up, buffers
    STEP = "step"
    EVALUATION = "evaluation"
    SAVE = "save"
    REST = "rest"  # training is over, the program goes on


#: The first steps of an attempt are none like those that follow: so many compile, tune and allocate.
FIRST_STEPS = 3
#: Below this nothing is looked at [s].
FLOOR_S = 10.0
#: The same where single silences are long by nature.
_FLOORS_S = {Doing.START: 60.0, Doing.FIRST: 60.0, Doing.SAVE: 30.0, Doing.REST: 60.0}
#: Where a phase has not been seen, ranks are looked at after this long [s].
UNSEEN_SOON_S = 30.0
#: And what is not proved is no stall before this [s].
UNSEEN_LATE_S = 1800.0
#: The rest of a program uploads, merges and evaluates, mostly without a word.
_UNSEEN_REST_S = 7200.0
#: The same where it has: of evaluations and saves few are seen, and at a start and the first steps the next attempt
#: may have more to do than this one had, for data is passed over.
_LEAST_LATE_S = {
    Doing.START: 600.0,
    Doing.FIRST: 600.0,
    Doing.EVALUATION: 120.0,
    Doing.SAVE: 300.0,
    Doing.REST: 1800.0,
}
#: How often the usual step.
_USUAL = 3.0
#: How often `soon` is `late`.
_LATER = 3.0
#: A step that was slow once is half forgotten after so many others.
_HALF_LIFE = 10_000
#: So many steps and the usual one is known.
_ENOUGH = 5


@dataclass(frozen=True, slots=True)
class Spell:
    """What was seen of one phase.

    Attributes:
        longest_s: the longest silence that ended by itself, slowly forgotten [s].
        count: silences seen.
        rounds: how often the phase was left again.
    """

    longest_s: float = 0.0
    count: int = 0
    rounds: int = 0


@dataclass(frozen=True, slots=True)
class Patience:
    """What was learnt, and what is made of it.

    Attributes:
        fixed_s: patience of steps that somebody has set, and the least of all others [s]; None to learn it.
        spells: what was seen of each phase.
    """

    fixed_s: float | None = None
    spells: Mapping[Doing, Spell] = field(default_factory=dict)

    def learnt(self, doing: Doing, silent_s: float, *, left: bool = False) -> Patience:
        """After a silence that ended by itself, or that was taken for one that would have.

        Args:
            doing: the phase that it was in.
            silent_s: how long [s].
            left: whether the phase ended with it.

        >>> patience = Patience().learnt(Doing.SAVE, 90.0, left=True)
        >>> patience.soon_s(Doing.SAVE), patience.late_s(Doing.SAVE)
        (120.0, 360.0)
        """
        spell = self.spells.get(doing, Spell())
        kept_s = spell.longest_s * 0.5 ** (1.0 / _HALF_LIFE)
        after = Spell(max(kept_s, silent_s), spell.count + 1, spell.rounds + left)
        return replace(self, spells={**self.spells, doing: after})

    def _knows(self, doing: Doing, step_s: float | None) -> bool:
        """Whether enough of a phase has been seen.

        Of an evaluation or a save that is one to its end: what comes last (metrics of everything) takes longest.
        """
        spell = self.spells.get(doing, Spell())
        return step_s is not None or spell.count >= _ENOUGH if doing is Doing.STEP else spell.rounds > 0

    def soon_s(self, doing: Doing, step_s: float | None = None) -> float:
        """After how long a silence the ranks are looked at [s].

        Args:
            doing: what they were at.
            step_s: usual duration of a step [s]; None while unknown.

        >>> Patience().soon_s(Doing.EVALUATION), Patience(fixed_s=90.0).soon_s(Doing.EVALUATION)
        (30.0, 90.0)
        """
        if self.fixed_s is not None and doing is Doing.STEP:
            return self.fixed_s
        learnt_s = self._estimate_s(doing, step_s) if self._knows(doing, step_s) else UNSEEN_SOON_S
        return max(learnt_s, self.fixed_s or 0.0)

    def late_s(self, doing: Doing, step_s: float | None = None) -> float:
        """After how long a silence counts as a stall though nothing proves it [s].

        Args:
            doing: what the ranks were at.
            step_s: usual duration of a step [s]; None while unknown.

        >>> Patience().late_s(Doing.EVALUATION), Patience(fixed_s=90.0).late_s(Doing.STEP)
        (1800.0, 90.0)
        """
        if self.fixed_s is not None and doing is Doing.STEP:
            return self.fixed_s
        if self._knows(doing, step_s):
            late_s = max(_LATER * self._estimate_s(doing, step_s), _LEAST_LATE_S.get(doing, 0.0))
        else:
            late_s = _UNSEEN_REST_S if doing is Doing.REST else UNSEEN_LATE_S
        return max(late_s, self.fixed_s or 0.0)

    def _estimate_s(self, doing: Doing, step_s: float | None) -> float:
        usual_s = (step_s or 0.0) if doing is Doing.STEP else 0.0
        return _FLOORS_S.get(doing, FLOOR_S) + max(_USUAL * usual_s, self.spells.get(doing, Spell()).longest_s)
