"""What a job file may say under `args:` for the program `jobs.lora`.

The supervisor checks a job with `LoraArgs` and `check` before anything starts,
and the worker reads the same section with the same model; neither needs torch,
transformers or peft for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from jobs.lora_check import check
from jobs.lora_keys import LoraKeys, TrainingKeys
from supervisor.errors import JobError

__all__ = ["LoraArgs", "check", "parse"]


def _empty(value: Any) -> Any:
    """A section of which every line is a comment is null in YAML."""
    return {} if value is None else value


Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class LoraArgs(BaseModel):
    """The job section of `jobs.lora`.

    Attributes:
        model: a directory, or a model of the hub.
        model_revision: branch, tag or commit of a hub model; the first attempt pins its commit.
        data: a JSONL or Parquet file, a directory of such files or one written by `datasets`, or a hub data set.
        data_config: which configuration of a hub data set.
        data_split: which split, in the language of `datasets`: `train`, `train[:95%]`.
        data_revision: branch, tag or commit of a hub data set.
        eval_data: the same for evaluation; without it nothing is evaluated.
        eval_config: as `data_config`.
        eval_split: as `data_split`; default `train` for files, `validation` for a hub data set.
        eval_revision: as `data_revision`.
        text_field: column of plain text.
        messages_field: column of chat messages; default: `messages` if there is one, else `text`.
        chat_template: a Jinja file to use in place of the model's own template.
        max_length: tokens per example; longer ones are cut.
        quantization: of the base model, by bitsandbytes.
        lora: names of `peft.LoraConfig`.
        training: names of `transformers.TrainingArguments`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: Word
    model_revision: Word | None = None
    data: Word
    data_config: Word | None = None
    data_split: Word = "train"
    data_revision: Word | None = None
    eval_data: Word | None = None
    eval_config: Word | None = None
    eval_split: Word | None = None
    eval_revision: Word | None = None
    text_field: Word | None = None
    messages_field: Word | None = None
    chat_template: Word | None = None
    max_length: Annotated[int, Field(ge=2)] | None = None
    quantization: Literal["none", "4bit", "8bit"] = "none"
    lora: Annotated[LoraKeys, BeforeValidator(_empty)] = LoraKeys()
    training: Annotated[TrainingKeys, BeforeValidator(_empty)] = TrainingKeys()

    @model_validator(mode="after")
    def _fits_together(self) -> LoraArgs:
        if self.text_field and self.messages_field:
            raise _contradiction("text_field and messages_field are both set; keep the one that your data has")
        training = self.given_training()
        if self.eval_data is None:
            for key in ("eval_config", "eval_split", "eval_revision"):
                if getattr(self, key) is not None:
                    raise _contradiction(f"{key} is set, but there is no eval_data; name it, or remove {key}")
            if training.get("eval_strategy", "no") != "no" or training.get("eval_on_start"):
                problem = "training asks for evaluation, but there is no eval_data"
                raise _contradiction(f"{problem}; name it, or remove eval_strategy and eval_on_start")
        if training.get("bf16") and training.get("fp16"):
            raise _contradiction("training.bf16 and training.fp16 are both true; keep one")
        if not self.given_lora().get("r", 8) % 2 == 0 and self.given_lora().get("init_lora_weights") == "orthogonal":
            raise _contradiction("lora.init_lora_weights: orthogonal needs an even lora.r")
        return self

    def given_lora(self) -> dict[str, Any]:
        """The keys of `lora:` that the job file sets."""
        return _given(self.lora)

    def given_training(self) -> dict[str, Any]:
        """The keys of `training:` that the job file sets."""
        return _given(self.training)


def parse(section: Mapping[str, Any], where: Callable[[tuple[str | int, ...]], str] | None = None) -> LoraArgs:
    """Read a job section.

    Args:
        section: the mapping under `args:`.
        where: names the place (`file:line`) of a key path below `args`.

    Raises:
        JobError: an unknown key (with the nearest valid one), a wrong type, or values that cannot work together.
    """
    try:
        return LoraArgs.model_validate(dict(section))
    except ValidationError as error:
        first = error.errors()[0]
        path = tuple(first["loc"])
        place = where(path) if where else None
        raise JobError(*_complaint(path, first), place) from error


def _given(keys: BaseModel) -> dict[str, Any]:
    return keys.model_dump(exclude_unset=True, exclude_none=True)


def _contradiction(message: str) -> PydanticCustomError:
    return PydanticCustomError("contradiction", "{message}", {"message": message})


def _complaint(path: tuple[str | int, ...], error: Any) -> tuple[str, str]:
    """A problem and its remedy, from pydantic's first error."""
    valid, depth = _valid_keys(path)
    name = ".".join(["args", *(str(part) for part in path[: depth + 1])])
    kind, message = error["type"], error["msg"]
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(path[depth]), valid, n=1)
        return f"{name} is no key", f"did you mean {near[0]}?" if near else f"allowed are {', '.join(valid)}"
    if kind == "missing":
        return f"{name} is missing", "jobs.lora needs model and data"
    if kind == "contradiction":
        problem, _, remedy = message.partition("; ")
        return f"{name}: {problem}", remedy or "change one of the two"
    if kind == "refused":
        return f"{name} is {message}", f"remove {path[depth]}"
    return f"{name}: {message[:1].lower()}{message[1:]}, not {error['input']!r}", "mend the value"


def _valid_keys(path: tuple[str | int, ...]) -> tuple[list[str], int]:
    """The keys allowed beside the one that ``path`` complains about, and that one's depth in the path.

    What pydantic adds behind a key (which branch of a union it tried) is left off.
    """
    model: Any = LoraArgs
    for depth, part in enumerate(path):
        field = model.model_fields.get(part)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)) or depth == len(path) - 1:
            return sorted(model.model_fields), depth
        model = inner
    return sorted(LoraArgs.model_fields), 0
