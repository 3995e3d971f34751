"""Root before cascade: who fell first is found among those who fell over him."""

from dataclasses import replace
from itertools import permutations

import pytest

from supervisor.policy.causes import CLASSES, Cause, CauseClass, RankEnd, Verdict
from supervisor.policy.diagnosis import diagnose, normalised

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
        # echoes alone: somebody is gone, and nobody says who
        ([echo(0, 2.0), echo(1, 1.0)], Cause.NETWORK, "rank 1 raised builtins.RuntimeError: Connection closed"),
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
    assert verdict.cause is Cause.USER_ERROR
    assert verdict.evidence.endswith("unrecognized arguments: --x")
    assert diagnose([], "exit code 1, good bye").cause is Cause.CRASHED
    assert diagnose([], "exit code 1, [Errno 98] Address already in use").cause is Cause.NETWORK
    assert diagnose([], "exit code -9, hello", oom_kills=1).cause is Cause.HOST_OOM
    assert diagnose([], "exit code -9, hello", oom_kills=0).cause is Cause.CRASHED
    assert "rank 1" in diagnose([killed(1, 1.0)], "exit code 1").evidence


def test_a_job_that_cannot_work_is_told_from_a_program_that_is_wrong() -> None:
    job = raised(0, 1.0, "supervisor.errors.JobError", bases=("supervisor.errors.SupervisorError",))
    assert diagnose([job]).usage
    assert not diagnose([raised(0, 1.0, "builtins.NameError")]).usage


def test_a_long_message_is_cut_at_its_first_line() -> None:
    assert len(diagnose([raised(0, 1.0, message="x" * 9000)]).evidence) < 600


OOM = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 3 has a total capacity of 79.15 GiB of which 1.25 GiB is free"
)
OURS = (
    ". Including non-PyTorch memory, this process has {} memory in use. Of the allocated memory 9.00 GiB is allocated"
)
TIMEOUT = "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7) ran for 600037 milliseconds"
NCCL = "torch.distributed.DistBackendError"


def test_a_time_out_never_wins_against_the_reason_for_it_on_another_node() -> None:
    root = replace(raised(9, 700.0, "torch.OutOfMemoryError", OOM), node=1)
    verdict = diagnose([raised(rank, 600.0, NCCL, TIMEOUT) for rank in range(4)] + [root])
    assert (verdict.cause, verdict.root) == (Cause.GPU_OOM, "gpu_oom")
    assert verdict.evidence.startswith("rank 9 raised torch.OutOfMemoryError")
    assert verdict.details[0] == "rank 9: 2.0 GiB were wanted, 1.2 GiB are free, the device has 79.1 GiB"
    assert sum(line.endswith("(an echo)") for line in verdict.details) == 4


@pytest.mark.parametrize(("ours", "root"), [("9.00 GiB", "gpu_oom_neighbour"), ("70.00 GiB", "gpu_oom")])
def test_a_neighbour_on_the_gpu_is_told_apart(ours: str, root: str) -> None:
    verdict = diagnose([raised(0, 1.0, "torch.OutOfMemoryError", OOM + OURS.format(ours))])
    assert (verdict.cause, verdict.root) == (Cause.GPU_OOM, root)
    assert ("others held 68.9 GiB" in verdict.details[0]) == (root == "gpu_oom_neighbour")


@pytest.mark.parametrize(
    ("signal", "kills", "cause", "root"),
    [
        ("SIGKILL", 1, Cause.HOST_OOM, "host_oom"),
        (None, 2, Cause.HOST_OOM, "host_oom"),
        ("SIGKILL", 0, Cause.CRASHED, "killed"),
        ("SIGKILL", None, Cause.CRASHED, "killed"),
        ("SIGSEGV", 1, Cause.CRASHED, "SIGSEGV"),
        ("SIGTERM", 1, Cause.CRASHED, "killed"),
    ],
)
def test_a_killed_rank_is_out_of_memory_only_if_the_kernel_counted_one(
    signal: str | None, kills: int | None, cause: Cause, root: str
) -> None:
    end = replace(killed(1, 5.0, signal), oom_kills=kills)
    verdict = diagnose([echo(0, 4.0), end])
    assert (verdict.cause, verdict.root) == (cause, root)
    assert "rank 1 was" in verdict.evidence


def test_a_whole_node_that_was_killed_is_named() -> None:
    ends = [replace(killed(rank, 5.0, "SIGKILL"), node=1) for rank in (2, 3)]
    assert "node 1: all 2 of its ranks that ended were killed by SIGKILL" in diagnose([*ends, echo(0, 5.1)]).details


def test_a_killed_rank_is_not_blamed_for_what_stands_in_its_log() -> None:
    end = replace(killed(0, 1.0, "SIGKILL"), lines=("OSError: [Errno 28] No space left on device", "step 7"))
    assert diagnose([end]).cause is Cause.CRASHED
    memory = "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0."
    assert diagnose([replace(end, lines=(memory,))]).cause is Cause.HOST_OOM


def test_a_death_below_python_is_explained_by_its_log() -> None:
    told = ("terminate called after throwing 'c10::Error'", "what(): CUDA error: uncorrectable ECC error encountered")
    verdict = diagnose([replace(killed(0, 1.0, "SIGABRT"), lines=told), echo(1, 1.1)])
    assert (verdict.cause, verdict.root) == (Cause.GPU_FAULT, "gpu_ecc")
    assert verdict.evidence.endswith("uncorrectable ECC error encountered, and was ended by SIGABRT")
    aborted = replace(killed(0, 1.0, "SIGABRT"), lines=(TIMEOUT,))
    assert (
        diagnose([aborted, raised(1, 2.0, message="CUDA error: device-side assert triggered")]).root == "device_assert"
    )


