"""The queue's word in `status`: one question for all runs, and a SLURM that is silent or not there costs nothing."""

from __future__ import annotations

import io
import json
import os
import time
from pathlib import Path

import pytest
import run_histories as h

from supervisor.report.find import find_runs
from supervisor.report.queue import RECORD, Queued, Submitted, ask, jobs_of, parse, queue_of
from supervisor.report.status import print_status

#: Answers of a live 22.05.8 to `squeue -h -r -t all -o '%i|%A|%T|%S|%r'`.
ANSWERS = """20|20|RUNNING|2026-11-24T09:04:15|None
21_0|22|PENDING|2026-11-24T09:07:23|BeginTime
21_1|23|PENDING|N/A|Priority
21_2|21|PENDING|2026-11-24T09:07:23|BeginTime
19|19|CANCELLED|2026-11-24T09:04:15|JobHeldUser
"""


def submitted(run_dir: Path, job: str) -> Path:
    (run_dir / "control").mkdir(parents=True)
    (run_dir / RECORD).write_text(Submitted(job, 1.0).encode())
    return run_dir


def squeue(directory: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    """Put a squeue in the path, and nothing else; what it was asked stands in the file that is given back."""
    directory.mkdir(exist_ok=True)
    program = directory / "squeue"
    program.write_text(f'#!/bin/bash\necho "$*" >>"{directory}/asked"\n{text}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))
    return directory / "asked"


def status(run_dir: Path | None = None, *, as_json: bool = True) -> str:
    out = io.StringIO()
    print_status(run_dir, as_json=as_json, out=out)
    return out.getvalue()


def test_a_live_clusters_answers_are_read() -> None:
    told = parse(ANSWERS)
    start = time.mktime(time.strptime("2026-11-24T09:07:23", "%Y-%m-%dT%H:%M:%S"))
    assert told["20"] == Queued("20", "RUNNING")
    assert told["21_0"] == told["22"] == Queued("21_0", "PENDING", "BeginTime", start)
    assert told["23"] == Queued("21_1", "PENDING", "Priority")
    assert told["21"] == Queued("21_2", "PENDING", "BeginTime", start)
    assert told["19"].over


@pytest.mark.parametrize("text", ["", "garbage", "1|2|3", "x|1|PENDING|N/A|None", "slurm_load_jobs error: no"])
def test_what_is_no_answer_is_none(text: str) -> None:
    assert parse(text) == {}
    assert queue_of([Submitted("1")], parse(text)) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"job_id": "-M x"}', '{"job_id": "1,2"}', '{"job_id": null}', ""])
def test_a_record_that_names_no_job_is_none_and_never_reaches_squeue(tmp_path: Path, text: str) -> None:
    submitted(tmp_path / "run", "1")
    (tmp_path / "run" / RECORD).write_text(text)
    assert jobs_of(tmp_path / "run") == []


def test_a_job_that_waits_makes_a_run_that_has_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = submitted(tmp_path / "run", "21_0")
    squeue(tmp_path / "bin", monkeypatch, f"echo '{ANSWERS}'")
    told = json.loads(status(run_dir))
    start = time.mktime(time.strptime("2026-11-24T09:07:23", "%Y-%m-%dT%H:%M:%S"))
    assert told["state"] == "pending"
    assert told["queue"] == {"job_id": "21_0", "state": "PENDING", "reason": "BeginTime", "expected_start": start}
    assert "job 21_0 is PENDING (BeginTime), to start at 2026-11-24 09:07:23" in status(run_dir, as_json=False)


def test_a_run_without_an_owner_whose_job_waits_is_requeued_and_not_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = h.write(submitted(tmp_path / "run", "21_1"), h.UNDER_WAY)
    squeue(tmp_path / "bin", monkeypatch, f"echo '{ANSWERS}'")
    assert json.loads(status(run_dir))["state"] == "requeued"
    squeue(tmp_path / "bin", monkeypatch, "echo '21_1|23|CANCELLED|N/A|None'")
    assert json.loads(status(run_dir))["state"] == "interrupted"


def test_all_runs_cost_one_question_and_those_without_a_job_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        submitted(tmp_path / f"run-{number}", f"21_{number}")
    h.write(tmp_path / "run-3", h.UNDER_WAY)
    asked = squeue(tmp_path / ".bin", monkeypatch, f"echo '{ANSWERS}'")
    told = json.loads(status())
    assert [one["queue"] and one["queue"]["job_id"] for one in told] == ["21_0", "21_1", "21_2", None]
    assert asked.read_text().splitlines() == ["-h -r -t all -o %i|%A|%T|%S|%r -j 21_0,21_1,21_2"]
    assert "job 21_1 is PENDING (Priority)" in status(as_json=False)
    asked.unlink()
    status(tmp_path / "run-3")
    assert not asked.exists()


def test_a_job_that_the_journal_knows_counts_once_the_one_submitted_is_over(tmp_path: Path) -> None:
    run_dir = submitted(tmp_path / "run", "7")
    h.write(run_dir, [(1.0, "allocation_started", None, {"allocation": "9-2"})])
    jobs = jobs_of(run_dir)
    assert [job.job_id for job in jobs] == ["7", "9"]
    assert queue_of(jobs, parse("7|7|COMPLETED|N/A|None\n9|9|RUNNING|N/A|None")) == Queued("9", "RUNNING")
    assert queue_of(jobs, parse("7|7|FAILED|N/A|NonZeroExitCode")) == Queued("7", "FAILED", "NonZeroExitCode")


def test_a_slurm_that_does_not_answer_is_null(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "never")
    squeue(tmp_path, monkeypatch, f"read -r _ <>'{tmp_path}/never'")
    assert ask([Submitted("7")], patience_s=0.2) is None
    squeue(tmp_path, monkeypatch, "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    assert ask([Submitted("7")]) is None


def test_without_slurm_it_is_null_and_a_forgotten_job_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = submitted(tmp_path / "run", "7")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert json.loads(status(run_dir))["queue"] is None
    squeue(tmp_path / "bin", monkeypatch, "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert ask([Submitted("7")]) == {}
    assert json.loads(status(run_dir))["queue"] is None


def test_a_cluster_of_several_is_asked_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = squeue(tmp_path / "bin", monkeypatch, "echo 'CLUSTER: alps'; echo '7|7|PENDING|N/A|Resources'")
    assert ask([Submitted("7", None, "alps")]) == {"7": Queued("7", "PENDING", "Resources")}
    assert asked.read_text().startswith("-M alps -h")


def test_a_submitted_run_is_found_and_a_sweeps_directory_is_looked_into(tmp_path: Path) -> None:
    submitted(tmp_path / "single", "7")
    (tmp_path / "sweep" / "control").mkdir(parents=True)
    submitted(tmp_path / "sweep" / "sweep-0", "8_0")
    assert list(find_runs(tmp_path)) == [tmp_path / "single", tmp_path / "sweep" / "sweep-0"]
