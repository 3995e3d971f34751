"""Standing by: everything imported, nothing announced, waiting at the gate for the attempt before to end.

What to import is what the attempt before had imported when its training began: lazily loaded
parts of transformers and torch are most of the time, and no fixed list knows them.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path

from supervisor.board.environment import RESUME_FROM, STANDBY
from supervisor.board.gate import wait_at_gate
from supervisor.whole import write_whole
from supervisor.worker.seat import Seat

#: Packages whose modules are imported ahead. No others: a user's own may do things at import
#: that belong into an attempt, and GPU libraries may take memory.
AHEAD = frozenset(
    [
        "accelerate",
        "datasets",
        "huggingface_hub",
        "numpy",
        "pandas",
        "peft",
        "pyarrow",
        "pydantic",
        "safetensors",
        "supervisor",
        "tokenizers",
        "torch",
        "transformers",
        "trl",
        "yaml",
    ]
)
_MODULES = "modules"
#: While it waits, the kernel is to take this process before any that trains. Source: proc(5), oom_score_adj.
_EXPENDABLE = "900"


def remember_modules(at: Seat) -> None:
    """Leave the names of what this process has imported, for workers that stand by."""
    names = [n for n, m in sys.modules.items() if n.partition(".")[0] in AHEAD and getattr(m, "__spec__", None)]
    try:
        write_whole(at.board / _MODULES, json.dumps(names))
    except OSError:
        traceback.print_exc()  # a full board: then nothing is imported ahead


def stand_by(at: Seat) -> None:
    """Wait until this attempt's turn has come.

    Raises:
        GateClosedError: it never will.
    """
    before = _expendable(_EXPENDABLE)
    _import_ahead(at.board / _MODULES)
    told = wait_at_gate(at.board, at.attempt, at.local_rank)
    if before is not None:
        _expendable(before)
    del os.environ[STANDBY]
    if told["resume_from"] is not None:
        os.environ[RESUME_FROM] = told["resume_from"]


def _import_ahead(listed: Path) -> None:
    try:
        names: list[str] = json.loads(listed.read_text())
    except (OSError, ValueError):
        return
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever it is, the program meets it itself, if it needs the module
            sys.stderr.write(f"not imported ahead: {name}: {error!r}\n")


def _expendable(score: str) -> str | None:
    """Set this process's standing with the out-of-memory killer; the old one, None if it cannot be set."""
    path = Path("/proc/self/oom_score_adj")
    try:
        before = path.read_text().strip()
        path.write_text(score)
    except OSError:
        return None
    return before
