"""Every version's line, and every state's: what the parser makes of it, and what would become of the job."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from supervisor.launch.slurm_text import parse
from supervisor.policy.handback import Held, held
from supervisor.policy.scheduler import Fate, JobSeen, ending

FILE = Path(__file__).parent / "samples" / "jobs.txt"
SAMPLES = dict(part.split("\n", 1) for part in FILE.read_text().replace("\n\n", "\n").split("== ")[1:])


def local(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def seen(title: str) -> JobSeen:
    found = parse(next(line for key, line in SAMPLES.items() if key.startswith(title)))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("title", "fields", "fate"),
    [
        (
            "21.08, running",
            {
                "state": "RUNNING",
                "batch": False,
                "may_requeue": False,
                "limit_s": 900.0,
                "partition": "m100_all_serial",
            },
            Fate.REQUEUE,
        ),
        ("22.05, timed out", {"state": "TIMEOUT", "reason": "TimeLimit", "limit_s": 60.0}, Fate.REQUEUE),
        ("22.05, out of memory", {"state": "OUT_OF_MEMORY", "reason": "OutOfMemory"}, Fate.REQUEUE),
        ("23.02, running", {"state": "RUNNING", "limit_s": 14 * 86_400.0, "nodes": 1}, Fate.REQUEUE),
        ("23.11, requeued", {"state": "PENDING", "restarts": 16, "nodes": 1, "reason": "BeginTime"}, Fate.QUEUED),
        ("24.05, running", {"state": "RUNNING", "end_s": local("2025-01-28T16:47:16")}, Fate.REQUEUE),
        ("24.11, completing", {"state": "COMPLETING", "restarts": 0, "may_requeue": False}, Fate.STOP),
        ("25.05, running", {"state": "RUNNING", "limit_s": 864_000.0, "partition": "defq"}, Fate.REQUEUE),
        ("25.11, preempted with PreemptMode=CANCEL", {"state": "PREEMPTED"}, Fate.REQUEUE),
        ("25.11, preempted with PreemptMode=REQUEUE", {"state": "PENDING", "restarts": 0}, Fate.QUEUED),
        ("22.05 live, running", {"state": "RUNNING", "preempted_s": None, "requested": "n1"}, Fate.REQUEUE),
        (
            "22.05 live, being preempted",
            {"preempted_s": local("2026-11-24T09:11:41"), "end_s": local("2026-11-24T09:11:47")},
            Fate.REQUEUE,
        ),
        ("22.05 live, ended by itself", {"state": "COMPLETED", "reason": "None"}, Fate.REQUEUE),
        ("22.05 live, being ended at its time limit", {"state": "COMPLETING", "reason": "TimeLimit"}, Fate.REQUEUE),
        ("22.05 live, being ended after scancel", {"state": "COMPLETING", "reason": "None"}, Fate.STOP),
        ("22.05 live, being ended after scontrol requeue", {"state": "COMPLETING", "restarts": 1}, Fate.QUEUED),
        ("22.05 live, requeued", {"state": "PENDING", "reason": "BeginTime"}, Fate.QUEUED),
        ("22.05 live, its node died", {"state": "NODE_FAIL", "reason": "NodeDown"}, Fate.REQUEUE),
        ("22.05 live, held", {"priority": 0, "requested": "n1", "excluded": "n3", "start_s": None}, Fate.QUEUED),
        ("22.05 live, requeued and held", {"state": "SPECIAL_EXIT", "priority": 0, "restarts": 1}, Fate.QUEUED),
        ("22.05 live, a task of an array", {"state": "RUNNING", "batch": True}, Fate.REQUEUE),
        ("22.05 live, the leading part", {"state": "PENDING", "limit_s": None}, Fate.QUEUED),
    ],
)
def test_a_line_is_read_whichever_version_printed_it(title: str, fields: dict[str, Any], fate: Fate) -> None:
    found = seen(title)
    assert {name: getattr(found, name) for name in fields} == fields
    assert ending(found, 0, "SIGTERM").fate is fate


def test_the_parser_reads_every_sample_and_none_is_left_out() -> None:
    assert len(SAMPLES) == 22
    assert all(parse(line) is not None for line in SAMPLES.values())


def test_a_hold_is_seen_in_each_of_its_forms_and_somebodys_own_is_left_alone() -> None:
    assert held(seen("22.05 live, held by its user")) == Held("JobHeldUser", release=False)
    assert held(seen("22.05 live, requeued and held")) == Held("JobHeldUser", release=False)
    assert held(seen("22.05 live, requeued")) is None
    assert held(seen("22.05 live, running")) is None
    assert held(None) is None
