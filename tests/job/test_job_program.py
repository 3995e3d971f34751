"""The program that a job names is found without importing anything, and called as the job says."""

import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.errors import JobError
from supervisor.job import Job, load_job, program_argv
from supervisor.job.program import find_program


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "train.py").touch()
    package = tmp_path / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "run.py").touch()
    (package / "lib").mkdir()
    (package / "lib" / "__init__.py").touch()
    (package / "app").mkdir()
    (package / "app" / "__init__.py").touch()
    (package / "app" / "__main__.py").touch()
    return tmp_path


@pytest.mark.parametrize("program", ["train.py", "./train.py", "mine/run.py", "mine.run", "mine.app", "json.tool"])
def test_programs_that_are_there_are_found(here: Path, program: str) -> None:
    find_program(program, "job.yaml:1", here)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("trian.py", "did you mean"),
        ("nowhere/x.py", "a relative path starts from"),
        ("mine", "without __main__"),
        ("mine.lib", "without __main__"),
        ("mine.rnu", "did you mean mine.run?"),
        ("mine.zzzzz", "the package mine is there"),
        ("mine.run.deeper", "mine.run is a module, not a package"),
        ("no_such_thing_at_all", "is it installed"),
        ("a-b", "is no module"),
        ("..", "is no module"),
        ("train.py ", "is no module"),
    ],
)
def test_programs_that_are_not_are_refused_with_a_hint(here: Path, program: str, said: str) -> None:
    with pytest.raises(JobError) as caught:
        find_program(program, "job.yaml:1", here)
    assert said in str(caught.value)
    assert caught.value.where == "job.yaml:1"


def test_a_directory_is_no_script(here: Path) -> None:
    with pytest.raises(JobError, match="there is no file mine/"):
        find_program("mine/", "job.yaml:1", here)


def test_options_are_made_of_a_mapping() -> None:
    args = {"lr": 1e-4, "fp16": True, "tf32": False, "seed": None, "ids": [1, "b"], "kw": {"a": 1}, "word": "False"}
    expected = ["--lr", "0.0001", "--fp16", "--ids", "1", "b", "--kw"]
    assert program_argv(Job(program="t.py", args=args)) == [*expected, '{"a": 1}', "--word", "False"]


def test_a_list_is_passed_as_it_is() -> None:
    assert program_argv(Job(program="t.py", args=["--lr", 3, "x y"])) == ["--lr", "3", "x y"]


def test_our_own_program_gets_no_options() -> None:
    assert program_argv(Job(program="jobs.lora", args={"model": "m"})) == []


LORA = """program: jobs.lora
args:
  model: some/model
  data: some/data
  lora:
    r: 8
"""


def test_a_typo_in_our_own_programs_section_names_line_and_nearest_key(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_text(LORA + "    lora_alhpa: 16\n")
    with pytest.raises(JobError) as caught:
        load_job(path, cwd=tmp_path)
    assert caught.value.where == f"{path}:7"
    assert "args.lora.lora_alhpa" in str(caught.value)
    assert "lora_alpha" in str(caught.value).replace("lora_alhpa", "")


def test_our_own_program_takes_a_mapping_only(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_text("program: jobs.lora\nargs: [--model, x]\n")
    with pytest.raises(JobError, match="takes a mapping, not a list"):
        load_job(path, cwd=tmp_path)


def test_loading_a_job_imports_nothing_heavy(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_text(LORA)
    code = (
        "import sys; from pathlib import Path; from supervisor.job import load_job; load_job(Path(sys.argv[1]));"
        "print(sorted({'torch', 'transformers', 'peft', 'accelerate', 'datasets'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True).stdout
    assert said == "[]\n"
