"""The plan of the house: who may import whom, which outside thing has which door, and how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "supervisor").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")])
HEAVY = ("torch", "transformers", "peft", "accelerate", "datasets", "numpy", "trl", "safetensors")

#: What stands beside a room may not be imported by it, unless it is named here.
LOW = {"errors", "owner", "policy", "whole"}
MAY_IMPORT = {
    "errors": set(),
    "whole": set(),
    "policy": set(),
    "owner": {"errors"},
    "lock": {"errors", "owner"},
    "lease": {"errors", "lock", "owner"},
    "journal": {"errors"},
    "watch": LOW,
    "launch": LOW,
    "board": LOW,
    "link": LOW,
    "checkpoint": LOW,
    "job": LOW,
    "report": LOW | {"journal", "lease", "owner"},
    "retry": {"errors"},
    "mirror": LOW | {"checkpoint", "lease", "retry"},
    "worker": {"errors", "owner", "board", "checkpoint", "whole"},
}
MAY_IMPORT["engine"] = {*MAY_IMPORT} - {"worker"}
MAY_IMPORT["drill"] = MAY_IMPORT["engine"] | {"engine"}
MAY_IMPORT["cli"] = MAY_IMPORT["drill"] | {"drill"}
MAY_IMPORT["__main__"] = {"cli"}
MAY_IMPORT["jobs"] = {"errors", "worker"}

#: A room's own names, and what is allowed against the rule, with its reason.
EXCEPTIONS = {
    ("supervisor/job/program.py", "jobs"): "the program's own section and pins are read by the program's own code",
    ("jobs/lora.py", "job"): "reads the job file that it is given",
    ("jobs/lora_prefetch.py", "job"): "reads the job file that it is given",
}

#: Libraries that one file alone may import, and those that belong to a room.
ONE_DOOR = ("psutil", "pynvml", "submitit", "tenacity", "obstore", "click", "apprise")
OWN_ROOM = {
    "yaml": {"job"},
    "pydantic": {"job", "jobs"},
    "rich": {"report"},
    "xxhash": {"checkpoint", "jobs", "mirror"},
    "ctypes": {"checkpoint", "launch", "worker"},
}


@cache
def imported(path: Path) -> list[str]:
    """Every module that a file names, also inside functions and for types only."""
    return list(named(path))


def named(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            yield node.module
            if node.module in ("supervisor", "jobs"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room(module: str) -> str:
    """``supervisor.board.slots`` is in ``board``, ``jobs.lora`` in ``jobs``; the package itself is no room."""
    first, _, rest = module.partition(".")
    return first if first == "jobs" else rest.partition(".")[0]


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0] if parts[0] == "jobs" else parts[1]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_room_imports_only_what_lies_below_it(path: Path) -> None:
    own = room_of(path)
    if own == "__init__":
        return
    for module in imported(path):
        if module.partition(".")[0] not in ("supervisor", "jobs"):
            continue
        there = room(module)
        allowed = there in ("", own, "__version__") or there in MAY_IMPORT[own] or (name(path), there) in EXCEPTIONS
        assert allowed, f"{name(path)} imports {module}: {own} may import {sorted(MAY_IMPORT[own])}"


def test_every_exception_is_still_needed() -> None:
    needed = {(name(path), room(m)) for path in FILES for m in imported(path) if m.startswith(("supervisor", "jobs"))}
    assert set(EXCEPTIONS) <= needed


@pytest.mark.parametrize("path", [p for p in FILES if room_of(p) not in ("jobs", "worker")], ids=name)
def test_only_the_worker_knows_torch(path: Path) -> None:
    assert [m for m in imported(path) if m.partition(".")[0] in HEAVY] == []


def users(library: str) -> list[Path]:
    return [path for path in FILES if any(m.partition(".")[0] == library for m in imported(path))]


@pytest.mark.parametrize("library", ONE_DOOR)
def test_each_outside_thing_has_one_door(library: str) -> None:
    assert len(users(library)) <= 1


@pytest.mark.parametrize("library", OWN_ROOM)
def test_what_a_room_needs_stays_in_it(library: str) -> None:
    assert {room_of(path) for path in users(library)} <= OWN_ROOM[library]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_is_one_idea_and_short(path: Path) -> None:
    limit = 480 if name(path) == "supervisor/engine/loop.py" else 350
    assert len(path.read_text().splitlines()) <= limit


def modules_after(program: str) -> set[str]:
    told = f"import sys\n{program}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", told], check=True, capture_output=True, text=True, timeout=180)
    return set(done.stderr.splitlines()[-1].split())


COMMANDS = """
from supervisor.cli import main
sys.argv = ["supervisor", "status"]
try:
    main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize(
    "program",
    [
        "import supervisor.cli",
        "import supervisor.engine.running",
        "import supervisor.launch.processes, supervisor.board.slots, supervisor.worker, supervisor.worker.bootstrap",
        COMMANDS,
    ],
    ids=["the command line", "the engine", "what both sides share", "status"],
)
def test_nothing_heavy_is_imported_by_a_process_that_does_not_train(program: str) -> None:
    found = modules_after(program)
    assert "supervisor" in found
    assert found & {*HEAVY} == set()
    assert found & {"submitit", "pandas", "scipy", "obstore", "tenacity"} == set()


def test_the_whole_command_answers_without_them() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "supervisor", "status"],
        check=False,
        capture_output=True,
        text=True,
        timeout=180,
    )
    imports = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "supervisor.cli" in imports
    assert imports & {*HEAVY} == set()
