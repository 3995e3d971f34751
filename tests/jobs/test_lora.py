"""The program from a job file to an adapter, as users start it, without a supervisor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from jobs_samples import chat, write_lines
from ports import own_port

ROOT = Path(__file__).parents[2]


def write_job(directory: Path, base: Path, **training: object) -> Path:
    job = {
        "program": "jobs.lora",
        "run_dir": str(directory / "run"),
        "args": {
            "model": str(base),
            "data": "chat.jsonl",
            "eval_data": "eval.jsonl",
            "lora": {"r": 4, "lora_dropout": 0.1},
            "training": {"max_steps": 6, "per_device_train_batch_size": 2, "learning_rate": 1e-2, **training},
        },
    }
    write_lines(directory / "eval.jsonl", [chat("How are you?", "I am fine.")] * 3)
    path = directory / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def run(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("SUPERVISOR_")}
    environ |= {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, env=environ)


@pytest.mark.usefixtures("chat_file")
def test_one_process_trains_evaluates_and_leaves_an_adapter_that_loads(tiny_base: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs.lora", str(write_job(tmp_path, tiny_base))]
    first = run(command, tmp_path)
    assert first.returncode == 0, first.stderr
    assert "12 rows, 12 examples" in first.stderr
    assert first.stdout.count("'eval_loss'") == 6  # every tenth of six steps is every step
    assert json.loads((tmp_path / "run" / "pins.json").read_text())["pins"].keys() == {"model", "data", "eval_data"}

    from peft import AutoPeftModelForCausalLM

    model = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "run" / "final")
    assert any(parameter.any() for name, parameter in model.named_parameters() if "lora_B" in name)

    write_lines(tmp_path / "chat.jsonl", [chat("other", "data")])
    changed = run(command, tmp_path)
    assert changed.returncode == 2
    assert "args.data: chat.jsonl of chat.jsonl has changed since the run began" in changed.stderr
    assert "supervisor run --accept-changes" in changed.stderr


@pytest.mark.usefixtures("chat_file")
def test_two_processes_train_one_model_on_tokens_made_once(tiny_base: Path, tmp_path: Path) -> None:
    job = write_job(tmp_path, tiny_base, dataloader_num_workers=1, eval_steps=3, eval_on_start=True)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    done = run([*launch, "--main_process_port", str(own_port()), "-m", "jobs.lora", str(job)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("data: tokenised") == 2  # data and eval_data, by one of the two
    assert done.stdout.count("'eval_loss'") == 3
    assert "eval loss: " in done.stderr
    files = sorted(path.name for path in (tmp_path / "run" / "final").iterdir())
    assert files == ["README.md", "adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "jobs.lora: 0 arguments were given; call it as python -m jobs.lora JOB.yaml\n"),
        (["--none"], "jobs.lora: --none: No such file or directory; give the path of a readable job file\n"),
    ],
)
def test_a_wrong_call_says_how_to_call_it(tmp_path: Path, words: list[str], said: str) -> None:
    done = run([sys.executable, "-m", "jobs.lora", *words], tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", said)


def test_help_says_how_it_is_run(tmp_path: Path) -> None:
    done = run([sys.executable, "-m", "jobs.lora", "--help"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "supervisor run JOB.yaml" in done.stdout
