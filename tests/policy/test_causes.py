"""Root before cascade: who fell first is found among those who fell over him."""

from itertools import permutations

import pytest

from supervisor.policy.causes import Cause, RankEnd, Verdict, diagnose

CASCADE = "builtins.RuntimeError"
BASES = ("builtins.Exception", "builtins.BaseException", "builtins.object")


def raised(rank: int, time_s: float, kind: str = "builtins.ValueError", message: str = "m", bases=()) -> RankEnd:
    return RankEnd(rank, time_s, kind, (kind, *bases, *BASES), message)


def echo(rank: int, time_s: float, message: str = "Connection closed by peer [127.0.0.1]:5") -> RankEnd:
    return raised(rank, time_s, CASCADE, message)


def killed(rank: int, time_s: float, signal: str | None = None) -> RankEnd:
    return RankEnd(rank, time_s, signal=signal)


@pytest.mark.parametrize(
    ("ends", "cause", "evidence"),
    [
        # of two errors the earlier one
        ([raised(0, 2.0), raised(1, 1.0)], Cause.CRASHED, "rank 1 raised builtins.ValueError: m"),
        ([raised(1, 1.0), raised(0, 1.0)], Cause.CRASHED, "rank 0 raised builtins.ValueError: m"),
        # an error before its echo, even if the echo was recorded first
        ([echo(0, 1.0), raised(1, 2.0)], Cause.CRASHED, "rank 1 raised builtins.ValueError: m"),
        ([echo(0, 1.0, "NCCL watchdog"), echo(2, 1.1, "Gloo"), raised(1, 9.0)], Cause.CRASHED, "rank 1 raised"),
        # a kill before its echo
        ([echo(0, 1.0), killed(1, 2.0)], Cause.CRASHED, "rank 1 was killed from outside, it recorded no error"),
        ([killed(1, 2.0, "SIGKILL")], Cause.CRASHED, "rank 1 was killed by SIGKILL"),
        # a recorded error before a death that says nothing
        ([killed(0, 1.0), raised(1, 2.0)], Cause.CRASHED, "rank 1 raised builtins.ValueError"),
        # echoes alone: one of them has to do
        ([echo(0, 2.0), echo(1, 1.0)], Cause.CRASHED, "rank 1 raised builtins.RuntimeError: Connection closed"),
        # what comes again however often it is tried
        ([raised(0, 1.0, "builtins.ModuleNotFoundError", "No module", ("builtins.ImportError",))], *(
            Cause.USER_ERROR, "rank 0 raised builtins.ModuleNotFoundError: No module")),
        ([raised(0, 1.0, "builtins.SyntaxError")], Cause.USER_ERROR, "rank 0 raised builtins.SyntaxError"),
        ([raised(0, 1.0, "supervisor.worker.seat.WorldSizeError")], Cause.USER_ERROR, "WorldSizeError"),
        ([RankEnd(0, 1.0, "builtins.SystemExit", (), "2", exit_code=2)], Cause.USER_ERROR, "its command line"),
        ([RankEnd(0, 1.0, "builtins.SystemExit", (), "3", exit_code=3)], Cause.CRASHED, "SystemExit: 3"),
        ([raised(0, 1.0, message="")], Cause.CRASHED, "rank 0 raised builtins.ValueError: (no message)"),
        ([raised(0, 1.0, message="one\ntwo")], Cause.CRASHED, "ValueError: one"),
    ],
)  # fmt: skip
def test_the_root_is_found_in_whatever_order_the_ends_are_read(
    ends: list[RankEnd], cause: Cause, evidence: str
) -> None:
    for order in permutations(ends):
        verdict = diagnose(order)
        assert verdict.cause is cause
        assert evidence in verdict.evidence


def test_without_evidence_the_cause_is_unknown() -> None:
    assert diagnose([]) == Verdict(Cause.UNKNOWN, "no rank recorded how it ended")


def test_a_launcher_that_ended_first_is_quoted() -> None:
    verdict = diagnose([], "exit code 1, error: unrecognized arguments: --x")
    assert verdict.cause is Cause.CRASHED
    assert verdict.evidence.endswith("unrecognized arguments: --x")
    assert "rank 1" in diagnose([killed(1, 1.0)], "exit code 1").evidence


def test_a_job_that_cannot_work_is_told_from_a_program_that_is_wrong() -> None:
    job = raised(0, 1.0, "supervisor.errors.JobError", bases=("supervisor.errors.SupervisorError",))
    assert diagnose([job]).usage
    assert not diagnose([raised(0, 1.0, "builtins.NameError")]).usage


def test_a_long_message_is_cut_at_its_first_line() -> None:
    assert len(diagnose([raised(0, 1.0, message="x" * 9000)]).evidence) < 600
