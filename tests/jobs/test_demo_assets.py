"""The demo's assets: from the library's source, the same every time, whole or not there."""

import json
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import xxhash

from jobs.demo_assets import Recipe, made_by, make
from jobs.demo_corpus import Pair, library_sources, pairs
from jobs.lora_args import LoraArgs, check
from supervisor.errors import MachineError

CHOSEN = {"train_pairs": 30, "eval_pairs": 10, "vocabulary": 300, "hidden": 32, "layers": 1, "steps": 2}
CHOSEN |= {"batch": 2, "length": 16, "threads": 1}
SMALL = Recipe(**CHOSEN)

LIBRARY = '''
def read(path: str, *, whole=True) -> bytes:
    """Return the bytes of a file
    as they are.

    More about it.
    """

def short():
    """Too short."""

async def again(x):
    """Return the bytes of a file as they are."""

class Door:
    def open(self, key=None):
        """Open the door, if the key fits it."""
'''


def digests(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): xxhash.xxh3_128_hexdigest(path.read_bytes()) for path in files}


def test_a_pair_is_a_signature_and_the_first_paragraph_of_a_docstring_once() -> None:
    found = pairs([("a.py", LIBRARY), ("broken.py", "def (")])
    assert sorted(pair.signature for pair in found) == [
        "def open(self, key=None)",
        "def read(path: str, *, whole=True)",
    ]
    assert Pair("def read(path: str, *, whole=True)", "Return the bytes of a file as they are.") in found


def test_pairs_come_in_an_order_that_does_not_depend_on_the_modules() -> None:
    parts = LIBRARY.split("class Door")
    forwards = pairs([("a.py", parts[0]), ("b.py", "class Door" + parts[1])])
    assert forwards == pairs([("b.py", "class Door" + parts[1]), ("a.py", parts[0])])


def test_tests_and_installed_packages_are_no_library(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "site-packages/c.py", "pkg/test/d.py", "pkg/e.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert [name for name, _ in library_sources(tmp_path)] == ["a.py", "b.py", "pkg/e.py"]
    with pytest.raises(MachineError, match="no source of its standard library"):
        library_sources(tmp_path / "nothing")


def test_equal_recipes_give_equal_bytes_in_every_process(tmp_path: Path) -> None:
    make(tmp_path / "one", SMALL)
    options = [f"--{key.replace('_', '-')}={value}" for key, value in CHOSEN.items()]
    command = [sys.executable, "-m", "jobs.demo_assets", str(tmp_path / "two"), *options]
    subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parents[2])
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    rows = [json.loads(line) for line in (tmp_path / "one" / "train.jsonl").read_text().splitlines()]
    assert [len(rows), rows[0]["messages"][0]["role"], rows[0]["messages"][1]["role"]] == [30, "user", "assistant"]
    check(LoraArgs(model="one/base", data="one/train.jsonl", eval_data="one/eval.jsonl"), tmp_path)


def note(directory: Path, recipe: Recipe) -> None:
    """Stands for the work of making the assets."""
    (directory / "steps.txt").write_text(str(recipe.steps))


def must_not(directory: Path, recipe: Recipe) -> None:
    raise AssertionError("made again")


def test_what_is_there_is_kept_until_the_recipe_changes_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "assets", SMALL, note)
    make(tmp_path / "assets", SMALL, must_not)
    assert "anew" not in capsys.readouterr().err
    make(tmp_path / "assets", replace(SMALL, steps=3), note)
    assert (tmp_path / "assets" / "steps.txt").read_text() == "3"
    assert f"demo assets in {tmp_path / 'assets'} are made anew: steps 2 → 3\n" in capsys.readouterr().err


def test_a_build_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    make(tmp_path / "assets", SMALL, note)
    with pytest.raises(AssertionError, match="made again"):
        make(tmp_path / "assets", replace(SMALL, steps=3), must_not)
    assert made_by(tmp_path / "assets") == asdict(SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["assets"]


def test_a_killed_build_leaves_nothing_that_looks_done(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from jobs.demo_assets import Recipe, make;"
        "make(Path(sys.argv[1]), Recipe(), lambda directory, recipe: os._exit(73))"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "assets")]
    killed = subprocess.run(command, check=False, cwd=Path(__file__).parents[2])
    assert killed.returncode == 73
    assert made_by(tmp_path / "assets") is None
    assert len(list(tmp_path.iterdir())) == 1  # the killed one's partial directory
    make(tmp_path / "assets", SMALL, note)
    assert [path.name for path in tmp_path.iterdir()] == ["assets"]


def test_what_killed_builds_left_goes_also_where_nothing_has_to_be_made(tmp_path: Path) -> None:
    make(tmp_path / "assets", SMALL, note)
    (tmp_path / ".partial-assets-0").mkdir()  # no process has this number
    make(tmp_path / "assets", SMALL, must_not)
    assert [path.name for path in tmp_path.iterdir()] == ["assets"]


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGTERM]])
def test_a_build_that_is_asked_to_end_takes_what_it_made_along(tmp_path: Path, signals: list[signal.Signals]) -> None:
    """Ctrl-C comes from the terminal, and then `supervisor demo` ends the build."""
    command = [sys.executable, "-m", "jobs.demo_assets", str(tmp_path / "assets")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as build:
        assert build.stderr is not None
        assert "functions with a docstring" in build.stderr.readline()
        assert list(tmp_path.iterdir()) != []
        for one in signals:
            build.send_signal(one)
        said = build.stderr.read()
    assert "Traceback" not in said
    assert build.returncode == 128 + signals[0]
    assert list(tmp_path.iterdir()) == []


def test_a_directory_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="name another directory"):
        make(tmp_path, SMALL, note)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
