"""Nothing that is read from a run directory is code: no pickle is opened, unless with `weights_only`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "supervisor").rglob("*.py"), *(ROOT / "jobs").rglob("*.py")])
#: Modules that make objects of whatever bytes say.
UNPICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle"}
#: Calls that do so unless they are told not to, and what tells them.
TOLD = {"torch.load": ("weights_only", True), "numpy.load": ("allow_pickle", False), "np.load": ("allow_pickle", False)}
NEVER = {"yaml.load", "yaml.full_load", "yaml.unsafe_load", "eval", "exec", "pandas.read_pickle"}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def flaws(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.partition(".")[0] in UNPICKLING]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if (node.module or "").partition(".")[0] in UNPICKLING else []
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found += sorted(names & (TOLD.keys() | NEVER))  # under another name it could not be told
        elif isinstance(node, ast.Call):
            called = dotted(node.func)
            if called in TOLD:
                key, value = TOLD[called]
                said = [word.value for word in node.keywords if word.arg == key]
                if not any(isinstance(one, ast.Constant) and one.value is value for one in said):
                    found.append(f"{called} without {key}={value}")
            elif called in NEVER and not _is_safe_yaml(called, node):
                found.append(called)
    return found


def _is_safe_yaml(called: str, node: ast.Call) -> bool:
    """`yaml.load` with a loader of ours; which one, tests/job shows by feeding it tags."""
    return called == "yaml.load" and any(word.arg == "Loader" for word in node.keywords)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_makes_objects_of_what_bytes_say(path: Path) -> None:
    assert flaws(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from dill import load",
        "from torch import load",
        "import torch\ntorch.load(path)",
        "import torch\ntorch.load(path, weights_only=False)",
        "import torch\ntorch.load(path, weights_only=wanted)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path)",
        "import yaml\nyaml.unsafe_load(text)",
        "eval(text)",
    ],
)
def test_each_way_to_run_what_was_read_would_be_seen(source: str) -> None:
    assert flaws(source) != []


def test_what_is_told_to_hold_back_is_let_pass() -> None:
    assert flaws("import torch\ntorch.load(path, map_location='cpu', weights_only=True)") == []
