"""What a job file's author reads when it cannot work, and what it becomes when it can."""

from pathlib import Path

import pytest
import yaml

from supervisor.errors import JobError
from supervisor.job import Auto, Job, Off, Seconds, Steps, load_job, resolved_yaml
from supervisor.job.file import dump, read_document

MINIMAL = "program: train.py\n"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "train.py").touch()
    return tmp_path


def load(here: Path, text: str, *overrides: str, file: str = "demo.yaml", **environ: str) -> Job:
    path = here / file
    path.write_text(text)
    return load_job(path, overrides, cwd=here, environ=environ)


def refusal(here: Path, text: str, *overrides: str, file: str = "demo.yaml") -> JobError:
    with pytest.raises(JobError) as caught:
        load(here, text, *overrides, file=file)
    return caught.value


def test_only_the_program_is_required(here: Path) -> None:
    job = load(here, MINIMAL)
    assert job.name == "demo"
    assert job.run_dir == here / "runs" / "demo"
    assert (job.checkpoint.every, job.checkpoint.snapshot, job.checkpoint.keep_last) == (Auto(), Auto(), 3)
    assert (job.recovery.grace, job.launch.processes_per_node) == (Seconds(30.0), "auto")


def test_a_whole_file_is_read_with_its_units(here: Path) -> None:
    text = """
program: train.py
name: night
run_dir: $SCRATCH/x/{name}
hooks: off
launch: {processes_per_node: 2, accelerate: {mixed_precision: bf16}, standby: off}
checkpoint:
  every: 10 min
  snapshot: 20 steps
recovery: {grace: 1.5 min}
slurm: {partition: low, time: 12:00:00}
args: {learning_rate: 1e-4}
env: {TOKENIZERS_PARALLELISM: false, MASK: 010, VERSION: 1.10}
"""
    job = load(here, text, SCRATCH="/scratch/me")
    assert job.run_dir == Path("/scratch/me/x/night")
    assert (job.hooks, job.launch.standby, job.launch.processes_per_node) == ("off", "off", 2)
    assert (job.checkpoint.every, job.checkpoint.snapshot) == (Seconds(600.0), Steps(20))
    assert job.recovery.grace == Seconds(90.0)
    assert job.slurm == {"partition": "low", "time": "12:00:00"}
    assert job.args == {"learning_rate": 1e-4}
    assert job.env == {"TOKENIZERS_PARALLELISM": "false", "MASK": "010", "VERSION": "1.10"}


@pytest.mark.parametrize(
    ("line", "where", "said"),
    [
        ("checkpoint:\n  keep_lasst: 3", 3, ["checkpoint.keep_lasst", "did you mean checkpoint.keep_last?", "every"]),
        ("keep_last: 3", 2, ["unknown key keep_last", "did you mean checkpoint.keep_last?"]),
        ("zzz: 3", 2, ["unknown key zzz", "allowed here: args, checkpoint"]),
        ("checkpoint: {keep_last: 1}", 2, ["checkpoint.keep_last: 1", "at least 2", "torn"]),
        ("checkpoint: {keep_last: '3'}", 2, ["checkpoint.keep_last: '3'", "whole number"]),
        ("checkpoint: {keep_last: true}", 2, ["checkpoint.keep_last: True"]),
        ("checkpoint: {every: 500}", 2, ["500 has no unit", "'500 steps'"]),
        ("checkpoint: {every: 0 steps}", 2, ["at least 1"]),
        ("checkpoint: {every: 0 s}", 2, ["longer than 0 s"]),
        ("checkpoint: {every: off}", 2, ["checkpoint.every", "'10 min'"]),
        ("checkpoint: {snapshot: 10 s}", 2, ["counted in steps"]),
        ("recovery: {grace: 5 parsecs}", 2, ["recovery.grace: '5 parsecs'", "s, min, h, d"]),
        ("launch: 3", 2, ["launch: 3", "a mapping"]),
        ("launch: {processes_per_node: 0}", 2, ["launch.processes_per_node: 0", "at least 1"]),
        ("hooks: yess", 2, ["hooks: 'yess'", "auto or off"]),
        ("env: {A: null}", 2, ["env.A: None", "plain text"]),
        ("env:\n  A: 1\n  B: [x]", 4, ["env.B"]),
        ("name: a b", 2, ["name: 'a b'", "1 to 64"]),
        ("run_dir: runs/{nmae}", 2, ["{nmae} stands for nothing", "{name}"]),
        ("run_dir: $NOWHERE/x", 2, ["$NOWHERE is not set"]),
        ("run_dir: ''", 2, ["empty path"]),
        ("args: 3", 2, ["args: 3", "a mapping, or a list"]),
        ("slurm: [a]", 2, ["slurm: ['a']"]),
        ("program: again.py", 2, ["program stands twice, first on line 1"]),
        ("launch: {nodes: 1, nodes: 1}", 2, ["launch.nodes stands twice"]),
        ("\tlaunch: 3", 2, ["a tab where YAML wants spaces"]),
        ("launch: [", 3, ["not YAML"]),
        ("a: !!python/object:os.system x", 2, ["the tag !!python/object:os.system"]),
        ("? [a]\n: 3", 2, ["a key that is no word"]),
        ("---\nb: 1", 2, ["not YAML"]),
        ("a: \x01", 2, ["not allowed"]),
    ],
)
def test_what_cannot_work_is_answered_with_line_key_and_remedy(
    here: Path, line: str, where: int, said: list[str]
) -> None:
    error = refusal(here, f"{MINIMAL}{line}\n")
    assert error.where == f"{here / 'demo.yaml'}:{where}"
    for part in said:
        assert part in str(error)


