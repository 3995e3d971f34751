"""The table itself: rows that can be found, that mean one thing, and that a healthy program's log does not touch."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from http import HTTPStatus

import pytest

from supervisor.policy.causes import Cause
from supervisor.policy.signatures import recognise, table, telling_lines

TRACEBACK = """Traceback (most recent call last):
  File "/env/lib/python3.11/site-packages/transformers/trainer.py", line 2000, in train
    return inner_training_loop(
"""


def test_every_row_says_where_it_was_read_and_is_written_as_it_is_looked_for() -> None:
    for row in table():
        assert row.source
        assert re.sub(r"\\[a-zA-Z]", "", row.pattern) == re.sub(r"\\[a-zA-Z]", "", row.pattern).lower(), row.name
        assert re.compile(row.pattern).search("") is None, row.name


def test_a_name_stands_for_one_cause() -> None:
    causes = defaultdict(set)
    for row in table():
        causes[row.name, row.where].add(row.cause)
    assert {name: found for name, found in causes.items() if len(found) > 1} == {}


def test_rows_that_name_their_cause_come_first_then_echoes_and_bare_names_last() -> None:
    order = [(row.bare, row.standing) for row in table()]
    assert order == sorted(order)
    assert {*order} == {(False, 0), (False, 1), (False, 2), (True, 1)}


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("builtins.RuntimeError: Numpy is not available", Cause.USER_ERROR),
        ("trl.errors.PackingError: sequences of two kinds", Cause.USER_ERROR),
        ("builtins.RuntimeError: it never works", None),
        ("__main__.OddError: it never works", None),
        ("builtins.RuntimeError: a worker was not available", None),
        ("builtins.RuntimeError: no answer from the server", None),
        ("builtins.RuntimeError", None),  # a class among the bases is no text
        ("builtins.RuntimeError: handed in by the peer: connection reset by peer", Cause.NETWORK),
        ("somewhere.NetworkError: odd", Cause.NETWORK),
        ("somewhere.CorruptedShardError: odd", Cause.BAD_CHECKPOINT),
    ],
)
def test_an_exceptions_name_alone_tells_only_where_no_word_is_of_the_world_outside(
    text: str, cause: Cause | None
) -> None:
    found = recognise(text)
    assert (found.signature.cause if found is not None else None) is cause


@pytest.mark.parametrize("number", [5, 9, 14, 16, 19, 26, 29, 30, 39, 61, 62, 67, 72, 74, 77, 107, 108, 116, 117])
def test_what_the_kernel_says_of_a_file_is_the_storages_by_its_number_and_by_its_words(number: int) -> None:
    for text in (f"builtins.OSError: [Errno {number}] {os.strerror(number)}", f"cp: /x: {os.strerror(number)}"):
        found = recognise(text, "log")
        assert found is not None
        assert found.signature.cause is Cause.STORAGE, text


@pytest.mark.parametrize("number", [64, 70, 71, 88, 97, 98, 99, 100, 101, 102, 103, 105, 111, 112, 113])
def test_what_the_kernel_says_of_a_connection_is_the_networks(number: int) -> None:
    found = recognise(f"builtins.OSError: [Errno {number}] {os.strerror(number)}")
    assert found is not None
    assert found.signature.cause is Cause.NETWORK


@pytest.mark.parametrize("status", [HTTPStatus(code) for code in (400, 401, 402, 403, 404, 410, 422, 451)])
def test_what_a_server_refuses_is_the_users_however_it_is_spelt(status: HTTPStatus) -> None:
    for text in (
        f"requests.exceptions.HTTPError: {status.value} Client Error: {status.phrase} for url: https://h/x",
        f"urllib.error.HTTPError: HTTP Error {status.value}: {status.phrase}",
        f"aiohttp.client_exceptions.ClientResponseError: {status.value}, message='{status.phrase}', url='https://h/x'",
    ):
        found = recognise(text)
        assert found is not None
        assert found.signature.cause is Cause.USER_ERROR, text


@pytest.mark.parametrize("status", [HTTPStatus(code) for code in (408, 425, 429, 500, 502, 503, 504)])
def test_what_a_server_cannot_do_now_is_the_networks(status: HTTPStatus) -> None:
    found = recognise(f"requests.exceptions.HTTPError: {status.value} Error: {status.phrase} for url: https://h/x")
    assert found is not None
    assert found.signature.cause is Cause.NETWORK


@pytest.mark.parametrize(
    "line",
    [
        "{'loss': 1.2345, 'grad_norm': 0.51, 'learning_rate': 1e-05, 'epoch': 0.3}",
        "{'loss': 0.0, 'grad_norm': nan, 'learning_rate': 0.0}",
        " 13%|#3        | 130/1000 [02:11<14:37,  1.01s/it]",
        "Some weights of LlamaForSequenceClassification were not initialized from the model checkpoint at x",
        "You should probably TRAIN this model on a down-stream task to be able to use it for predictions.",
        "`use_cache=True` is incompatible with gradient checkpointing. Setting `use_cache=False`.",
        "trainable params: 41,943,040 || all params: 8,072,204,288 || trainable%: 0.5196",
        "UserWarning: None of the inputs have requires_grad=True. Gradients will be None",
        "[W socket.cpp:663] [c10d] The client socket has failed to connect to [n]:29500 (errno: 97 - Address family).",
        "FutureWarning: `torch.cpu.amp.autocast(args...)` is deprecated. Please use `torch.amp.autocast`.",
        "The tokenizer has new PAD/BOS/EOS tokens that differ from the model config and generation config.",
        "Loading checkpoint shards: 100%|##########| 4/4 [00:05<00:00,  1.3s/it]",
        "Saving model checkpoint to out/checkpoint-500",
        "Map (num_proc=4): 100%|##########| 52002/52002 [00:11<00:00, 4515.11 examples/s]",
        "Token indices sequence length is longer than the specified maximum sequence length (600 > 512).",
        "NVIDIA H100 80GB HBM3, 81559 MiB, driver 550.54",
    ],
)
def test_a_healthy_programs_log_is_no_sign_of_anything_but_at_most_an_echo(line: str) -> None:
    found = recognise(line, "log")
    assert found is None or found.signature.cascade, found


def test_the_last_line_is_always_told_and_the_first_of_a_traceback_never() -> None:
    assert telling_lines(f"{TRACEBACK}KeyError: 'text'\n") == ["KeyError: 'text'"]
    assert telling_lines(TRACEBACK)[-1] == "return inner_training_loop("
    assert telling_lines("") == telling_lines("\n \n") == []


def test_what_the_trainer_says_of_its_arguments_at_a_resume_is_no_evidence_not_even_as_the_last_line() -> None:
    healthy = (
        "Warning: The following arguments do not match the ones in the `trainer_state.json` within the checkpoint "
        "directory: \n\teval_steps: 0.1 (from args) != 60 (from trainer_state.json)\n"
        "\tper_device_train_batch_size: 2 (from args) != 4 (from trainer_state.json)\n"
    )
    assert telling_lines(healthy) == []
    assert telling_lines(f"model: base\n{healthy}") == ["model: base"]
    missing = "FileNotFoundError: [Errno 2] No such file or directory: 'checkpoint-4/trainer_state.json'"
    assert telling_lines(f"{healthy}{missing}\n") == [missing]


def test_what_is_permanent_counts_only_among_the_last_words() -> None:
    caught = "OSError: [Errno 28] No space left on device"
    assert telling_lines("\n".join([caught, *["step"] * 60])) == ["step"]
    assert telling_lines("\n".join([*["step"] * 60, caught, "bye"])) == [caught, "bye"]


def test_the_numbers_of_an_error_are_not_taken_for_another_ones() -> None:
    log = "OSError: [Errno 999] odd\nOSError: [Errno 28] full\nexit code 1\n"
    assert "OSError: [Errno 28] full" in telling_lines(log)


def test_the_table_knows_every_cause_that_a_text_can_tell() -> None:
    assert {row.cause for row in table()} == {*Cause} - {Cause.UNKNOWN}
