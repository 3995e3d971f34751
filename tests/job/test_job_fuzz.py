"""Whatever a file holds, the reader answers with a job or with a `JobError`."""

import tempfile
from contextlib import suppress
from pathlib import Path

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.errors import JobError
from supervisor.job import Job, load_job, resolved_yaml
from supervisor.job.complaints import key_paths

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["auto", "off", "10 min", "5 steps", "jobs.lora", "json.tool", "{name}", "~", "\0", "s3://x"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
TOP = sorted({path.split(".")[0] for path in key_paths(Job)})
BELOW = sorted({path.split(".")[-1] for path in key_paths(Job)})
JOBS = st.dictionaries(
    st.sampled_from([*TOP, "lunch"]), VALUES | st.dictionaries(st.sampled_from(BELOW), VALUES, max_size=4), max_size=6
)
FRAGMENTS = st.lists(
    st.sampled_from(
        [
            "program",
            ": ",
            "\n",
            "  ",
            "- ",
            "[",
            "]",
            "{",
            "}",
            "&a ",
            "*a",
            "<<",
            "!!int ",
            "!!map ",
            "!!set ",
            "|",
            ">",
            "'",
            '"',
            "#",
            "\t",
            "? ",
            "%",
            "@",
            "1e9",
            "0x",
            "~",
            ",",
            "…",
        ]
    ),
    max_size=30,
).map("".join)


def read(data: bytes, *overrides: str) -> Job | None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "job.yaml"
        path.write_bytes(data)
        with suppress(JobError):
            return load_job(path, overrides, cwd=Path(directory), environ={"HOME": "/home/me"})
    return None


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes(data: bytes) -> None:
    read(data)


@given(FRAGMENTS)
@settings(max_examples=300, deadline=None)
def test_any_pieces_of_yaml(text: str) -> None:
    read(text.encode())


@given(JOBS, st.lists(FRAGMENTS | st.just("checkpoint.keep_last=4"), max_size=2))
@settings(max_examples=300, deadline=None)
def test_any_values_at_any_keys(values: dict, overrides: list[str]) -> None:
    read(yaml.dump(values, allow_unicode=True).encode("utf-8", "surrogatepass"), *overrides)


@given(
    st.dictionaries(st.text(max_size=6), VALUES, max_size=5),
    st.dictionaries(st.from_regex(r"[A-Z]{1,5}", fullmatch=True), st.text(max_size=9).filter(lambda t: "\0" not in t)),
)
@settings(max_examples=200, deadline=None)
def test_what_is_resolved_is_read_back_as_the_same_job(args: dict, env: dict) -> None:
    job = Job(program="json.tool", run_dir=Path("/tmp/x"), args=args, env=env)
    text = resolved_yaml(job)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "job.yaml"
        path.write_text(text)
        again = load_job(path, cwd=Path(directory), environ={})
    assert repr(again) == repr(job)
