"""What is exported was verified, nothing is overwritten, and what cannot be had is said before anything is written."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from checkpoint_samples import RUN, commit_step, contents, tree
from harness import command

from supervisor.checkpoint.contents import ADAPTER, ADAPTER_CONFIG
from supervisor.checkpoint.parts import part_from_bytes
from supervisor.engine.commands.exporting import export
from supervisor.engine.state.given import Given
from supervisor.errors import JobError
from supervisor.journal import Journal


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with the checkpoints of steps 10 and 20."""
    made = tmp_path / "run"
    made.mkdir()
    Journal.open(made, time.time, "here").append("run_started", run_id=RUN, name="run", mathematics="m")
    for step in (10, 20):
        commit_step(made / "checkpoints", step)
    return made


def damage(run_dir: Path, step: int) -> None:
    path = run_dir / "checkpoints" / f"checkpoint-{step}" / ADAPTER
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_an_adapter_is_two_files_with_the_rights_of_other_files(run_dir: Path, tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        made = export(run_dir, {"adapter": tmp_path / "out" / "adapter"})
    finally:
        os.umask(mask)
    target = tmp_path / "out" / "adapter"
    assert made.as_json()["step"] == 20
    assert tree(target) == {name: contents(20)[name] for name in (ADAPTER_CONFIG, ADAPTER)}
    assert [(p.stat().st_mode & 0o777) for p in (target, target / ADAPTER)] == [0o755, 0o644]
    assert [p.name for p in target.parent.iterdir()] == ["adapter"]


def test_a_run_gives_its_newest_intact_one_and_says_what_it_passed_over(run_dir: Path, tmp_path: Path) -> None:
    assert export(run_dir, {"adapter": tmp_path / "newest"}).remarks == []
    damage(run_dir, 20)
    answer = command("export", str(run_dir), "--adapter", str(tmp_path / "a"))
    assert (answer.returncode, answer.stdout) == (0, f"{tmp_path / 'a'}\n")
    assert answer.stderr == (
        "checkpoint-10 was taken, the newest intact one; "
        "passed over: checkpoint-20 (adapter_model.safetensors: content changed)\n"
    )
    assert (tmp_path / "a" / ADAPTER).read_bytes() == contents(10)[ADAPTER]
    damage(run_dir, 10)
    with pytest.raises(JobError, match=r"no intact checkpoint \(checkpoint-20: adapter_model.safetensors: content"):
        export(run_dir, {"adapter": tmp_path / "b"})


def test_the_command_refuses_a_torn_one_with_the_reason(run_dir: Path, tmp_path: Path) -> None:
    damage(run_dir, 20)
    torn = run_dir / "checkpoints" / "checkpoint-20"
    answer = command("export", str(torn), "--adapter", str(tmp_path / "a"))
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "is torn: adapter_model.safetensors: content changed" in answer.stderr
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("what", ["missing", "empty", "stock"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, what: str) -> None:
    if what != "missing":
        (tmp_path / what).mkdir()
    if what == "stock":
        (tmp_path / what / "optimizer.pt").touch()
    with pytest.raises(JobError, match=r"is (torn|foreign): |there is no "):
        export(tmp_path / what, {"adapter": tmp_path / "a"})


@pytest.mark.parametrize("taken", ["full", "file", "link"])
def test_a_target_that_is_taken_is_left_alone(run_dir: Path, tmp_path: Path, taken: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = tree(tmp_path)
    with pytest.raises(JobError, match=taken):
        export(run_dir, {"adapter": tmp_path / taken})
    assert tree(tmp_path) == before


def test_an_empty_target_is_filled_and_two_forms_need_two(run_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(JobError, match="two forms"):
        export(run_dir, {"adapter": tmp_path / "a", "hf": tmp_path / "a" / "b"})
    export(run_dir, {"adapter": tmp_path / "a"})
    assert (tmp_path / "a" / ADAPTER).exists()


def test_what_is_not_in_a_form_is_said_before_anything_is_written(run_dir: Path, tmp_path: Path) -> None:
    final = run_dir / "final"
    final.mkdir()
    for name in (ADAPTER, ADAPTER_CONFIG):
        shutil.copy(run_dir / "checkpoints" / "checkpoint-20" / name, final / name)
    with pytest.raises(JobError, match="no checkpoint: optimizer"):
        export(final, {"adapter": tmp_path / "a", "hf": tmp_path / "b"})
    with pytest.raises(JobError, match="the name of its base model"):
        export(run_dir, {"adapter": tmp_path / "a", "merged": tmp_path / "b"})
    assert not (tmp_path / "a").exists()
    (final / ADAPTER).write_bytes((final / ADAPTER).read_bytes()[:-1])
    with pytest.raises(JobError, match=r"torn: adapter_model.safetensors: tensors take"):
        export(final, {"adapter": tmp_path / "a"})


def test_a_whole_model_has_no_adapter(tmp_path: Path) -> None:
    files = {name: data for name, data in contents(20).items() if not name.startswith("adapter")}
    files["model.safetensors"] = contents(20)[ADAPTER]
    commit_step(tmp_path / "c", 20, made_of=[part_from_bytes(name, data) for name, data in files.items()])
    with pytest.raises(JobError, match="whole model and no adapter"):
        export(tmp_path / "c" / "checkpoint-20", {"adapter": tmp_path / "a"})


def test_the_base_is_the_one_that_the_state_names_else_the_adapter_s() -> None:
    config = {"base_model_name_or_path": "c", "revision": "r"}
    named = [
        Given(Path("x"), None, state, config).base
        for state in ({"base": {"name": "s", "revision": "t"}}, {"base": {"name": None}}, {})
    ]
    assert named == [("s", "t"), ("c", "r"), ("c", "r")]
    assert Given(Path("x"), None, {"base": {"name": "s"}}, {**config, "revision": None}).base == ("s", None)


def test_a_base_that_the_cache_gave_is_asked_for_at_the_revision_that_the_adapter_names() -> None:
    """With the hub away the model's own name is a directory of the cache."""
    cached = {"base": {"name": "/home/me/.cache/huggingface/hub/models--c/snapshots/r", "revision": None}}
    assert Given(Path("x"), None, cached, {"base_model_name_or_path": "c", "revision": "r"}).base == ("c", "r")


def test_what_is_trained_besides_the_adapter_is_told(tmp_path: Path) -> None:
    more = {**contents(20), "extra.safetensors": contents(20)[ADAPTER]}
    commit_step(tmp_path / "c", 20, made_of=[part_from_bytes(name, data) for name, data in more.items()])
    made = export(tmp_path / "c" / "checkpoint-20", {"adapter": tmp_path / "a"})
    assert made.remarks == [
        "extra.safetensors (trained, but no part of the adapter) has no place in --adapter and --hf"
    ]


def test_a_refusal_of_the_process_with_torch_leaves_nothing(run_dir: Path, tmp_path: Path) -> None:
    """The sample's state holds no optimizer's groups: it is no Trainer's."""
    answer = command("export", str(run_dir), "--hf", str(tmp_path / "out" / "hf"), "--json")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "does not hold one whole optimizer" in answer.stderr
    assert json.dumps([p.name for p in (tmp_path / "out").iterdir()]) == "[]"
