"""A merged model says what the adapted one says, also with what was trained besides the adapter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from worker_samples import tiny_base, tiny_lora

from supervisor.errors import JobError
from supervisor.worker.capture import ModelCapture
from supervisor.worker.exporting import FORMS
from supervisor.worker.merging import merge

IDS = torch.tensor([[1, 2, 3, 4]])


def checkpoint_of(model: Any, directory: Path) -> Path:
    """The files of a checkpoint that a merge reads."""
    capture = ModelCapture(model)
    directory.mkdir()
    for name, tensors in capture.files().items():
        save_file({key: t.detach().contiguous() for key, t in tensors.items()}, directory / name)
    (directory / "adapter_config.json").write_text(json.dumps(capture.adapter_config, default=str))
    return directory


def trained(**options: Any) -> Any:
    """An adapter that does something, and a norm of the base that was trained with it."""
    model = tiny_lora(**options)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight") and "layers" not in name:
            parameter.requires_grad_(requires_grad=True)
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


@pytest.mark.parametrize("task", ["CAUSAL_LM", None])
def test_it_says_the_same(tmp_path: Path, task: str | None) -> None:
    from transformers import AutoModelForCausalLM

    tiny_base().save_pretrained(tmp_path / "base")
    model = trained(task_type=task)
    checkpoint, target = checkpoint_of(model, tmp_path / "checkpoint"), tmp_path / "merged"
    assert (checkpoint / "extra.safetensors").exists()
    target.mkdir()
    remarks = FORMS["merged"](checkpoint, target, {"base": str(tmp_path / "base"), "revision": None})
    assert remarks == ["the base has no tokenizer that could be saved with it"]
    whole = AutoModelForCausalLM.from_pretrained(target).eval()
    with torch.no_grad():
        torch.testing.assert_close(whole(IDS).logits, model(IDS).logits, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(whole(IDS).logits, tiny_base().eval()(IDS).logits, atol=1e-2)


def test_a_base_that_is_quantised_or_not_there_is_refused(tmp_path: Path) -> None:
    tiny_base().save_pretrained(tmp_path / "base")
    checkpoint = checkpoint_of(trained(), tmp_path / "checkpoint")
    with pytest.raises(JobError, match="is not to be had"):
        merge(checkpoint, tmp_path, str(tmp_path / "nowhere"), None)
    path = tmp_path / "base" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(JobError, match=r"quantised \(gptq\)"):
        merge(checkpoint, tmp_path, str(tmp_path / "base"), None)


def test_a_base_of_the_hub_comes_from_the_cache_at_its_revision_while_the_hub_does_not_answer(tmp_path: Path) -> None:
    sha = "f" * 40
    repository = tmp_path / "hub" / "models--org--tiny"
    tiny_base().save_pretrained(repository / "snapshots" / sha)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("e" * 40)  # the branch has moved on since the run began
    checkpoint, target = checkpoint_of(trained(), tmp_path / "checkpoint"), tmp_path / "merged"
    target.mkdir()
    request = {"form": "merged", "checkpoint": str(checkpoint), "target": str(target), "base": "org/tiny"}
    done = subprocess.run(
        [sys.executable, "-m", "supervisor.worker.exporting"],
        input=json.dumps({**request, "revision": sha}),
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_ENDPOINT": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, json.loads(done.stdout)) == (
        0,
        {"remarks": ["the base has no tokenizer that could be saved with it"]},
    )
    assert (target / "model.safetensors").is_file()
    assert "Retry" not in done.stderr  # each question would be repeated for half a minute


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    small = LlamaConfig(vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    LlamaForCausalLM(small).save_pretrained(tmp_path / "base")
    checkpoint = checkpoint_of(trained(), tmp_path / "checkpoint")
    with pytest.raises(JobError, match="could not be merged"):
        merge(checkpoint, tmp_path, str(tmp_path / "base"), None)
