"""What cannot work is refused before anything starts: exit code 2, and a message that names the thing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import PROGRAMS

TINY = str(PROGRAMS / "tiny_trainer.py")
Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path) -> Refused:
    """Run a job that has to be refused, and give what was said."""

    def run(job: dict[str, Any] | str, *flags: str, **environment: str) -> str:
        path = tmp_path / "job.yaml"
        path.write_text(job if isinstance(job, str) else yaml.safe_dump({"run_dir": str(tmp_path / "run"), **job}))
        answer = subprocess.run(
            [sys.executable, "-m", "supervisor", "run", str(path), *flags],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            cwd=tmp_path,
            env={**os.environ, **environment},
        )
        assert answer.returncode == 2, answer
        assert answer.stdout == ""
        assert "Traceback" not in answer.stderr
        return answer.stderr

    return run


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("program: x.py\ncheckpont: {keep_last: 3}\n", ["job.yaml:2", "checkpont", "did you mean checkpoint"]),
        ("program: x.py\ncheckpoint:\n  kep_last: 3\n", ["job.yaml:3", "checkpoint.kep_last", "keep_last"]),
        ("program: x.py\ncheckpoint:\n  keep_last: many\n", ["job.yaml:3", "checkpoint.keep_last", "many"]),
        ("program: x.py\ncheckpoint:\n  keep_last: 1\n", ["job.yaml:3", "checkpoint.keep_last", "2"]),
        ("name: demo\n", ["program"]),
        ("program: no_such_script.py\n", ["program", "no_such_script.py"]),
        ("program: jobs.lorra\n", ["jobs.lorra", "did you mean jobs.lora"]),
        ("program: [x.py\n", ["job.yaml:"]),
    ],
)
def test_a_job_file_that_cannot_work_is_refused_with_key_and_line(
    refused: Refused, tmp_path: Path, job: str, words: list[str]
) -> None:
    (tmp_path / "x.py").touch()
    said = refused(job)
    assert [word for word in words if word not in said] == [], said
    assert {p.name for p in tmp_path.iterdir()} == {"job.yaml", "x.py"}


def test_a_missing_job_file_is_named(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "supervisor", "run", str(tmp_path / "no.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert "no.yaml" in answer.stderr


def test_an_override_is_checked_like_the_file(refused: Refused) -> None:
    said = refused({"program": TINY}, "--set", "checkpoint.keep_lst=4")
    assert "checkpoint.keep_lst" in said
    assert "keep_last" in said


def test_a_run_directory_that_cannot_be_made_or_is_somebody_elses_is_refused(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert str(tmp_path / "file" / "run") in refused({"program": TINY, "run_dir": str(tmp_path / "file" / "run")})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    said = refused({"program": TINY, "run_dir": str(tmp_path / "mine")})
    assert "is not empty and holds no run" in said
    assert "thesis.tex" in said
    assert {p.name for p in (tmp_path / "mine").iterdir()} == {"thesis.tex"}


def test_a_run_directory_without_the_right_to_write_is_refused(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump({"program": TINY, "run_dir": str(locked)}))
    command = [sys.executable, "-m", "supervisor", "run", str(job)]
    if os.getuid() == 0:  # who writes everywhere, but for capabilities
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert answer.returncode == 2, answer
    assert f"{locked} is not writable" in answer.stderr


def test_more_processes_than_gpus_are_refused(refused: Refused) -> None:
    said = refused({"program": TINY, "launch": {"processes_per_node": 3}}, CUDA_VISIBLE_DEVICES="0,1")
    assert "launch.processes_per_node is 3, this machine has 2 GPUs" in said


def lora(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """A job of ours whose model and data are there."""
    model = tmp_path / "model"
    model.mkdir(exist_ok=True)
    (model / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    (model / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    data = tmp_path / "data.jsonl"
    if not data.exists():
        data.write_text('{"text": "a"}\n{"text": "b"}\n')
    args = {"model": str(model), "data": str(data), "text_field": "text", "training": {"max_steps": 2}, **changes}
    return {"program": "jobs.lora", "args": args}


def test_data_that_is_missing_or_broken_is_named_with_its_line(refused: Refused, tmp_path: Path) -> None:
    assert "nowhere.jsonl" in refused(lora(tmp_path, data=str(tmp_path / "nowhere.jsonl")))
    assert not (tmp_path / "run").exists()
    (tmp_path / "data.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n{"text": \n')
    said = refused(lora(tmp_path))
    assert "data.jsonl:3: not JSON" in said


def test_a_model_path_that_is_no_model_is_named(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = refused(lora(tmp_path, model=str(tmp_path / "empty")))
    assert str(tmp_path / "empty") in said
    assert "config.json" in said
