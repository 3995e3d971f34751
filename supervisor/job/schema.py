"""The job file's keys: their types, their defaults, and what each takes.

Every description is shown to users as it stands: by `supervisor schema`, and as
what is allowed when a value is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    Tag,
    WithJsonSchema,
)
from pydantic_core import core_schema

from supervisor.job.notify import kind_of, metrics_place, url, web_address
from supervisor.job.values import (
    Auto,
    Every,
    Off,
    SnapshotEvery,
    parse_duration,
    parse_every,
    parse_period,
    parse_snapshot,
    switch,
)
from supervisor.policy.schedule import Seconds, Steps

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_PREFIXES = ("s3://", "gs://", "az://", "file://")


@dataclass(frozen=True, slots=True)
class _Measure:
    """How a period stands in a model: parsed on the way in, as text on the way out."""

    parse: Callable[[Any], Any]
    examples: tuple[str, ...]

    def take(self, value: Any) -> Any:
        return value if isinstance(value, Auto | Off | Seconds | Steps) else self.parse(value)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        text = core_schema.plain_serializer_function_ser_schema(str)
        return core_schema.no_info_plain_validator_function(self.take, serialization=text)

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "examples": list(self.examples)}


def _name(value: Any) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    raise ValueError("a name has 1 to 64 of the characters A-Z a-z 0-9 . _ - and begins with a letter or digit")


def _processes(value: Any) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError("auto, or a whole number of at least 1")


def _arguments(value: Any) -> dict[str, Any] | list[Any]:
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return value
    raise ValueError("a mapping, or a list of plain values that is passed to the program as it is")


def _variable(value: Any) -> str:
    if isinstance(value, str) and "\0" not in value:
        return value
    raise ValueError("a variable takes plain text without NUL bytes; for an empty one write ''")


def _variables(value: dict[str, str]) -> dict[str, str]:
    for key in value:
        if not key or "=" in key or "\0" in key:
            raise ValueError(f"{key!r} is no name of an environment variable")
    return value


def _stall_after(value: Any) -> Auto | Seconds:
    if isinstance(value, Auto) or value == "auto":
        return Auto()
    patience = parse_duration(value)
    if patience.s <= 0:
        raise ValueError("auto, or a duration longer than 0 s")
    return patience


def _mirror(value: Any) -> str:
    if isinstance(value, str) and value.startswith(_PREFIXES):
        return value
    raise ValueError(f"a prefix that begins with {', '.join(_PREFIXES)}")


def _alarm_every(value: Any) -> Seconds:
    every = value if isinstance(value, Seconds) else parse_duration(value)
    if every.s < 10:
        raise ValueError("a duration of at least 10 s")
    return every


class _Section(BaseModel):
    """A mapping of the job file: no unknown keys, no value bent into a type, never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        made = handler(core)
        properties = handler.resolve_ref_schema(made)["properties"]
        for name, field in cls.model_fields.items():
            if isinstance(field.default, Auto | Off | Seconds | Steps):
                properties[name]["default"] = str(field.default)  # as it is written in the file
        return made


class Launch(_Section):
    """How `accelerate launch` starts the program."""

    nodes: int = Field(default=1, ge=1, description="a whole number of at least 1: nodes that take part")
    processes_per_node: Annotated[
        int | Literal["auto"],
        PlainValidator(_processes),
        WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]}),
    ] = Field(default="auto", description="auto (the node's GPUs; 1 without), or a whole number of at least 1")
    accelerate: dict[str, Any] = Field(
        default_factory=dict, description="a mapping of options of `accelerate launch`, such as mixed_precision: bf16"
    )
    standby: Annotated[Literal["on", "off", "auto"], BeforeValidator(switch)] = Field(
        default="auto", description="on, off or auto: a second set of workers, imported and waiting"
    )


class KeepBest(_Section):
    """Which checkpoints are kept for their metric."""

    metric: str = Field(description="the name of a metric that the program evaluates, such as eval_loss")
    mode: Literal["min", "max"] = Field(default="min", description="min or max: which values of the metric are better")
    count: int = Field(default=1, ge=1, description="a whole number of at least 1: how many are kept for it")


