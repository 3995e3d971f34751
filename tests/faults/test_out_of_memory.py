"""Memory runs out, and the run goes on with what fits: the same steps, of the same samples, to the same result."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from harness import PROGRAMS, Run, command, redone, until
from nodes import Nodes
from small_runs import causes, changes, difference, finished, losses, run_of, steps


def assert_as_if_small_from_the_start(run: Run, small: Run, samples: int, most: float) -> None:
    """The same steps of the same rows; losses and adapter as near as rounding brings them."""
    assert steps(run, samples) == steps(small, samples)
    assert len(losses(run)) == len(losses(small))
    apart = max(abs(a - b) / b for a, b in zip(losses(run), losses(small), strict=True))
    print(f"losses {apart:.1e}, adapter {difference(run, small):.1e} apart")
    assert apart < most
    assert difference(run, small) < most


#: What sums of float32 in another order are apart after some steps of AdamW; see tests/bench/out_of_memory.py.
ROUNDING = 1e-4


def test_one_rank_of_two_runs_out_twice_and_no_settled_step_is_lost(tmp_path: Path) -> None:
    run = finished(run_of(tmp_path / "run", {"fits": 1, "ranks": [1], "from_sample": 12}, processes=2))
    assert causes(run) == ["gpu_oom", "gpu_oom", "finished"]
    assert changes(run) == [{"micro_batch": 2}, {"micro_batch": 1}]
    assert redone(run) == [0, 0]
    assert run.journal("training_started")[1].fields["step"] == 3
    detail = "micro-batch 2 instead of 4, accumulation 2 instead of 1: the same global batch of 8"
    assert run.journal("adapted")[0].fields["detail"] == detail
    told = command("why", str(run.run_dir)).stdout
    assert f"then       started again with other settings: {detail}" in told
    assert "out of GPU memory (gpu_oom)" in told
    assert "micro-batch 1 instead of 2" in command("status", str(run.run_dir)).stdout

    small = finished(run_of(tmp_path / "small", {}, processes=2, batch=1, accumulate=4))
    assert causes(small) == ["finished"]
    assert_as_if_small_from_the_start(run, small, 8, ROUNDING)


def test_from_the_first_step_on_the_result_is_bit_for_bit_that_of_a_small_batch(tmp_path: Path) -> None:
    args = {"dropout": 0.2, "rows": 30}  # epochs with a last step that is not whole
    run = finished(run_of(tmp_path / "run", {"fits": 2}, **args, late=True, accumulate=2))
    small = finished(run_of(tmp_path / "small", {}, **args, batch=2, accumulate=4))
    assert changes(run) == [{"micro_batch": 2}]
    assert [r.fields["step"] for r in run.journal("training_started")] == [0, 0]
    assert run.digests()["adapter"] == small.digests()["adapter"]
    assert losses(run) == losses(small)


def test_it_is_remembered_on_all_nodes_and_goes_with_other_numbers_of_them(tmp_path: Path) -> None:
    one = run_of(tmp_path / "run", {"fits": 2, "from_sample": 8, "hold": 10})
    run = Nodes(one.base, one.args, one.job, one.program)
    run.out.mkdir()
    (run.out / "hold").touch()
    run.start()
    until(lambda: len(list(run.out.glob("held-*"))) == 2, "rank that holds")
    run.signal_tree(signal.SIGTERM)
    assert run.codes() == [75, 75], run.said()
    (run.out / "hold").unlink()
    run.count, run.members = 1, {}
    finished(run)
    assert causes(run) == ["gpu_oom", "preempted", "finished"]
    assert changes(run) == [{"micro_batch": 2}]
    small = finished(run_of(tmp_path / "small", {}, processes=2, batch=2, accumulate=2))
    assert_as_if_small_from_the_start(run, small, 8, ROUNDING)


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model and data that are as small as they can be."""
    from jobs.demo_assets import Recipe, make

    directory = tmp_path_factory.mktemp("assets") / "tiny"
    size = {"vocabulary": 320, "hidden": 32, "layers": 2, "steps": 1, "batch": 2, "length": 32}
    make(directory, Recipe(train_pairs=48, eval_pairs=8, **size))
    return directory


