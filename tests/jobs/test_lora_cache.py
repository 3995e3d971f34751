"""Tokens are committed whole: a process is killed before every call that it makes on the way."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.lora_cache import PARTIAL, is_whole, key_of, scratch_dir, sweep, tokens_path, write_tokens
from jobs.lora_chat import IGNORED, Example

ROWS = [Example([i, i + 1, i + 2], [IGNORED, i + 1, i + 2]) for i in range(1200)]

KILLER = """
import json, os, sys
from pathlib import Path
from jobs.lora_cache import write_tokens
from jobs.lora_chat import Example

root, outcomes, calls, kill_at = Path(sys.argv[1]), [], 0, 0

def touch():
    global calls
    calls += 1
    if calls == kill_at:
        os._exit(73)

def profile(frame, event, function):
    if event == "c_call" and (function.__module__ == "posix" or type(function.__self__).__module__ == "_io"):
        touch()

def rows():
    for i in range(1200):
        if i % 200 == 0:
            touch()
        yield Example([i, i + 1, i + 2], [-100, i + 1, i + 2])

write_tokens(root / "0" / "tokens-x.arrow", rows())  # what is imported on the way is imported now
for kill_at in range(1, 200):
    if os.fork() == 0:
        calls = 0
        sys.setprofile(profile)
        write_tokens(root / str(kill_at) / "tokens-x.arrow", rows())
        sys.setprofile(None)
        os._exit(0)
    outcomes.append(os.waitstatus_to_exitcode(os.wait()[1]))
    if outcomes[-1] == 0:
        break
print(json.dumps(outcomes))
"""


def read(path: Path) -> list[Example]:
    import datasets

    return [Example(row["input_ids"], row["labels"]) for row in datasets.Dataset.from_file(str(path))]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tokens_path(tmp_path / "cache", "key")
    assert not is_whole(path)
    write_tokens(path, iter(ROWS))
    assert is_whole(path)
    assert read(path) == ROWS


def test_death_before_any_call_leaves_all_or_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLER, str(tmp_path)], capture_output=True, text=True, check=True)
    outcomes = json.loads(done.stdout)
    assert outcomes[-1] == 0
    assert set(outcomes[:-1]) == {73}
    assert len(outcomes) > 8  # the count really saw the calls
    whole = []
    for number in range(1, len(outcomes) + 1):
        path = tmp_path / str(number) / "tokens-x.arrow"
        whole.append(is_whole(path))
        assert whole[-1] == path.exists()
        sweep(path.parent)  # the next attempt
        assert whole[-1] == any(path.parent.glob("*"))
        write_tokens(path, ROWS)
        assert [file.name for file in path.parent.iterdir()] == ["tokens-x.arrow"]
    assert whole == sorted(whole)  # absent until the rename, whole from then on


def test_what_a_killed_process_was_loading_goes_with_the_next_one(tmp_path: Path) -> None:
    scratch_dir(tmp_path, "old").mkdir()
    (scratch_dir(tmp_path, "old") / "big").write_text("x")
    (tmp_path / f"{PARTIAL}another-node-0-tokens-old.arrow").write_text("still being written")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{PARTIAL}another-node-0-tokens-old.arrow"]


def test_an_error_while_tokenising_leaves_nothing(tmp_path: Path) -> None:
    def broken():
        yield from ROWS[:700]
        raise ValueError("row 701")

    with pytest.raises(ValueError, match="row 701"):
        write_tokens(tokens_path(tmp_path, "key"), broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 10, 300, -2000])
def test_a_file_that_lost_its_end_is_not_whole(keep: int, tmp_path: Path) -> None:
    path = tokens_path(tmp_path, "key")
    write_tokens(path, ROWS)
    path.write_bytes(path.read_bytes()[:keep])
    assert not is_whole(path)


def test_the_key_depends_on_every_fact() -> None:
    facts = {"files": {"a": "1"}, "max_length": 8, "split": "train"}
    others = [{**facts, "max_length": 9}, {**facts, "files": {"a": "2"}}, {**facts, "split": "test"}]
    assert len({key_of(facts), *map(key_of, others)}) == 4


def test_partial_files_are_never_taken_for_tokens() -> None:
    assert not tokens_path(Path(), "key").name.startswith(PARTIAL)