def test_a_root_that_hides_under_a_wrapper_is_found() -> None:
    end = replace(
        raised(0, 1.0, "builtins.RuntimeError", "the dataset could not be prepared"),
        chain=("datasets.DatasetGenerationError: failed", "builtins.OSError: [Errno 28] No space left on device"),
    )
    verdict = diagnose([end])
    assert verdict.cause is Cause.DISK_FULL
    assert "rank 0, raised from builtins.OSError: [Errno 28] No space left on device" in verdict.details
    translated = replace(end, chain=(), errno=122)
    assert diagnose([translated]).cause is Cause.DISK_FULL


def test_what_is_missing_from_the_cache_is_not_taken_for_a_hub_that_does_not_answer() -> None:
    """Word for word what huggingface_hub 2.4 raises with HF_HUB_OFFLINE=1."""
    said = (
        "An error happened while trying to locate the file on the Hub and we cannot find the requested files in the "
        "local cache. Please check your connection and try again or make sure your Internet connection is on."
    )
    away = RankEnd(0, 5.0, "huggingface_hub.errors.LocalEntryNotFoundError", message=said)
    offline = (
        "huggingface_hub.errors.OfflineModeIsEnabled: Cannot reach http://127.0.0.1:1/org/tiny/resolve/main/a.json: "
        "offline mode is enabled. To disable it, please unset the `HF_HUB_OFFLINE` environment variable."
    )
    refused = replace(away, chain=("httpx.ConnectError: [Errno 111] Connection refused",))
    assert diagnose([refused]).cause is Cause.NETWORK
    verdict = diagnose([replace(away, chain=(offline,))])
    assert (verdict.cause, verdict.root) == (Cause.USER_ERROR, "hub_offline")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("builtins.ValueError", "m"),
        ("builtins.KeyError", "'text'"),
        ("builtins.TypeError", "m"),
        ("builtins.FileNotFoundError", "[Errno 2] No such file or directory: '/data/x'"),
        ("huggingface_hub.errors.RepositoryNotFoundError", "404 Client Error."),
    ],
)
def test_what_is_wrong_before_the_first_step_comes_again_and_what_has_worked_may_work_again(
    kind: str, message: str
) -> None:
    end = raised(0, 1.0, kind, message)
    assert diagnose([replace(end, began=False)]).cause is Cause.USER_ERROR
    for begun in (replace(end, began=True), replace(end, began=None)):
        assert CLASSES[diagnose([begun]).cause] is CauseClass.TRANSIENT
    assert CLASSES[diagnose([replace(end, began=False)], trained_before=True).cause] is CauseClass.TRANSIENT


def test_a_module_that_is_missing_is_wrong_unless_it_was_there_before() -> None:
    end = raised(0, 1.0, "builtins.ModuleNotFoundError", "No module named 'x'", ("builtins.ImportError",))
    assert diagnose([replace(end, began=True)]).cause is Cause.USER_ERROR
    assert diagnose([replace(end, began=False)], trained_before=True).cause is Cause.STORAGE


def test_nobody_is_said_to_have_asked_for_an_end_that_nobody_asked_for() -> None:
    assert diagnose([raised(0, 1.0, "builtins.KeyboardInterrupt", "")]).cause is Cause.CRASHED


def test_the_root_is_the_same_in_the_next_attempt() -> None:
    first = raised(0, 1.0, message="row 512 of /scratch/job_71/part-3.bin at 0x7f3a2c is empty (pid 812)")
    second = raised(3, 9.0, message="row 512 of /scratch/job_72/part-3.bin at 0x7e0011 is empty (pid 99)")
    assert diagnose([first]).root == diagnose([second]).root
    assert diagnose([first]).root != diagnose([raised(0, 1.0, message="row is full")]).root
    assert normalised("x" * 9000) == "x" * 160


@pytest.mark.parametrize(
    "end",
    [
        echo(0, 1.0),
        raised(0, 1.0, "builtins.RuntimeError", "DataLoader worker (pid(s) 7, 8) exited unexpectedly"),
        raised(0, 1.0, "builtins.RuntimeError", "Pin memory thread exited unexpectedly"),
    ],
)
def test_whoever_is_gone_without_a_name_was_killed_for_memory_if_the_kernel_counted_one(end: RankEnd) -> None:
    verdict = diagnose([replace(end, oom_kills=2)])
    assert (verdict.cause, verdict.root) == (Cause.HOST_OOM, "host_oom")
    assert verdict.evidence.endswith("; the kernel killed 2 processes for memory")
    assert diagnose([end], oom_kills=1).cause is Cause.HOST_OOM
    named = raised(1, 2.0, message="CUDA error: uncorrectable ECC error encountered")
    assert diagnose([replace(end, oom_kills=1), named]).cause is Cause.GPU_FAULT


def test_where_the_root_was_is_told() -> None:
    end = replace(killed(1, 2.0, "SIGKILL"), phase="evaluating", step=40)
    assert "rank 1 was at step 40, in phase evaluating" in diagnose([end]).details
    assert (
        "rank 1 was before any step, in phase loading" in diagnose([replace(end, phase="loading", step=None)]).details
    )
