"""A run keeps the model and the data that it began with, or says what changed."""

import json
from pathlib import Path

import pytest
from jobs_samples import chat, write_lines

from jobs.lora_args import LoraArgs
from jobs.lora_pins import Pin, fingerprint, hold_pins, read_pins
from supervisor.errors import JobError
from supervisor.job import base_doubt

OLD, NEW = "1" * 40, "2" * 40


class Hub:
    """Answers like a hub, and counts the questions."""

    def __init__(self, sha: str = OLD) -> None:
        self.sha, self.asked = sha, []

    def __call__(self, kind: str, name: str, revision: str | None) -> str:
        self.asked.append((kind, name, revision))
        return self.sha


def unreachable(kind: str, name: str, revision: str | None) -> str:
    raise JobError("the hub cannot be reached", "connect")


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoraArgs:
    """A job with a local model and local data, named relative to the current directory."""
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_bytes(bytes(9 << 20))
    write_lines(tmp_path / "data.jsonl", [chat("a", "b")])
    return LoraArgs(model="base", data="data.jsonl")


def hold(args: LoraArgs, resolve=unreachable, accept_changes: bool = False) -> dict[str, Pin]:
    return hold_pins(args, Path("run"), resolve, accept_changes=accept_changes)


def test_what_has_not_changed_goes_on(local: LoraArgs) -> None:
    first = hold(local)
    written = Path("run/pins.json").read_bytes()
    assert hold(local) == first == read_pins(Path("run/pins.json"))
    assert Path("run/pins.json").read_bytes() == written
    assert sorted(first["model"].files) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("file", "content", "change"),
    [
        ("data.jsonl", b"{}", "args.data: data.jsonl of data.jsonl has changed"),
        ("base/config.json", b'{"a": 1}', "args.model: config.json of base has changed"),
        ("base/model.safetensors", bytes(9 << 20)[:-1] + b"x", "args.model: model.safetensors of base has changed"),
        ("base/model.safetensors", bytes((9 << 20) - 1), "args.model: model.safetensors of base has changed"),
        ("base/tokenizer.json", b"{}", "args.model: tokenizer.json is new in base"),
        ("base/config.json", None, "args.model: config.json of base is gone"),
    ],
)
def test_a_changed_file_is_named_and_can_be_accepted(
    file: str, content: bytes | None, change: str, local: LoraArgs, caplog: pytest.LogCaptureFixture
) -> None:
    hold(local)
    Path(file).unlink() if content is None else Path(file).write_bytes(content)
    with pytest.raises(JobError) as caught:
        hold(local)
    assert caught.value.problem == f"{change} since the run began"
    assert "supervisor run --accept-changes" in caught.value.remedy
    assert caplog.messages == []
    accepted = hold(local, accept_changes=True)
    assert caplog.messages == [f"accepted: {change} since the run began"]
    assert hold(local) == accepted


def test_a_base_without_a_revision_is_doubted_unless_its_files_are_the_pinned_ones(local: LoraArgs) -> None:
    run_dir, base = Path("run"), Path("base").absolute()
    assert base_doubt(run_dir, base) == f"no revision of {base} is known"
    hold(local)
    assert base_doubt(run_dir, base) is None
    (base / "config.json").write_text('{"a": 1}')
    assert base_doubt(run_dir, base) == f"config.json of {base} has changed since the run began"
    (run_dir / "pins.json").write_text("{")
    assert base_doubt(run_dir, base) == f"no revision of {base} is known"


def test_a_moved_model_with_the_same_content_is_the_same(local: LoraArgs) -> None:
    hold(local)
    Path("base").rename("elsewhere")
    hold(local.model_copy(update={"model": "elsewhere"}))


def test_evaluation_data_may_come_later_and_is_held_from_then_on(local: LoraArgs) -> None:
    hold(local)
    write_lines(Path("eval.jsonl"), [chat("c", "d")])
    with_eval = local.model_copy(update={"eval_data": "eval.jsonl"})
    hold(with_eval)
    write_lines(Path("eval.jsonl"), [chat("c", "e")])
    with pytest.raises(JobError, match=r"args\.eval_data"):
        hold(with_eval)


def test_a_hub_model_keeps_its_commit_without_asking_again(tmp_path: Path) -> None:
    args = LoraArgs(model="org/model", data="org/data", data_revision="v1")
    hub = Hub(OLD)
    first = hold_pins(args, tmp_path, hub, accept_changes=False)
    assert sorted(hub.asked) == [("dataset", "org/data", "v1"), ("model", "org/model", None)]
    assert first["model"].revision == OLD
    assert hold_pins(args, tmp_path, unreachable, accept_changes=False) == first


def test_another_name_or_revision_of_the_hub_is_a_change(tmp_path: Path) -> None:
    args = LoraArgs(model="org/model", data="org/data")
    hold_pins(args, tmp_path, Hub(OLD), accept_changes=False)
    for update, change in (
        ({"model_revision": "v2"}, "org/model was commit 1111111111 and is 2222222222"),
        ({"model": "org/other"}, "org/model has become org/other"),
    ):
        with pytest.raises(JobError, match=change):
            hold_pins(args.model_copy(update=update), tmp_path, Hub(NEW), accept_changes=False)
    tagged = args.model_copy(update={"model_revision": "v1"})  # a tag of the same commit
    assert hold_pins(tagged, tmp_path, Hub(OLD), accept_changes=False)["model"].asked == "v1"


def test_a_torn_pins_file_is_named_and_not_overwritten(local: LoraArgs) -> None:
    hold(local)
    for damage in ("{", "[]", json.dumps({"pins": {"model": {"colour": 1}}})):
        Path("run/pins.json").write_text(damage)
        with pytest.raises(JobError, match="not a pins file") as caught:
            hold(local)
        assert caught.value.where == "run/pins.json"


def test_data_is_read_whole_and_models_at_their_edges(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(bytes(9 << 20))
    before = fingerprint(tmp_path, "model"), fingerprint(tmp_path, "dataset")
    with path.open("r+b") as file:
        file.seek(4 << 20)
        file.write(b"x")
    after = fingerprint(tmp_path, "model"), fingerprint(tmp_path, "dataset")
    assert before[0] == after[0]
    assert before[1] != after[1]


def test_readme_and_hidden_files_are_no_part_of_a_model(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    for name in ("README.md", ".gitattributes", ".cache/x", "config.json"):
        (tmp_path / name).write_text("x")
    assert list(fingerprint(tmp_path, "model")) == ["config.json"]