def test_every_wrong_key_is_listed_behind_the_first(here: Path) -> None:
    error = refusal(here, f"{MINIMAL}lunch: 1\nhooks: 7\n")
    assert "unknown key lunch; did you mean launch?" in str(error)
    assert f"(also wrong: hooks, {here / 'demo.yaml'}:3)" in str(error)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("- a\n", "no mapping"),
        ("word\n", "no mapping"),
        ("name: x\n", "program is missing"),
    ],
)
def test_a_file_without_a_job_says_so(here: Path, text: str, said: str) -> None:
    error = refusal(here, text)
    assert said in str(error)
    assert error.where == f"{here / 'demo.yaml'}:1"


def test_bytes_that_are_no_text_are_named_by_line(here: Path) -> None:
    (here / "demo.yaml").write_bytes(b"program: t\n# caf\xe9\n")
    with pytest.raises(JobError, match=r"demo\.yaml:2: not UTF-8"):
        load_job(here / "demo.yaml")


def test_a_missing_file_and_a_directory_are_refused(here: Path) -> None:
    with pytest.raises(JobError, match="No such file"):
        load_job(here / "none.yaml")
    with pytest.raises(JobError, match="Is a directory"):
        load_job(here)


def test_nesting_and_aliases_without_end_are_refused(here: Path) -> None:
    assert "nested too deeply" in str(refusal(here, f"a: {'[' * 5000}"))
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    assert "more than" in str(refusal(here, bomb))
    assert "nested too deeply" in str(refusal(here, "a: &a [*a]\n"))


def test_sections_of_comments_only_are_their_defaults(here: Path) -> None:
    assert load(here, f"{MINIMAL}launch:\n  # nodes: 2\nenv:\n") == load(here, MINIMAL)


def test_anchors_and_merges_work(here: Path) -> None:
    job = load(here, f"{MINIMAL}slurm: &s {{a: 1, b: 2}}\nargs: {{<<: *s, b: 3}}\n")
    assert job.args == {"a": 1, "b": 3}


def test_overrides_are_set_and_checked_like_the_file(here: Path) -> None:
    job = load(
        here, MINIMAL, "checkpoint.keep_last=5", "args.lora.r=16", "args.lora.r=32", "env.N=010", "launch.standby=off"
    )
    assert job.checkpoint.keep_last == 5
    assert job.args == {"lora": {"r": 32}}
    assert job.env == {"N": "010"}
    for override, where, said in [
        ("checkpoint.keep_lasst=5", "--set checkpoint.keep_lasst", "did you mean checkpoint.keep_last?"),
        ("checkpont.keep_last=5", "--set checkpont.keep_last", "did you mean checkpoint?"),
        ("checkpoint={keep_last: 1}", "--set checkpoint", "at least 2"),
        ("name.x=1", "--set name.x", "name is no mapping"),
        ("name=[", "--set name", "not YAML"),
    ]:
        error = refusal(here, "name: demo\nprogram: train.py\n", override)
        assert error.where == where
        assert said in str(error)
    assert "write --set a.b=value" in str(refusal(here, MINIMAL, "keep_last"))


def test_an_override_forgets_the_line_it_replaces(here: Path) -> None:
    error = refusal(here, f"{MINIMAL}launch:\n  nodes: 1\n", "launch={nodes: 0}")
    assert error.where == "--set launch"


def test_the_stem_becomes_a_usable_name(here: Path) -> None:
    assert load(here, MINIMAL, file="my first job.yaml").name == "my-first-job"
    assert load(here, MINIMAL, file="….yaml").name == "run"


def test_the_resolved_file_is_the_same_job(here: Path) -> None:
    text = """
program: train.py
args: {lr: 1e-4, text: '1e-4', when: 12:00:00, flag: 'on', none: null, deep: {x: [1, 2.5]}}
env: {A: '010', B: 'no', C: ''}
checkpoint: {every: 90 s, snapshot: off}
"""
    job = load(here, text)
    resolved = here / "elsewhere.yaml"
    resolved.write_text(resolved_yaml(job))
    again = load_job(resolved, cwd=here, environ={})
    assert again == job
    assert again.checkpoint.snapshot == Off()
    assert resolved_yaml(again) == resolved_yaml(job)


def test_other_readers_take_the_resolved_file_for_the_same_values() -> None:
    values = {"a": "010", "b": "12:00:00", "c": "1e-4", "d": "2024-01-01", "e": "off", "f": 1e-5}
    assert yaml.safe_load(dump(values)) == values


def test_marks_know_list_items(here: Path) -> None:
    (here / "x.yaml").write_text("a:\n- 1\n- b: 2\n")
    document = read_document(here / "x.yaml")
    assert document.where(("a", 1, "b")) == f"{here / 'x.yaml'}:3"
    assert document.where(("a", 7)) == f"{here / 'x.yaml'}:1"
