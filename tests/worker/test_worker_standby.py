"""What is imported ahead: what the attempt before had, of the packages that are safe to import early."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

AHEAD = """
import json, sys
from pathlib import Path
from types import SimpleNamespace
from supervisor.board.gate import Gate
from supervisor.worker import standby
board = Path(sys.argv[1])
import os
os.environ[standby.STANDBY] = "1"
gate = Gate(board, 2, 1)
gate.open(resume_from="/runs/checkpoint-3")
standby.stand_by(SimpleNamespace(board=board, attempt=2, local_rank=0))
print(json.dumps([
    "safetensors.numpy" in sys.modules, "unittest.mock" in sys.modules,
    os.environ.get(standby.RESUME_FROM), standby.STANDBY in os.environ,
    Path("/proc/self/oom_score_adj").read_text().strip(),
]))
"""

REMEMBER = """
import sys
from pathlib import Path
from types import SimpleNamespace
import safetensors.numpy, unittest.mock
from supervisor.worker.standby import remember_modules
remember_modules(SimpleNamespace(board=Path(sys.argv[1])))
"""


def run(program: str, board: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, str(board)], check=True, capture_output=True, text=True, timeout=180
    )


def test_what_one_process_had_imported_another_imports_before_its_turn(tmp_path: Path) -> None:
    run(REMEMBER, tmp_path)
    names = json.loads((tmp_path / "modules").read_text())
    assert "safetensors.numpy" in names
    assert not [name for name in names if name.startswith(("unittest", "__main__"))]
    before = Path("/proc/self/oom_score_adj").read_text().strip()
    assert json.loads(run(AHEAD, tmp_path).stdout) == [True, False, "/runs/checkpoint-3", False, before]


def test_a_module_that_is_no_longer_there_and_a_torn_list_are_no_failure(tmp_path: Path) -> None:
    (tmp_path / "modules").write_text(json.dumps(["safetensors.no_such_part", "safetensors.numpy"]))
    done = run(AHEAD, tmp_path)
    assert json.loads(done.stdout)[0] is True
    assert "not imported ahead: safetensors.no_such_part" in done.stderr
    (tmp_path / "modules").write_text('["safetens')
    assert json.loads(run(AHEAD, tmp_path).stdout)[0] is False
