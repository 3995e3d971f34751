"""The job file's keys are frozen: a setting is a cost, and a change of one is a change of the contract."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from supervisor.job import Job, schema
from supervisor.job.complaints import key_paths

GOLDEN = Path(__file__).parents[1] / "golden" / "job-keys.json"


def keys_and_defaults() -> dict[str, Any]:
    values = Job(program="p").model_dump()
    defaults = {}
    for path in key_paths(Job):
        value: Any = values
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not (isinstance(value, dict) and value):
            defaults[path] = value
    return defaults


def test_keys_and_defaults_are_as_frozen() -> None:
    assert keys_and_defaults() == json.loads(GOLDEN.read_text())


def test_the_schema_knows_every_key_and_the_lora_section() -> None:
    document = schema()
    json.dumps(document)
    assert set(document["properties"]) == set(Job.model_fields)
    assert document["required"] == ["program"]
    assert "model" in document["$defs"]["LoraArgs"]["properties"]
    refs = [part.split('"')[0] for part in json.dumps(document).split('"#/$defs/')[1:]]
    assert set(refs) <= set(document["$defs"])


def test_every_key_says_what_it_takes() -> None:
    def undescribed(model: type[BaseModel]) -> list[str]:
        return [name for name, field in model.model_fields.items() if not field.description]

    assert [
        undescribed(m)
        for m in (Job, *(type(getattr(Job(program="p"), s)) for s in ("launch", "checkpoint", "recovery")))
    ] == [[]] * 4
