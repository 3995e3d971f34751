"""What the ranks of a silent run were found at, and who keeps the others waiting.

A rank that waits for the others is never the one that is behind; one that is stopped, waits for a disk, or does
something else while they wait, is. Where all wait for each other, the one with the fewest steps.

What this does not tell: on a GPU a rank waits for its own device in many places, and its last Python line says only
where it noticed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What was found of one rank.

    Attributes:
        rank: global rank.
        pid: of its process; 0 where it had none.
        state: of the process, as proc_pid_stat(5) has it; None where it cannot be read.
        waits_in: function of the kernel that it waits in; None for none.
        frames: of its main thread, innermost first, as ``file:function``; None if it gave none.
        gpu_percent: how busy its GPU was; None without one, or where it cannot be asked.
        files: what was written, relative to the directory of the attempt's logs.
    """

    rank: int
    pid: int = 0
    state: str | None = None
    waits_in: str | None = None
    frames: tuple[str, ...] | None = None
    gpu_percent: int | None = None
    files: tuple[str, ...] = ()


class Proof(Enum):
    """What a silence is, as far as the accounts show."""

    STOPPED = "stopped"  # a process was stopped: it is a stall, however short
    EXCUSED = "excused"  # something slow is under way that ends by itself
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was made of the accounts.

    Attributes:
        proof: what they show.
        behind: ranks that keep the others waiting; none where nobody can tell.
        words: for people.
    """

    proof: Proof
    behind: tuple[int, ...]
    words: str


#: States of a process; proc_pid_stat(5).
_STOPPED, _DISK = "T", "D"
#: Ends of files in whose functions a rank waits for the others.
_COLLECTIVES = ("torch/distributed/distributed_c10d.py", "torch/distributed/_functional_collectives.py")
#: Functions in which gradients are summed, or buffers sent, by threads below Python.
_SUMS = {
    "torch/autograd/graph.py:_engine_run_backward": "the backward pass, where gradients are summed",
    "torch/autograd/__init__.py:backward": "the backward pass, where gradients are summed",
    "torch/nn/parallel/distributed.py:_distributed_broadcast_coalesced": "a broadcast of buffers",
    "torch/distributed/fsdp/_runtime_utils.py:_unshard": "the gathering of a layer's shards",
}
_COMPILERS = ("torch/_dynamo/", "torch/_inductor/", "torch/_functorch/", "triton/compiler/", "triton/runtime/")
_LOADER = "torch/utils/data/dataloader.py"
#: Frames that wrap others and say nothing by themselves.
_WRAPPERS = ("torch/distributed/c10d_logger.py:wrapper",)
_NEAR = 8  # frames from the innermost one in which a collective is looked for


def waiting_in(account: Account) -> str | None:
    """The collective in which a rank waits for the others; None if it does not, or nobody can tell.

    >>> waiting_in(Account(rank=0, frames=("torch/distributed/distributed_c10d.py:barrier", "train.py:main")))
    'barrier'
    """
    for frame in (account.frames or ())[:_NEAR]:
        file, _, function = frame.rpartition(":")
        if file.endswith(_COLLECTIVES):
            return function
        for known, words in _SUMS.items():
            if frame.endswith(known):
                return words
    return None


def compiles(account: Account) -> bool:
    """Whether a rank compiles: that takes its time, and ends by itself."""
    return any(sign in frame for frame in account.frames or () for sign in _COMPILERS) and waiting_in(account) is None


def judge(accounts: Sequence[Account], steps: Mapping[int, int], hosts: Mapping[int, str] | None = None) -> Finding:
    """Find out who is behind.

    Args:
        accounts: of the ranks that gave one.
        steps: newest settled step of every rank, -1 while unknown.
        hosts: names of the ranks' nodes, where there are several.

    >>> waits = Account(rank=0, state="S", frames=("torch/distributed/distributed_c10d.py:all_reduce",))
    >>> judge([waits, Account(rank=1, state="T")], {0: 41, 1: 41}).words
    'rank 1 is stopped (SIGSTOP, state T) at step 41 while rank 0 waits in all_reduce'
    """
    say = _Say(steps, hosts or {})
    told = {account.rank: account for account in accounts}
    stopped = tuple(rank for rank, one in told.items() if one.state == _STOPPED)
    if stopped:
        return Finding(Proof.STOPPED, stopped, say(stopped, f"stopped (SIGSTOP, state {_STOPPED})", accounts))
    asleep = tuple(rank for rank, one in told.items() if one.state == _DISK)
    if asleep:
        places = sorted({told[rank].waits_in or "" for rank in asleep} - {""})
        where = f", in {', '.join(places)}" if places else ""
        return Finding(Proof.EXCUSED, asleep, say(asleep, f"in uninterruptible sleep (state {_DISK}{where})", accounts))
    busy = tuple(one.rank for one in accounts if compiles(one))
    if busy:
        return Finding(Proof.EXCUSED, busy, say(busy, "compiling", accounts))
    mute = tuple(rank for rank in steps if rank not in told)
    others = tuple(rank for rank, one in told.items() if one.frames and waiting_in(one) is None)
    waiting = any(waiting_in(one) is not None for one in accounts)
    if others and (waiting or len(steps) == 1):
        places = sorted({_place(told[rank]) for rank in others})
        return Finding(Proof.NONE, others, say(others, f"in {', '.join(places[:3])}", accounts))
    if mute:
        return Finding(Proof.NONE, mute, say(mute, "silent, and gave no account", accounts))
    return Finding(Proof.NONE, *_by_steps(accounts, steps, say))


def _by_steps(accounts: Sequence[Account], steps: Mapping[int, int], say: _Say) -> tuple[tuple[int, ...], str]:
    """Who has the fewest steps, where what they do does not tell."""
    least, most = min(steps.values(), default=-1), max(steps.values(), default=-1)
    if least < most:
        behind = tuple(rank for rank, step in steps.items() if step == least)
        return behind, say(behind, "behind", accounts) + f"; the others are at step {most}"
    waits = _while(accounts, ()).replace(" while ", "; ", 1)
    return (), (f"no rank is behind the others, all are at step {most}" if most >= 0 else "no step was made") + waits


def _while(accounts: Sequence[Account], but: Sequence[int]) -> str:
    """What the ranks do that wait."""
    waits: dict[str, list[int]] = {}
    for account in accounts:
        place = waiting_in(account)
        if place is not None and account.rank not in but:
            waits.setdefault(place, []).append(account.rank)
    told = [f"{_ranks(ranks)} wait{'s' if len(ranks) == 1 else ''} in {place}" for place, ranks in waits.items()]
    return f" while {' and '.join(told)}" if told else ""


def _place(account: Account) -> str:
    """Where a rank is, in its own words."""
    frames = [frame for frame in account.frames or () if not frame.endswith(_WRAPPERS)]
    if any(frame.rpartition(":")[0].endswith(_LOADER) for frame in frames[:_NEAR]):
        return "its data loader"
    return f"{frames[0]}()" if frames else "an unknown place"


def _ranks(ranks: Sequence[int]) -> str:
    """Names of ranks, not more than a reader takes in.

    >>> _ranks([1]), _ranks([0, 2]), _ranks(range(20))
    ('rank 1', 'ranks 0 and 2', '20 ranks (0, 1, 2, …)')
    """
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) > 8:
        return f"{len(ranks)} ranks ({', '.join(map(str, ranks[:3]))}, …)"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"


@dataclass(frozen=True, slots=True)
class _Say:
    """Puts ranks before what they do, and behind it where they stand and who waits for them."""

    steps: Mapping[int, int]
    hosts: Mapping[int, str]

    def __call__(self, ranks: Sequence[int], what: str, accounts: Sequence[Account]) -> str:
        on = sorted({self.hosts[rank] for rank in ranks if rank in self.hosts})
        where = f" on {', '.join(on[:3])}" if on else ""
        at = {self.steps.get(rank, -1) for rank in ranks}
        step = f" at step {min(at)}" if len(at) == 1 and min(at) >= 0 else ""
        return f"{_ranks(ranks)}{where} {'is' if len(ranks) == 1 else 'are'} {what}{step}{_while(accounts, ranks)}"
