"""The table itself: rows that can be found, that mean one thing, and that a healthy program's log does not touch."""

from __future__ import annotations

import re
from collections import defaultdict

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


def test_rows_that_name_their_cause_come_first_and_echoes_last() -> None:
    standings = [row.standing for row in table()]
    assert standings == sorted(standings)
    assert {*standings} == {0, 1, 2}


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


def test_what_is_permanent_counts_only_among_the_last_words() -> None:
    caught = "OSError: [Errno 28] No space left on device"
    assert telling_lines("\n".join([caught, *["step"] * 60])) == ["step"]
    assert telling_lines("\n".join([*["step"] * 60, caught, "bye"])) == [caught, "bye"]


def test_the_numbers_of_an_error_are_not_taken_for_another_ones() -> None:
    log = "OSError: [Errno 999] odd\nOSError: [Errno 28] full\nexit code 1\n"
    assert "OSError: [Errno 28] full" in telling_lines(log)


def test_the_table_knows_every_cause_that_a_text_can_tell() -> None:
    assert {row.cause for row in table()} == {*Cause} - {Cause.UNKNOWN}
