"""A base model with an adapter merged into its weights, as a model that needs no peft.

What it does not protect against: a base that is another one now than it was in training, where
neither a revision nor a digest of it is known.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from supervisor.checkpoint.contents import EXTRA
from supervisor.errors import JobError
from supervisor.worker.hub import at_hand
from supervisor.worker.resume import Range

#: The head that each of peft's tasks was trained with.
_HEADS = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}


def merge(checkpoint: Path, target: Path, base: str, revision: str | None) -> list[str]:
    """Load the base, merge the adapter, and save the whole model, with the base's tokenizer if it has one.

    The weights have the type in which the base stands on disk. Nothing of the base is run that is not
    part of transformers.

    Args:
        checkpoint: directory with an adapter; what was trained besides it is put in as well.
        target: a directory that is there and empty.
        base: name or path of the base model.
        revision: of it; None for the newest.

    Returns:
        What the user should know.

    Raises:
        JobError: the base cannot be had, is quantised, or does not fit.
    """
    named = f"the base model {base}" + (f" at revision {revision}" if revision else "")
    base = at_hand(base, revision)
    config = _config(base, revision, named)
    told = json.loads((checkpoint / "adapter_config.json").read_text(encoding="utf-8"))
    kind = _class(told, config, named)
    try:
        model = kind.from_pretrained(base, revision=revision, dtype="auto")
        adapted: Any = PeftModel.from_pretrained(model, str(checkpoint))
        _put_extra(adapted, checkpoint)
        whole = adapted.merge_and_unload(safe_merge=True)
    except (OSError, ValueError, RuntimeError, AttributeError, NotImplementedError, ImportError) as error:
        raise JobError(
            f"the adapter could not be merged into {named}: {str(error)[:400]}",
            "`--adapter` gives it as it is, to be loaded beside its base",
        ) from error
    whole.save_pretrained(str(target))
    return _save_tokenizer(base, revision, target)


def _config(base: str, revision: str | None, named: str) -> Any:
    try:
        config = AutoConfig.from_pretrained(base, revision=revision)
    except (OSError, ValueError) as error:
        raise JobError(
            f"{named} is not to be had: {str(error).splitlines()[0][:200]}",
            "run this where it is (a relative path starts from the current directory), or where the hub answers",
        ) from error
    quantised = getattr(config, "quantization_config", None)
    if quantised is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised.quant_method
        raise JobError(
            f"{named} is quantised ({method}); merged into its rounded weights the adapter would be rounded, too",
            "use `--adapter`, and load it beside the base",
        )
    return config


def _class(told: dict[str, Any], config: Any, named: str) -> Any:
    """The class to load: by the task, else the class that was trained, else the one that the base was saved as.

    A class that a file names is looked for in transformers only: no code is loaded by a name in a file.
    """
    task = told.get("task_type")
    if task in _HEADS:
        return getattr(transformers, _HEADS[task])
    mapped = told.get("auto_mapping") or {}
    names = [mapped.get("base_model_class"), *(getattr(config, "architectures", None) or [])]
    for name in names:
        kind = getattr(transformers, name, None) if isinstance(name, str) else None
        if isinstance(kind, type) and issubclass(kind, PreTrainedModel):
            return kind
    raise JobError(
        f"{named} is of no class of transformers ({', '.join(str(n) for n in names if n) or 'none is named'})",
        "use `--adapter`, and merge it with code of your own",
    )


def _put_extra(model: Any, checkpoint: Path) -> None:
    """Put in what was trained and is no part of the adapter; a cast to the base's type is what a merge does, too."""
    path = checkpoint / EXTRA
    if not path.exists():
        return
    places = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    for name, value in Range(path, 0, path.stat().st_size).tensors().items():
        place = places.get(name.removeprefix("buffer:"))
        if place is None or place.shape != value.shape:
            raise ValueError(f"{name} was trained besides the adapter, and has no such place in the base")
        with torch.no_grad():
            place.copy_(value)


def _save_tokenizer(base: str, revision: str | None, target: Path) -> list[str]:
    try:
        AutoTokenizer.from_pretrained(base, revision=revision).save_pretrained(str(target))
    except (OSError, ValueError, KeyError, ImportError, AttributeError):  # what transformers raises without one varies
        return ["the base has no tokenizer that could be saved with it"]
    return []
