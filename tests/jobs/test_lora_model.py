"""The base model and its adapter: dtypes, pins, and what does not fit."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.lora_args import LoraArgs
from jobs.lora_model import base_dtype, load_model, load_tokenizer, positions_of
from jobs.lora_pins import Pin
from supervisor.errors import JobError

#: Runs where nobody answers at the hub's address; its cache holds org/tiny at one commit.
OFFLINE = """
import json, sys
from types import SimpleNamespace
import torch
from jobs.lora_args import LoraArgs
from jobs.lora_model import load_model, load_tokenizer
from jobs.lora_pins import Pin, ask_hub
from supervisor.errors import JobError

sha = ask_hub("model", "org/tiny", None)
try:
    ask_hub("dataset", "org/none", None)
except JobError as error:
    unknown = str(error)
args, pin = LoraArgs(model="org/tiny", data="x.jsonl"), Pin("org/tiny", revision=sha)
tokens = len(load_tokenizer(args, pin))
settings = SimpleNamespace(bf16=False, fp16=False, gradient_checkpointing=False, device=torch.device("cpu"))
written = load_model(args, pin, settings).peft_config["default"]
print(json.dumps([sha, unknown, tokens, written.base_model_name_or_path, written.revision]))
"""


def settings(**changes: Any) -> Any:
    import torch

    plain = {"bf16": False, "fp16": False, "gradient_checkpointing": False, "device": torch.device("cpu")}
    return SimpleNamespace(**{**plain, **changes})


def load(base: Path, changes: dict[str, Any] | None = None, **section: Any) -> Any:
    args = LoraArgs.model_validate({"model": str(base), "data": "x.jsonl", **section})
    return load_model(args, Pin(str(base), files={"config.json": "1"}), settings(**(changes or {})))


def test_only_the_adapter_is_trained_and_it_sits_on_every_linear_layer(tiny_base: Path) -> None:
    model = load(tiny_base, lora={"r": 4})
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 7 * 2  # A and B, of seven projections, in two layers
    assert all("lora_" in name for name in trained)
    assert positions_of(model) == 64


def test_the_adapter_names_its_base_in_a_way_that_is_found_from_anywhere(
    tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_base.parent)
    assert load(Path("base")).peft_config["default"].base_model_name_or_path == str(tiny_base)


def test_the_adapters_configuration_has_no_order_of_its_own(tiny_base: Path) -> None:
    """peft keeps names in sets, which every process writes in another order."""
    written = load(tiny_base, lora={"target_modules": ["v_proj", "q_proj"]}).peft_config["default"]
    assert written.target_modules == ["q_proj", "v_proj"]


def test_weights_are_in_the_dtype_that_training_computes_in() -> None:
    import torch

    assert base_dtype(bf16=True, fp16=False, on_cpu=False) is torch.bfloat16
    assert base_dtype(bf16=False, fp16=True, on_cpu=False) is torch.float16
    assert base_dtype(bf16=False, fp16=False, on_cpu=True) is torch.float32
    assert base_dtype(bf16=False, fp16=False, on_cpu=False) == "auto"


def test_a_bfloat16_base_has_a_float32_adapter(tiny_base: Path) -> None:
    import torch

    model = load(tiny_base, {"bf16": True})
    dtypes = {parameter.requires_grad: parameter.dtype for parameter in model.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}


def test_gradient_checkpointing_reaches_the_adapter(tiny_base: Path) -> None:
    import torch

    model = load(tiny_base, {"gradient_checkpointing": True})
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    ids = torch.arange(8).view(1, 8)
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if "lora_B" in name)


def test_a_lora_that_does_not_fit_the_model_is_refused(tiny_base: Path) -> None:
    with pytest.raises(JobError, match=r"args.lora: .*no_such_layer"):
        load(tiny_base, lora={"target_modules": ["no_such_layer"]})


def test_weights_that_are_cut_off_are_refused(tiny_base: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "base")
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(JobError, match=r"args.model: the model of .* cannot be loaded"):
        load(base)


def test_a_job_may_bring_its_own_chat_template(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    args = LoraArgs(model=str(tiny_base), data="x.jsonl", chat_template=str(tmp_path / "chat.jinja"))
    assert load_tokenizer(args, Pin(str(tiny_base))).chat_template == "{{ messages }}"


def test_a_pinned_model_of_the_hub_loads_from_the_cache_when_the_hub_is_away(tiny_base: Path, tmp_path: Path) -> None:
    sha = "f" * 40
    repository = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(tiny_base, repository / "snapshots" / sha)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(sha)
    away = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_CACHE": str(tmp_path / "hub")}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE], capture_output=True, text=True, check=False, env={**os.environ, **away}
    )
    assert done.returncode == 0, done.stderr
    found_sha, unknown, tokens, name, revision = json.loads(done.stdout)
    assert (found_sha, tokens, name, revision) == (sha, 320, "org/tiny", sha)
    assert "the hub cannot be reached, and the dataset org/none is not in the local cache" in unknown
