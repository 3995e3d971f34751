"""From files of every kind to the same tokens, made once; broken rows named by file and line."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from jobs_samples import chat, write_lines

from jobs.lora_args import LoraArgs
from jobs.lora_data import Reading, longest, make_tokens, open_tokens, pad_batch
from jobs.lora_load import Source, sources_of
from jobs.lora_pins import Pin, fingerprint
from supervisor.errors import JobError

ROWS = [chat(f"How are you, {i}?", "I am fine.", "Thanks", "Bye") for i in range(5)]


def examples(path: Path, tokenizer: Any, cache_dir: Path, **section: Any) -> list[tuple]:
    args = LoraArgs.model_validate({"model": "m", "data": str(path), **section})
    pins = {"data": Pin(str(path), files=fingerprint(path, "dataset"))}
    [source] = sources_of(args, pins)
    reading = Reading(args, tokenizer, args.max_length or 64, cache_dir)
    make_tokens(source, reading)
    return [(row["input_ids"], row["labels"]) for row in open_tokens(source, reading)]


def test_jsonl_json_parquet_and_directories_give_the_same_tokens(tmp_path: Path, tokenizer: Any) -> None:
    import datasets

    lines = write_lines(tmp_path / "a.jsonl", ROWS)
    array = tmp_path / "b.json"
    array.write_text(json.dumps(ROWS))
    datasets.Dataset.from_list(ROWS).to_parquet(tmp_path / "c.parquet")
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    (tmp_path / "folder").mkdir()
    write_lines(tmp_path / "folder" / "train.jsonl", ROWS)
    expected = examples(lines, tokenizer, tmp_path / "cache")
    assert len(expected) == 5
    for number, path in enumerate((array, tmp_path / "c.parquet", tmp_path / "saved", tmp_path / "folder")):
        assert examples(path, tokenizer, tmp_path / f"cache-{number}") == expected


def test_conversations_may_differ_in_their_keys(tmp_path: Path, tokenizer: Any) -> None:
    """A columnar reader refuses such a file, or fills every row with nulls that a template would see."""
    named = chat("a", "b")
    named["messages"][0]["name"] = "Ann"
    path = write_lines(tmp_path / "a.jsonl", [ROWS[0], "", named, {**ROWS[1], "score": [1, "x"]}])
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "m['role'] +", "m['role'] + (m.name if 'name' in m else '') +"
    )
    assert [("Ann" in tokenizer.decode(ids)) for ids, _ in examples(path, tokenizer, tmp_path)] == [False, True, False]


def test_plain_text_is_learnt_whole_from_the_column_that_is_named(tmp_path: Path, tokenizer: Any) -> None:
    path = write_lines(tmp_path / "a.jsonl", [{"text": "no", "story": "Open a socket."}, {"text": "no", "story": ""}])
    [(ids, labels)] = examples(path, tokenizer, tmp_path / "cache", text_field="story")
    assert ids == labels
    assert tokenizer.decode(ids) == "Open a socket.<|end|>"


def test_part_of_a_file_can_be_held_out(tmp_path: Path, tokenizer: Any) -> None:
    path = write_lines(tmp_path / "a.jsonl", ROWS)
    kept = examples(path, tokenizer, tmp_path, data_split="train[:80%]")
    held_out = examples(path, tokenizer, tmp_path, data_split="train[80%:]")
    assert kept + held_out == examples(path, tokenizer, tmp_path)
    assert len(held_out) == 1


def test_the_next_attempt_finds_the_tokens_and_loads_nothing(tmp_path: Path, tokenizer: Any) -> None:
    path = write_lines(tmp_path / "a.jsonl", ROWS)
    args = LoraArgs(model="m", data=str(path))
    source = Source("data", str(path), None, "train", Pin(str(path), files=fingerprint(path, "dataset")))
    make_tokens(source, Reading(args, tokenizer, 64, tmp_path / "cache"))
    path.unlink()
    tokenizer("used in between", padding="max_length", max_length=10, truncation=True)
    make_tokens(source, Reading(args, tokenizer, 64, tmp_path / "cache"))
    assert len(open_tokens(source, Reading(args, tokenizer, 64, tmp_path / "cache"))) == 5
    assert [file.suffix for file in (tmp_path / "cache").iterdir()] == [".arrow"]


def test_another_tokenizer_template_length_or_content_makes_new_tokens(tmp_path: Path, tokenizer: Any) -> None:
    path = write_lines(tmp_path / "a.jsonl", ROWS)
    cache = tmp_path / "cache"
    examples(path, tokenizer, cache)
    examples(path, tokenizer, cache, max_length=20)
    tokenizer.chat_template += "{# other #}"
    examples(path, tokenizer, cache)
    tokenizer.add_tokens(["socket"])
    examples(path, tokenizer, cache)
    write_lines(path, ROWS[:2])
    assert len(examples(path, tokenizer, cache)) == 2
    assert len(list(cache.iterdir())) == 5


def test_tokens_that_cannot_be_opened_are_made_again(tmp_path: Path, tokenizer: Any) -> None:
    path = write_lines(tmp_path / "a.jsonl", ROWS)
    before = examples(path, tokenizer, tmp_path / "cache")
    [tokens] = (tmp_path / "cache").iterdir()
    tokens.write_bytes(b"torn")
    assert examples(path, tokenizer, tmp_path / "cache") == before


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"messages": [}', "not JSON"),
        ('{"messages": "hi"}', "`messages` is str"),
        ('{"messages": [{"role": "judge", "content": "x"}, {"role": "assistant", "content": "y"}]}', "no judge here"),
    ],
)
def test_a_broken_row_is_named_by_file_and_line(line: str, problem: str, tmp_path: Path, tokenizer: Any) -> None:
    path = write_lines(tmp_path / "a.jsonl", [ROWS[0], "", ROWS[1], line])
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'judge' %}{{ raise_exception('no judge here') }}{% endif %}"
        + tokenizer.chat_template
    )
    with pytest.raises(JobError, match=problem) as caught:
        examples(path, tokenizer, tmp_path / "cache")
    assert caught.value.where == f"{path}:4"
    assert list((tmp_path / "cache").iterdir()) == []


def test_text_that_is_not_utf_8_is_named_by_its_line(tmp_path: Path, tokenizer: Any) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "good"}\n{"text": "\xff"}\n')
    with pytest.raises(JobError, match="UTF-8") as caught:
        examples(path, tokenizer, tmp_path / "cache")
    assert caught.value.where == f"{path}:2"


def test_columns_without_text_or_messages_are_listed(tmp_path: Path, tokenizer: Any) -> None:
    import datasets

    datasets.Dataset.from_list([{"prompt": "a", "answer": "b"}]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(JobError, match="neither `messages` nor `text` among the columns `prompt`, `answer`"):
        examples(tmp_path / "a.parquet", tokenizer, tmp_path / "cache")


def test_a_split_that_is_not_there_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    path = write_lines(tmp_path / "a.jsonl", ROWS)
    with pytest.raises(JobError, match=r"cannot be loaded .*Unknown split"):
        examples(path, tokenizer, tmp_path / "cache", data_split="test")


def test_long_rows_are_cut_and_rows_that_teach_nothing_are_left_out(
    tmp_path: Path, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jobs.lora")
    path = write_lines(tmp_path / "a.jsonl", [chat("x" * 40, "far away"), chat("a", "b" * 40), chat("only a question")])
    [(ids, labels)] = examples(path, tokenizer, tmp_path, max_length=12)
    assert len(ids) == len(labels) == 12
    assert "3 rows, 1 examples, 12 tokens, 2 cut, 2 left out" in caplog.text
    with pytest.raises(JobError, match="none of the 3 rows"):
        examples(path, tokenizer, tmp_path, max_length=2)


def test_evaluation_data_of_a_hub_is_its_validation_split() -> None:
    args = LoraArgs(model="m", data="a.jsonl", eval_data="org/data")
    pins = {"data": Pin("a.jsonl", files={"a.jsonl": "1"}), "eval_data": Pin("org/data", revision="f" * 40)}
    assert [source.split for source in sources_of(args, pins)] == ["train", "validation"]


def test_the_length_is_what_model_and_tokenizer_can_take(tokenizer: Any) -> None:
    assert longest(None, tokenizer, 64) == 64
    assert longest(None, tokenizer, None) == 2048
    tokenizer.model_max_length = 512
    assert (longest(None, tokenizer, 1024), longest(700, tokenizer, 1024)) == (512, 700)
    with pytest.raises(JobError, match="at most 1024"):
        longest(1025, tokenizer, 1024)


def test_padding_goes_to_the_right_and_carries_neither_loss_nor_attention() -> None:
    rows = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8], "labels": [8]}]
    batch = pad_batch(rows, pad_id=0, multiple=4)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7, -100], [8, -100, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
