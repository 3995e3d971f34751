"""`supervisor compare`: a run's checkpoints beside each other, measured on inputs that are new to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jobs_samples import chat, write_lines

ROOT = Path(__file__).parents[2]


def supervisor(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("SUPERVISOR_")}
    environ |= {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "supervisor", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, env=environ)


def compared(directory: Path, *arguments: str) -> dict[str, Any]:
    done = supervisor(directory, "compare", "run", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def refused(directory: Path, *arguments: str) -> str:
    done = supervisor(directory, "compare", "run", *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def trained(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run of six steps, evaluated at every second one, and a file of inputs."""
    directory = tmp_path_factory.mktemp("compared")
    write_lines(directory / "chat.jsonl", [chat(f"How are you, {i}?", f"I am fine {'!' * i}") for i in range(12)])
    write_lines(
        directory / "new.jsonl", [chat("How are you?", "I am fine.", "Thanks.", "Hello!"), chat("Bye.", "Bye!")]
    )
    job = {
        "program": "jobs.lora",
        "run_dir": "run",
        "args": {
            "model": str(tiny_base),
            "data": "chat.jsonl",
            "eval_data": "new.jsonl",
            "lora": {"r": 4},
            "training": {"max_steps": 6, "per_device_train_batch_size": 2, "learning_rate": 1e-2, "eval_steps": 2,
                         "per_device_eval_batch_size": 1},
        },
        "launch": {"processes_per_node": 1},
        "checkpoint": {"every": "2 steps", "snapshot": "2 steps", "keep_last": 9, "keep_best": {"metric": "eval_loss"}},
    }  # fmt: skip
    (directory / "job.yaml").write_text(yaml.safe_dump(job))
    done = supervisor(directory, "run", "job.yaml")
    assert done.returncode == 0, done.stderr
    return directory


def committed(directory: Path) -> list[int]:
    """Steps whose checkpoints are there: the last, and of those before what a slow disk did not have passed over."""
    steps = sorted(int(path.name.rpartition("-")[2]) for path in (directory / "run/checkpoints").glob("checkpoint-*"))
    assert len(steps) > 1
    assert set(steps) <= {2, 4, 6}
    return steps


def test_they_are_listed_with_what_the_program_measured_and_why_they_stay(trained: Path) -> None:
    told = compared(trained)
    assert [(one["step"], one["state"], one["metrics"]["eval_loss"]["step"]) for one in told["checkpoints"]] == [
        (step, "intact", step) for step in committed(trained)
    ]
    losses = {one["path"]: one["metrics"]["eval_loss"]["value"] for one in told["checkpoints"]}
    assert told["best"] == min(losses, key=lambda path: losses[path])
    assert told["by"] == "eval_loss"
    best = next(one for one in told["checkpoints"] if one["path"] == told["best"])
    assert "the best by eval_loss" in best["kept"]
    shown = supervisor(trained, "compare", "run").stdout
    assert f"supervisor export {told['best']} --adapter DIR" in shown
    assert "of the last 9" in shown


def test_on_new_inputs_each_loses_per_token_what_it_should(trained: Path, tiny_base: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from jobs.lora_chat import encode_chat

    first = committed(trained)[0]
    told = compared(trained, "--data", "new.jsonl", "--checkpoint", str(first), "--checkpoint", "checkpoint-6")
    assert [one["step"] for one in told["checkpoints"]] == [first, 6]
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    rows = [json.loads(line)["messages"] for line in (trained / "new.jsonl").read_text().splitlines()]
    examples = [example for row in rows for example in encode_chat(tokenizer, row)]
    for one in told["checkpoints"]:
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), trained / one["path"]).eval()
        summed, tokens = 0.0, 0
        for example in examples:
            ids, labels = torch.tensor([example.input_ids]), torch.tensor([example.labels])
            carrying = int((labels[:, 1:] != -100).sum())
            with torch.inference_mode():
                summed += float(model(input_ids=ids, labels=labels).loss) * carrying
            tokens += carrying
        assert told["tokens"] == tokens
        assert one["new"]["loss"] == pytest.approx(summed / tokens, rel=1e-4)
    losses = {one["path"]: one["new"]["loss"] for one in told["checkpoints"]}
    assert told["best"] == min(losses, key=lambda path: losses[path])
    assert all(one["new"]["loss"] < told["base"]["loss"] for one in told["checkpoints"]), "it learnt to say just this"


def test_what_cannot_be_measured_is_answered_with_a_remedy(trained: Path) -> None:
    assert "there is no file nothing.jsonl" in refused(trained, "--data", "nothing.jsonl")
    assert f"it has those of steps {', '.join(map(str, committed(trained)))}" in refused(trained, "--checkpoint", "5")
    assert "say how --data FILE is to be read" in refused(trained, "--text-field", "text")
    write_lines(trained / "odd.jsonl", [{"prompt": "Hello!"}])
    said = refused(trained, "--data", "odd.jsonl")
    assert "--data" in said
    assert "`prompt`" in said
    assert "--text-field or --messages-field" in said
    assert "args." not in said


def test_a_torn_one_is_passed_over_with_a_word(trained: Path) -> None:
    torn, *whole_ones = committed(trained)
    file = trained / "run" / "checkpoints" / f"checkpoint-{torn}" / "optimizer.safetensors"
    whole = file.read_bytes()
    file.write_bytes(bytes([whole[0], *(byte ^ 1 for byte in whole[1:])]))
    try:
        told = compared(trained, "--data", "new.jsonl")
    finally:
        file.write_bytes(whole)
    assert [(one["step"], one["state"], one["new"] is not None) for one in told["checkpoints"]] == [
        (torn, "torn", False),
        *((step, "intact", True) for step in whole_ones),
    ]
    assert told["checkpoints"][0]["reason"] == "optimizer.safetensors: content changed"
