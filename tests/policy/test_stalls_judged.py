"""What ranks were found at, and what is made of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.stalls import Account, Proof, compiles, judge, waiting_in

C10D = "torch/distributed/distributed_c10d.py"
BACKWARD = ("torch/autograd/graph.py:_engine_run_backward", "torch/_tensor.py:backward", "accelerate/a.py:backward")
GATHER = (f"{C10D}:all_gather", "torch/distributed/c10d_logger.py:wrapper", "transformers/trainer.py:train")
LOCKED = ("train.py:augment", "train.py:__getitem__", "transformers/trainer.py:train")
FETCH = (
    "multiprocessing/connection.py:wait",
    "torch/utils/data/dataloader.py:_try_get_data",
    "transformers/trainer.py:train",
)
INDUCTOR = ("subprocess.py:wait", "torch/_inductor/codecache.py:compile_file", "transformers/trainer.py:train")


def account(rank: int, frames: tuple[str, ...] | None = None, state: str | None = "S", waits_in: str = "") -> Account:
    return Account(rank=rank, pid=100 + rank, state=state, waits_in=waits_in or None, frames=frames)


CASES = [
    (
        [account(0, GATHER), account(1, state="T")],
        (41, 41),
        (Proof.STOPPED, (1,), "rank 1 is stopped (SIGSTOP, state T) at step 41 while rank 0 waits in all_gather"),
    ),
    (
        [account(0, BACKWARD), account(1, LOCKED)],
        (41, 41),
        (
            Proof.NONE,
            (1,),
            "rank 1 is in train.py:augment() at step 41 while rank 0 waits in the backward pass, "
            "where gradients are summed",
        ),
    ),
    (
        [account(0, GATHER), account(1, FETCH), account(2, GATHER)],
        (7, 7, 7),
        (Proof.NONE, (1,), "rank 1 is in its data loader at step 7 while ranks 0 and 2 wait in all_gather"),
    ),
    (
        [account(0, GATHER), account(1, state="D", waits_in="rpc_wait_bit_killable")],
        (7, 7),
        (
            Proof.EXCUSED,
            (1,),
            "rank 1 is in uninterruptible sleep (state D, in rpc_wait_bit_killable) at step 7 "
            "while rank 0 waits in all_gather",
        ),
    ),
    (
        [account(0, INDUCTOR), account(1, INDUCTOR)],
        (0, 0),
        (Proof.EXCUSED, (0, 1), "ranks 0 and 1 are compiling at step 0"),
    ),
    (
        [account(0, GATHER), account(1, GATHER)],
        (8, 7),
        (Proof.NONE, (1,), "rank 1 is behind at step 7 while rank 0 waits in all_gather; the others are at step 8"),
    ),
    (
        [account(0, BACKWARD), account(1, BACKWARD)],
        (8, 8),
        (
            Proof.NONE,
            (),
            "no rank is behind the others, all are at step 8; "
            "ranks 0 and 1 wait in the backward pass, where gradients are summed",
        ),
    ),
    (
        [account(0, GATHER)],
        (8, 8),
        (Proof.NONE, (1,), "rank 1 is silent, and gave no account at step 8 while rank 0 waits in all_gather"),
    ),
    ([account(0, LOCKED)], (8,), (Proof.NONE, (0,), "rank 0 is in train.py:augment() at step 8")),
    ([account(0, None)], (-1,), (Proof.NONE, (), "no step was made")),
    (
        [account(0, state="T"), account(1, state="D")],
        (3, 3),
        (Proof.STOPPED, (0,), "rank 0 is stopped (SIGSTOP, state T) at step 3"),
    ),
]


@pytest.mark.parametrize(("accounts", "steps", "expected"), CASES, ids=[case[2][2][:40] for case in CASES])
def test_whoever_keeps_the_others_waiting_is_named(
    accounts: list[Account], steps: tuple[int, ...], expected: tuple[Proof, tuple[int, ...], str]
) -> None:
    found = judge(accounts, dict(enumerate(steps)))
    assert (found.proof, found.behind, found.words) == expected


def test_on_several_machines_the_node_is_named() -> None:
    found = judge([account(0, GATHER), account(1, state="T")], {0: 4, 1: 4}, {0: "n1", 1: "n2"})
    assert found.words == "rank 1 on n2 is stopped (SIGSTOP, state T) at step 4 while rank 0 waits in all_gather"


def test_a_compiler_that_waits_for_the_others_does_not_compile() -> None:
    inside = ("torch/distributed/distributed_c10d.py:barrier", *INDUCTOR)
    assert compiles(account(0, INDUCTOR))
    assert not compiles(account(0, inside))
    assert waiting_in(account(0, inside)) == "barrier"


@given(
    states=st.lists(st.sampled_from(["R", "S", "T", "t", "D", "Z", None]), min_size=1, max_size=6),
    frames=st.lists(st.sampled_from([None, GATHER, BACKWARD, LOCKED, FETCH, INDUCTOR]), min_size=6, max_size=6),
    steps=st.lists(st.integers(-1, 5), min_size=6, max_size=6),
)
def test_only_a_stopped_process_proves_a_stall_and_one_sentence_is_always_said(
    states: list[str | None], frames: list[tuple[str, ...] | None], steps: list[int]
) -> None:
    accounts = [account(rank, frames[rank], state) for rank, state in enumerate(states)]
    found = judge(accounts, dict(enumerate(steps)))
    assert (found.proof is Proof.STOPPED) == ("T" in states)
    assert found.words
    assert set(found.behind) <= set(range(6))
    waits = {one.rank for one in accounts if waiting_in(one) is not None and one.state not in ("T", "D")}
    if found.proof is not Proof.NONE:
        assert not waits & set(found.behind)
