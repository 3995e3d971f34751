"""What to do when an attempt has ended.

Every rule about trying again lives in this file; what is changed in between is found out by
`policy.shrink` (memory) and `policy.divergence` (going back).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from supervisor.policy.adapt import Adaptation, Settings
from supervisor.policy.causes import CLASSES, Cause, CauseClass, Verdict
from supervisor.policy.divergence import WITHIN_STEPS, Divergence, near, way_back
from supervisor.policy.ledger import Ledger
from supervisor.policy.shrink import Changed, NothingLeft, after_gpu_oom, after_host_oom


@dataclass(frozen=True, slots=True)
class Finish:
    """The run is complete."""


@dataclass(frozen=True, slots=True)
class Restart:
    """Start again in this allocation.

    Attributes:
        delay_s: pause before it [s].
    """

    delay_s: float


@dataclass(frozen=True, slots=True)
class Adapt:
    """Change settings, remember that, and start again.

    Attributes:
        to: what the next attempt is started with.
        detail: what changes, for people.
        delay_s: pause before it [s].
    """

    to: Adaptation
    detail: str
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class GoBack:
    """Go on from a state before a step, in a new lineage, and pass over the data that did the harm.

    Attributes:
        before: the step that went wrong: states of it and of later ones do not count any more.
        skip: first and last step whose data is passed over.
        detail: for people.
    """

    before: int
    skip: tuple[int, int]
    detail: str


@dataclass(frozen=True, slots=True)
class LeaveNode:
    """Leave this allocation for one without the node that is at fault.

    Attributes:
        reason: for people.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Stop; a person has to look.

    Attributes:
        reason: for that person.
        usage: whether the job file is to blame and nothing was ever trained.
    """

    reason: str
    usage: bool = False


Decision = Finish | Restart | Adapt | GoBack | LeaveNode | GiveUp


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the job file and the place allow.

    Attributes:
        max_barren: how many barren attempts in a row are enough.
        shrink: whether settings may be changed after memory ran out.
        roll_back: whether to go back behind a divergence.
        requeues: whether there are other nodes to be had.
    """

    max_barren: int = 3
    shrink: bool = True
    roll_back: bool = True
    requeues: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What an attempt left besides its verdict.

    Attributes:
        settings: of its program.
        needs_bytes: host memory that it took at least, or the limit that it reached; None if unknown.
        diverged: what showed that training had diverged; None if nothing did.
        states: steps of the good states that are there to go back to.
        chance: a number from 0 to 1, drawn anew each time: runs that failed together do not come back together.
    """

    settings: Settings = field(default_factory=Settings)
    needs_bytes: int | None = None
    diverged: Divergence | None = None
    states: tuple[int, ...] = ()
    chance: float = 0.5


#: What may lie in the program itself, which does the same each time; the others come from around it.
_PERHAPS_THE_PROGRAM = (Cause.CRASHED, Cause.UNKNOWN, Cause.DIVERGED)
#: Roots that are nobody's fault in the program: somebody killed it and left no word.
_FROM_OUTSIDE = ("killed",)
#: Roots that say of a hub that it cannot be reached, and of its cache that something is missing.
_HUB_AWAY = ("hub_busy", "hub_unreachable", "http_timeout", "http_retries", "http_broken", "dns", "route")
_NOT_CACHED = "hub_offline"
#: What lies around the program: a cut heals within seconds or takes its time, so pauses grow fast.
_AROUND = (Cause.NETWORK, Cause.STORAGE, Cause.DISCONNECTED)
_AROUND_GROWTH = 12.0
#: So often a run may be taken away in a row without a newer step.
_MAX_IDLE = 10
_MEMORY = (Cause.GPU_OOM, Cause.HOST_OOM)
_BASE_DELAY_S = 5.0
_MAX_DELAY_S = 600.0
#: The same root at the same step so often is no chance.
_NO_CHANCE = 2
#: Root of a verdict that another's processes held the GPU's memory.
NEIGHBOUR = "gpu_oom_neighbour"


def decide(verdict: Verdict, ledger: Ledger, limits: Limits, facts: Facts | None = None) -> Decision:
    """Choose what follows an attempt that ended by itself.

    What is permanent stops at once. What comes again unless something is changed has that changed. Everything
    else is tried again while attempts still settle newer steps: barren attempts in a row, not attempts in all,
    measure a hopeless run.

    Args:
        verdict: why it ended.
        ledger: what the attempts so far have shown, this one included.
        limits: of the job and the place.
        facts: what the attempt left besides.

    Source:
        NVIDIA Resiliency Extension, fault_tolerance, `max_no_progress_cycles`.

    >>> decide(Verdict(Cause.CRASHED, ""), Ledger(barren=0), Limits())
    Restart(delay_s=0.0)
    >>> decide(Verdict(Cause.CRASHED, "rank 0"), Ledger(barren=3), Limits())
    GiveUp(reason='crashed: 3 attempts in a row settled no newer step; the last one: rank 0', usage=False)
    """
    facts = facts or Facts()
    if verdict.cause is Cause.FINISHED:
        return Finish()
    if (offline := _about_the_hub(verdict, ledger, facts)) is not None:
        return offline
    if verdict.cause is Cause.DIVERGED and facts.diverged is not None:
        return _diverged(facts.diverged, ledger, limits, facts.states)
    if CLASSES[verdict.cause] is CauseClass.PERMANENT:
        return GiveUp(f"{verdict.cause.value}: {verdict.evidence}", usage=verdict.usage and ledger.best_step < 0)
    if verdict.cause in _MEMORY:
        return _out_of_memory(verdict, ledger, limits, facts)
    return _without_hope(verdict, ledger, limits) or _elsewhere(verdict, limits) or _once_more(verdict, ledger, facts)


def _about_the_hub(verdict: Verdict, ledger: Ledger, facts: Facts) -> Adapt | None:
    """A hub that is away before training began: its cache is tried, and where that is not enough, the hub again."""
    offline = ledger.adaptation.offline
    if verdict.root in _HUB_AWAY and offline is None and ledger.root is not None and ledger.root[1] is None:
        return Adapt(
            replace(ledger.adaptation, offline=True), "the hub does not answer: its cache on this machine is tried"
        )
    if verdict.root == _NOT_CACHED and offline:
        detail = "the cache does not have what is needed: the hub is asked again"
        return Adapt(replace(ledger.adaptation, offline=False), detail, backoff_s(1, facts.chance))
    return None


def _elsewhere(verdict: Verdict, limits: Limits) -> LeaveNode | GiveUp | None:
    """What is broken stays so: only another node helps."""
    if verdict.cause is not Cause.GPU_FAULT:
        return None
    if limits.requeues:
        return LeaveNode(verdict.evidence)
    return GiveUp(f"{verdict.cause.value}: {verdict.evidence}; there is no scheduler that could give another node")


def _once_more(verdict: Verdict, ledger: Ledger, facts: Facts) -> Restart:
    growth = _AROUND_GROWTH if verdict.cause in _AROUND else 2.0
    return Restart(backoff_s(ledger.barren, facts.chance, growth))


def _without_hope(verdict: Verdict, ledger: Ledger, limits: Limits) -> GiveUp | None:
    if ledger.barren >= limits.max_barren:
        many = f"{ledger.barren} attempts in a row settled no newer step"
        return GiveUp(f"{verdict.cause.value}: {many}; the last one: {verdict.evidence}")
    root, step = ledger.root or (None, None)
    if verdict.cause in _PERHAPS_THE_PROGRAM and root not in _FROM_OUTSIDE and ledger.same_root >= _NO_CHANCE:
        at = "before training began" if step is None else f"at step {step}"
        many = f"the same {ledger.same_root} times {at}, so another try would end there, too"
        return GiveUp(f"{verdict.cause.value}: {many}: {verdict.evidence}")
    return None


def _out_of_memory(verdict: Verdict, ledger: Ledger, limits: Limits, facts: Facts) -> Decision:
    """Change what needs less memory; where nothing is left to change, go on only while steps are gained.

    Memory that somebody else holds may come back: it is waited for and nothing is changed.
    """
    said, barren = f"{verdict.cause.value}: {verdict.evidence}", ledger.barren
    if verdict.root == NEIGHBOUR:
        if barren < limits.max_barren:
            return Restart(backoff_s(max(1, barren), facts.chance))
        return GiveUp(f"{said}; {barren} attempts in a row settled no newer step: find who else is on the GPU")
    if verdict.cause is Cause.GPU_OOM:
        found = after_gpu_oom(facts.settings, ledger.adaptation, ledger.world_size or 1)
    else:
        found = after_host_oom(facts.settings, ledger.adaptation, facts.needs_bytes)
    if not limits.shrink:
        would = found.detail if isinstance(found, Changed) else f"{found.reason}; {found.remedy}"
        return GiveUp(f"{said}; `recovery.on_oom: stop` keeps from trying this: {would}")
    match found:
        case Changed(to, detail):
            return Adapt(to, detail)
        case NothingLeft(reason, remedy) if barren >= min(limits.max_barren, _tries(verdict.cause, facts.settings)):
            return GiveUp(f"{said}; {reason}; {remedy}")
    return Restart(backoff_s(barren, facts.chance))


def _tries(cause: Cause, settings: Settings) -> int:
    """Barren attempts after which nothing is left: of a program that said nothing of itself, chance gets one."""
    said = settings.micro_batch if cause is Cause.GPU_OOM else settings.loader_workers
    return _NO_CHANCE if said is None else 1


def _diverged(diverged: Divergence, ledger: Ledger, limits: Limits, states: tuple[int, ...]) -> GoBack | GiveUp:
    words = f"{Cause.DIVERGED.value}: {diverged.words()}"
    if not limits.roll_back:
        return GiveUp(f"{words}; the job says `on_nan: stop`")
    behind = [step for _, step in ledger.behind[ledger.forgiven_behind :]]
    way = way_back(diverged, behind, states)
    if way is None:
        times = near(diverged, behind)
        steps = f"{len(times)} times within {WITHIN_STEPS} steps (behind {', '.join(map(str, times))})"
        return GiveUp(f"{words}; the run has gone back {steps}, and it came again")
    before, skip = way
    data = f"of step {skip[0]}" if skip[0] == skip[1] else f"of steps {skip[0]} to {skip[1]}"
    return GoBack(before, skip, f"go back behind step {before} and pass over the data {data}")


def hopeless(ledger: Ledger) -> str | None:
    """Why a run that is taken away again should not be put back; None while it may go on.

    Preemptions and time limits cost nothing as long as steps are gained. A job whose limit is shorter than the
    load of its model would go round for ever.

    >>> hopeless(Ledger(idle=9))
    >>> hopeless(Ledger(idle=10))
    'it was taken away 10 times in a row before it settled a newer step: give it more time (`slurm.time`)'
    """
    if ledger.idle < _MAX_IDLE:
        return None
    many = f"it was taken away {ledger.idle} times in a row before it settled a newer step"
    return f"{many}: give it more time (`slurm.time`)"


def backoff_s(barren: int, chance: float = 0.5, growth: float = 2.0) -> float:
    """Seconds to pause before the next attempt: none after progress, then growing, give or take a quarter.

    >>> [backoff_s(n) for n in (0, 1, 2, 3, 2000)]
    [0.0, 5.0, 10.0, 20.0, 600.0]
    >>> backoff_s(1, 0.0), backoff_s(1, 1.0), backoff_s(2, growth=12.0)
    (3.75, 6.25, 60.0)
    """
    if barren == 0:
        return 0.0
    times = min(barren - 1, 30)  # 12.0 ** 1024 overflows a float
    return min(_MAX_DELAY_S, _BASE_DELAY_S * growth**times) * (0.75 + 0.5 * chance)
