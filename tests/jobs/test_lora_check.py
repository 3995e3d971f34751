"""A user's files, each broken in its own way, before anything heavy is imported."""

import gzip
import json
from pathlib import Path

import pytest
from jobs_samples import chat, write_lines

from jobs.lora_args import LoraArgs, check
from supervisor.errors import JobError

OK = chat("hi", "hello")


def model_dir(path: Path, *files: str) -> Path:
    path.mkdir()
    for name in files:
        (path / name).write_text("{}")
    return path


def refusal(base_dir: Path, **section: object) -> JobError:
    with pytest.raises(JobError) as caught:
        check(LoraArgs.model_validate({"model": "org/model", "data": "org/data", **section}), base_dir)
    return caught.value


def test_names_of_the_hub_are_not_looked_up() -> None:
    check(LoraArgs(model="org/model", data="squad"), Path("/nowhere"))


def test_good_files_pass(tmp_path: Path) -> None:
    model_dir(tmp_path / "base", "config.json", "model.safetensors")
    write_lines(tmp_path / "a.jsonl", [OK, "", {**OK, "id": 3}])
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    (tmp_path / "c.json").write_text(json.dumps([OK]))
    for data in ("a.jsonl", "./b.jsonl.gz", "c.json"):
        check(LoraArgs(model="base", data=data, eval_data="a.jsonl"), tmp_path)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("./data", " ({here}/data)"),
        ("../data", " ({above}/data)"),
        ("~/no-such-data", " ({home}/no-such-data)"),
        ("/no/such", ""),
        ("train.jsonl", " ({here}/train.jsonl)"),
        ("x.parquet", " ({here}/x.parquet)"),
        ("a/b/c", " ({here}/a/b/c)"),
    ],
)
def test_what_looks_like_a_path_and_is_not_there_is_refused_with_its_place(
    name: str, place: str, tmp_path: Path
) -> None:
    shown = name + place.format(here=tmp_path, above=tmp_path.parent, home=Path.home())
    assert refusal(tmp_path, data=name).problem == f"args.data: there is no {shown}"
    assert refusal(tmp_path, eval_data=name).problem == f"args.eval_data: there is no {shown}"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"messages": [}', "not JSON: Expecting value at column 15"),
        ("[1]", "a JSON array, where a row is an object"),
        ('{"prompt": "x"}', "no `messages`; it has `prompt`"),
        ('{"messages": []}', "`messages` is empty"),
        ('{"messages": ["hi"]}', "message 1 of `messages` is str"),
        ('{"messages": [{"content": "x"}]}', "message 1 of `messages` has no role"),
        ('{"messages": [{"role": "user"}]}', "message 1 of `messages` has no content"),
        ('{"messages": [{"from": "human", "value": "x"}]}', "ShareGPT"),
    ],
)
def test_a_broken_line_is_numbered(line: str, problem: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "data.jsonl", [OK, "", OK, line, OK])
    error = refusal(tmp_path, data="data.jsonl")
    assert error.where == f"{path}:4"
    assert problem in error.problem
    assert "text_field" in error.remedy


def test_bytes_that_are_no_text_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    error = refusal(tmp_path, data="data.jsonl")
    assert (error.where, "UTF-8" in error.problem) == (f"{path}:2", True)


def test_the_column_that_is_asked_for_is_the_one_that_is_checked(tmp_path: Path) -> None:
    write_lines(tmp_path / "d.jsonl", [{"messages": 3, "story": "once"}])
    check(LoraArgs(model="org/model", data="d.jsonl", text_field="story"), tmp_path)
    assert "no `chat`" in refusal(tmp_path, data="d.jsonl", messages_field="chat").problem


def test_a_tool_call_without_content_is_a_message(tmp_path: Path) -> None:
    called = {"role": "assistant", "content": None, "tool_calls": [{"type": "function"}]}
    write_lines(tmp_path / "d.jsonl", [{"messages": [{"role": "user", "content": "x"}, called]}])
    check(LoraArgs(model="org/model", data="d.jsonl"), tmp_path)


def test_only_the_beginning_of_a_huge_file_is_read(tmp_path: Path) -> None:
    from jobs.lora_rows import BadLine, find_bad_line

    path = write_lines(tmp_path / "d.jsonl", [OK] * 10 + ["broken"])
    assert find_bad_line(path, None, None, max_bytes=100) is None
    assert find_bad_line(path, None, None) == BadLine(11, "not JSON: Expecting value at column 1")


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("empty.jsonl", b"\n", "the file holds no row"),
        ("cut.parquet", b"PAR1 and then nothing", "is no Parquet file, or was cut off"),
        ("none.parquet", b"", "is no Parquet file"),
        ("cut.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 999, mtime=0)[:40], "cannot be read"),
        ("fake.jsonl.gz", b"plain", "cannot be read"),
        ("data.csv", b"a,b", "is no kind of file that is known"),
    ],
)
def test_files_that_are_not_what_they_are_called_are_refused(
    name: str, content: bytes, problem: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert problem in refusal(tmp_path, data=f"./{name}").problem


def test_an_empty_directory_of_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    assert "is an empty directory" in refusal(tmp_path, data="data").problem


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ((), "is no model, it has no config.json"),
        (("adapter_config.json",), "is an adapter, not a base model"),
        (("config.json",), "holds no weights"),
    ],
)
def test_a_directory_that_is_no_model_is_refused(files: tuple, problem: str, tmp_path: Path) -> None:
    model_dir(tmp_path / "base", *files)
    assert f"base ({tmp_path}/base) {problem}" in refusal(tmp_path, model="base").problem


def test_a_model_that_is_a_file_or_has_a_broken_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "is a file" in refusal(tmp_path, model="./file").problem
    (model_dir(tmp_path / "base", "model.safetensors") / "config.json").write_text("{")
    assert "is not readable JSON" in refusal(tmp_path, model="base").problem


def test_an_adapter_tells_its_base_model(tmp_path: Path) -> None:
    model_dir(tmp_path / "a")
    (tmp_path / "a" / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    assert "(org/base)" in refusal(tmp_path, model="a").remedy


@pytest.mark.parametrize("key", ["model_revision", "data_revision", "data_config", "eval_revision"])
def test_a_local_path_has_no_revision(key: str, tmp_path: Path) -> None:
    model_dir(tmp_path / "base", "config.json", "model.safetensors")
    write_lines(tmp_path / "d.jsonl", [OK])
    section = {"model": "base", "data": "d.jsonl", "eval_data": "d.jsonl", key: "v1"}
    assert refusal(tmp_path, **section).remedy == f"remove {key}"


def test_packages_that_a_key_needs_are_looked_for(tmp_path: Path) -> None:
    from jobs.lora_check import need_package

    need_package(("no_such_package", "json"), "training.report_to: x")
    with pytest.raises(JobError, match="quantization: 4bit needs no_such_package"):
        need_package(("no_such_package",), "quantization: 4bit")


def test_a_chat_template_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert f"no file chat.jinja ({tmp_path}/chat.jinja)" in refusal(tmp_path, chat_template="chat.jinja").problem