def lora_run(base: Path, assets: Path, gpu: dict[str, Any], **training: Any) -> Run:
    """A run of `jobs.lora` with two ranks."""
    run = run_of(base, gpu, processes=2, program=str(PROGRAMS / "small_gpu_lora.py"))
    run.job["args"] = {
        "model": str(assets / "base"),
        "data": str(assets / "train.jsonl"),
        "eval_data": str(assets / "eval.jsonl"),
        "max_length": 64,
        "lora": {"r": 4},
        "training": {"max_steps": 6, "logging_steps": 1, "eval_steps": 3, **training},
    }
    return run


def test_jobs_lora_goes_on_as_well(tmp_path: Path, assets: Path) -> None:
    gpu = {"fits": 2, "ranks": [0], "from_sample": 8}
    run = finished(lora_run(tmp_path / "run", assets, gpu, per_device_train_batch_size=4))
    assert causes(run) == ["gpu_oom", "finished"]
    assert changes(run) == [{"micro_batch": 2}]
    assert redone(run) == [0]
    halves = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    small = finished(lora_run(tmp_path / "small", assets, {}, **halves))
    assert_as_if_small_from_the_start(run, small, 8, ROUNDING)


def test_trls_trainer_goes_on_as_well(tmp_path: Path) -> None:
    run = finished(run_of(tmp_path / "run", {"fits": 2, "from_sample": 12}, trl=True))
    assert causes(run) == ["gpu_oom", "finished"]
    assert changes(run) == [{"micro_batch": 2}]
    assert redone(run) == [0]
    small = finished(run_of(tmp_path / "small", {}, trl=True, batch=2, accumulate=2))
    assert_as_if_small_from_the_start(run, small, 4, ROUNDING)


def test_where_one_sample_does_not_fit_activations_are_computed_again_and_nothing_else_changes(tmp_path: Path) -> None:
    args = {"batch": 1, "accumulate": 2, "max_steps": 5, "dropout": 0.2}
    run = finished(run_of(tmp_path / "run", {"fits": 0, "from_sample": 4}, **args))
    assert causes(run) == ["gpu_oom", "finished"]
    assert changes(run) == [{"checkpointing": True}]
    large = finished(run_of(tmp_path / "large", {}, **args))
    assert difference(run, large) == 0


def test_what_never_fits_is_given_up_with_the_numbers_and_tried_anew_when_it_is_forgiven(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", {"fits": -1}, batch=2)
    assert run.run() == 3
    assert changes(run) == [{"micro_batch": 1}, {"micro_batch": 1, "checkpointing": True}]
    reason = run.journal("run_gave_up")[-1].fields["reason"]
    for words in ("Tried to allocate 1.00 GiB", "micro-batch 1, accumulation 2, with gradient checkpointing", "4bit"):
        assert words in reason
    run.job["env"]["SMALL_GPU"] = "{}"  # a larger one
    assert run.run("--forgive") == 0, run.said()
    assert run.journal("training_started")[-1].fields["step"] == 0
    large = finished(run_of(tmp_path / "large", {}, batch=2))
    assert run.digests()["adapter"] == large.digests()["adapter"]


def test_on_oom_stop_stops_at_the_first(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", {"fits": 2})
    run.job["recovery"] = {"on_oom": "stop"}
    assert run.run() == 3
    assert (causes(run), changes(run)) == (["gpu_oom"], [])
    assert "micro-batch 2 instead of 4" in run.journal("run_gave_up")[-1].fields["reason"]


def test_epochs_that_would_become_longer_are_no_way_out(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", {"fits": 2}, rows=15, **{"drop-last": True})
    assert run.run() == 2
    assert causes(run) == ["gpu_oom", "user_error"]
    assert "dataloader_drop_last" in run.said()


def test_a_program_that_finds_its_batch_by_itself_is_left_alone(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", {"fits": -1}, find=True, batch=1)
    assert run.run() == 3
    assert changes(run) == []


def test_loaders_that_the_kernel_kills_become_fewer_and_nothing_else_changes(tmp_path: Path) -> None:
    args = {"dropout": 0.2, "max_steps": 5}
    run = finished(run_of(tmp_path / "run", {}, workers=5, **args, **{"kill-loader-above": 1}))
    assert causes(run) == ["host_oom", "host_oom", "finished"]
    assert changes(run) == [{"loader_workers": 2, "pin_memory": False}, {"loader_workers": 1, "pin_memory": False}]
    without = finished(run_of(tmp_path / "without", {}, **args))
    assert run.digests()["adapter"] == without.digests()["adapter"]