class Checkpoint(_Section):
    """When checkpoints are made and which are kept."""

    every: Annotated[Every, _Measure(parse_every, ("auto", "10 min", "500 steps"))] = Field(
        default=Auto(), description="auto, a period by the clock ('10 min') or by steps ('500 steps')"
    )
    snapshot: Annotated[SnapshotEvery, _Measure(parse_snapshot, ("auto", "1 step", "off"))] = Field(
        default=Auto(), description="auto, a period by steps ('1 step', '20 steps'), or off"
    )
    keep_last: int = Field(
        default=3, ge=2, description="a whole number of at least 2, for if the newest is torn there must be another"
    )
    keep_every: Annotated[Seconds | Steps, _Measure(parse_period, ("1000 steps", "2 h"))] | None = Field(
        default=None,
        description="null, or a period such as '1000 steps' or '2 h': the first checkpoint of each is kept for ever",
    )
    keep_best: KeepBest | None = Field(default=None, description="null, or {metric: eval_loss, mode: min, count: 1}")
    mirror: Annotated[str, PlainValidator(_mirror), WithJsonSchema({"type": "string"})] | None = Field(
        default=None, description="null, or a prefix such as s3://bucket/runs: where checkpoints are copied to"
    )


class Recovery(_Section):
    """What follows when an attempt ends."""

    max_barren: int = Field(
        default=3,
        ge=1,
        description="a whole number of at least 1: attempts in a row without a newer step before giving up",
    )
    stall_after: Annotated[Auto | Seconds, _Measure(_stall_after, ("auto", "90 s"))] = Field(
        default=Auto(), description="auto (learnt), or a duration such as '90 s'"
    )
    grace: Annotated[Seconds, _Measure(parse_duration, ("30 s",))] = Field(
        default=Seconds(30.0), description="a duration such as '30 s', assumed when a notice names no deadline"
    )
    on_oom: Literal["shrink", "stop"] = Field(default="shrink", description="shrink or stop")
    on_nan: Literal["rollback", "stop", "ignore"] = Field(default="rollback", description="rollback, stop or ignore")


class DeadMan(_Section):
    """An address that is asked for while the run lives, and raises the alarm when it is not."""

    dead_man: Annotated[str, PlainValidator(web_address), WithJsonSchema({"type": "string", "format": "uri"})] = Field(
        description="the address to ask for, which begins with http:// or https://"
    )
    every: Annotated[Seconds, _Measure(_alarm_every, ("5 min",))] = Field(
        default=Seconds(300.0), description="a duration of at least 10 s, such as '5 min'"
    )


class Metrics(_Section):
    """Where the run's figures can be read by Prometheus."""

    metrics: Annotated[str, PlainValidator(metrics_place), WithJsonSchema({"type": "string"})] = Field(
        description="file (metrics.prom in the run directory), an absolute path that ends in .prom, or [host]:port"
    )


#: One entry under `notify`; the tags are no keys of an entry, so that a complaint's path stays the file's own.
_Entry = Annotated[
    Annotated[str, AfterValidator(url), Tag("url")]
    | Annotated[DeadMan, Tag("alarm")]
    | Annotated[Metrics, Tag("figures")],
    Discriminator(kind_of),
]


class Job(_Section):
    """A job file with every default filled in.

    Attributes:
        run_dir: absolute, with `{name}` filled in.
        args: as they stand in the file; paths in them are not touched.
    """

    name: Annotated[str, PlainValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{_NAME.pattern}$"})] = (
        Field(default="run", description="the run's name, of A-Z a-z 0-9 . _ -; default: the file's stem")
    )
    run_dir: Annotated[Path, PlainSerializer(str)] = Field(
        default=Path("runs/{name}"),
        strict=False,
        description="a path: where everything of the run lives; may hold {name}",
    )
    program: str = Field(min_length=1, description="a module such as jobs.lora, or a path to a .py file")
    args: Annotated[
        dict[str, Any] | list[Any],
        PlainValidator(_arguments),
        WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "array"}]}),
    ] = Field(default_factory=dict, description="a mapping, or a list that is passed to the program as it is")
    env: Annotated[
        dict[str, Annotated[str, PlainValidator(_variable), WithJsonSchema({"type": "string"})]],
        AfterValidator(_variables),
    ] = Field(default_factory=dict, description="a mapping of environment variables to text")
    start_from: str | None = Field(
        default=None, description="null, or the path of a checkpoint, or of a run, to begin with"
    )
    hooks: Annotated[Literal["auto", "off"], BeforeValidator(switch)] = Field(
        default="auto", description="auto or off: add the callback to transformers and TRL scripts by itself"
    )
    launch: Launch = Field(default=Launch(), description="a mapping: how accelerate starts the program")
    checkpoint: Checkpoint = Field(
        default=Checkpoint(), description="a mapping: when checkpoints are made and which are kept"
    )
    recovery: Recovery = Field(default=Recovery(), description="a mapping: what follows when an attempt ends")
    slurm: dict[str, Any] = Field(default_factory=dict, description="a mapping of submitit's parameter names")
    notify: list[_Entry] = Field(
        default_factory=list,
        description="a list of Apprise URLs, {dead_man: URL, every: '5 min'}, {metrics: file}, {metrics: ':9400'}",
    )
