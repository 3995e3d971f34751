"""What is refused before a job is submitted, and what is left behind when it was. SLURM's commands are scripts here."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import PROGRAMS

from supervisor.engine.commands.submitting import Submission, submit
from supervisor.engine.opening import Terms
from supervisor.errors import GaveUpError, JobError, MachineError, OwnedError
from supervisor.job import load_job, mathematics
from supervisor.lease import LEASE, LeaseRecord, acquire
from supervisor.owner import this_process
from supervisor.report.queue import Submitted, jobs_of

UNDER_WAY: list[dict[str, Any]] = [
    {"event": "run_started", "run_id": "r1", "name": "job", "mathematics": "m"},
    {"event": "allocation_started", "allocation": "local-1000", "epoch": 1},
    {"event": "attempt_started", "attempt": 1, "world_size": 2},
    {"event": "checkpoint_committed", "attempt": 1, "step": 40, "lineage": 0, "path": "p", "bytes": 1 << 30},
]


def write(run_dir: Path, lines: list[dict[str, Any]]) -> Path:
    run_dir.mkdir(parents=True)
    records = [{"v": 1, "time": 1000.0, "attempt": None, "host": "n1", **line} for line in lines]
    (run_dir / "journal.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return run_dir


@dataclass
class Desk:
    """A directory to submit from, and a `bin` with SLURM's commands."""

    home: Path
    bin: Path

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>{shlex.quote(str(self.home / "asked"))}\n{text}\n')
        path.chmod(0o755)

    def asked(self) -> list[str]:
        path = self.home / "asked"
        return path.read_text().splitlines() if path.exists() else []

    def submit(
        self,
        *overrides: str,
        sweeps: tuple[str, ...] = (),
        terms: Terms = Terms(),  # noqa: B008
        dry_run: bool = False,
        **slurm: Any,
    ) -> Submission:
        job = {"program": str(PROGRAMS / "fails.py"), "slurm": slurm}
        (self.home / "job.yaml").write_text(yaml.safe_dump(job))
        return submit(Path("job.yaml"), overrides, sweeps, terms, dry_run=dry_run, wait=self.wait)

    def wait(self, seconds: float) -> None:
        with (self.home / "asked").open("a") as file:
            file.write(f"waited {seconds:.0f}\n")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    found = Desk(tmp_path / "home", tmp_path / "bin")
    found.home.mkdir()
    found.bin.mkdir()
    monkeypatch.chdir(found.home)
    monkeypatch.setenv("PATH", f"{found.bin}:/usr/bin:/bin")
    found.program("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    found.program("sbatch", "echo 17")
    return found


def shows(state: str, job: str = "17") -> str:
    return f"echo '{job}|{job}|{state}|N/A|Priority'"


def test_a_dry_run_tells_the_very_bytes_that_are_submitted_and_does_nothing(desk: Desk) -> None:
    dry = desk.submit(dry_run=True, partition="gpu")
    assert dry.job_id is None
    assert desk.asked() == []
    assert [path.name for path in desk.home.iterdir()] == ["job.yaml"]
    desk.program("sbatch", f'cp "$2" {shlex.quote(str(desk.home / "got"))}; echo 17')
    real = desk.submit(partition="gpu")
    assert (desk.home / "got").read_text() == real.script == dry.script
    assert real.as_json() == {"job_id": "17", "run_dir": str(desk.home / "runs/job"), "script": dry.script}


def test_the_run_remembers_its_job_and_keeps_that_to_itself(desk: Desk) -> None:
    desk.submit()
    run_dir = desk.home / "runs" / "job"
    assert [job.job_id for job in jobs_of(run_dir)] == ["17"]
    record = run_dir / "control" / "slurm.json"
    assert list(json.loads(record.read_text())) == ["job_id", "submitted", "cluster", "script"]
    assert record.stat().st_mode & 0o777 == 0o600
    assert {path.stat().st_mode & 0o777 for path in (run_dir, run_dir / "control", run_dir / "logs")} == {0o700}


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED", "SOMETHING_NEW"])
def test_a_run_that_is_in_the_queue_is_not_submitted_again(desk: Desk, state: str) -> None:
    desk.submit()
    desk.program("squeue", shows(state))
    with pytest.raises(OwnedError, match=f"is job 17 already .{state}."):
        desk.submit()
    with pytest.raises(OwnedError):
        desk.submit(dry_run=True)
    assert len([line for line in desk.asked() if line.startswith("sbatch")]) == 1


@pytest.mark.parametrize("state", ["COMPLETED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "FAILED"])
def test_a_run_whose_job_is_over_is_submitted_again(desk: Desk, state: str) -> None:
    desk.submit()
    desk.program("squeue", shows(state))
    desk.program("sbatch", "echo 18")
    assert desk.submit().job_id == "18"
    assert [job.job_id for job in jobs_of(desk.home / "runs" / "job")] == ["18"]


def test_a_job_of_a_script_of_the_users_own_counts_too(desk: Desk) -> None:
    desk.submit(dry_run=True)
    run_dir = write(desk.home / "runs" / "job", UNDER_WAY)
    accept(run_dir, allocation="31-2")
    desk.program("squeue", shows("RUNNING", "31"))
    with pytest.raises(OwnedError, match="is job 31 already"):
        desk.submit()


def test_a_queue_that_cannot_be_asked_is_no_leave_to_submit_twice(desk: Desk) -> None:
    desk.submit()
    desk.program("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(OwnedError, match="cannot be asked"):
        desk.submit()


def test_a_living_owner_is_named(desk: Desk) -> None:
    run_dir = desk.home / "runs" / "job"
    run_dir.mkdir(parents=True)
    lease = acquire(run_dir, wait=desk.wait)
    with pytest.raises(OwnedError, match=f"run by process {os.getpid()} on"):
        desk.submit()
    lease.release()
    assert desk.submit().job_id == "17"


def elsewhere(run_dir: Path, counter: int = 0) -> None:
    owner = replace(this_process(), host="n7", boot_id="another")
    (run_dir / LEASE).write_bytes(LeaseRecord(epoch=1, counter=counter, owner=owner).encode())


def test_an_owner_elsewhere_is_watched_unless_its_job_is_known_to_be_over(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = desk.home / "runs" / "job"
    run_dir.mkdir(parents=True)
    elsewhere(run_dir)
    moves: Callable[[float], None] = lambda _s: elsewhere(run_dir, counter=1)  # noqa: E731
    desk.submit(dry_run=True)
    assert "waited 10" in desk.asked()
    with pytest.raises(OwnedError, match="on n7"):
        submit(Path("job.yaml"), (), (), Terms(), dry_run=True, wait=moves)
    (run_dir / "control").mkdir()
    (run_dir / "control" / "slurm.json").write_text(Submitted("9").encode())
    assert submit(Path("job.yaml"), (), (), Terms(), dry_run=True, wait=moves).script


def test_what_the_run_would_refuse_is_refused_before_it_waits_in_the_queue(desk: Desk) -> None:
    with pytest.raises(JobError, match=r"job.yaml:\d+: unknown key slurm.partion; did you mean slurm.partition"):
        desk.submit(partion="gpu")
    with pytest.raises(JobError, match=r"--set slurm.tme: unknown key slurm.tme; did you mean slurm.time"):
        desk.submit("slurm.tme=5")
    with pytest.raises(JobError, match="no file"):
        desk.submit("program=./nothing.py")
    run_dir = write(desk.home / "runs" / "job", UNDER_WAY)
    accept(run_dir)
    with (run_dir / "journal.jsonl").open("a") as journal:
        journal.write('{"v": 1, "time": 1.0, "event": "run_gave_up", "attempt": 1, "reason": "three in a row"}\n')
    with pytest.raises(GaveUpError, match="three in a row"):
        desk.submit()
    assert desk.asked() == []


def test_a_run_that_gave_up_is_forgiven_once_and_not_at_each_requeue(desk: Desk) -> None:
    desk.submit(dry_run=True)
    run_dir = write(desk.home / "runs" / "job", [*UNDER_WAY, {"event": "run_gave_up", "attempt": 1, "reason": "x"}])
    accept(run_dir)
    made = desk.submit(terms=Terms(forgive=True))
    head = made.script.partition("# ---- From here on")[0] + 'printf "%s\\n" "${command[@]: -1}"'
    job = str(desk.home / "job.yaml")
    said = [subprocess.run(["bash", "-c", head], capture_output=True, text=True, check=True).stdout for _ in range(3)]
    assert said == ["--forgive\n", f"{job}\n", f"{job}\n"]
    again = desk.submit(terms=Terms(forgive=True))
    assert again.script == made.script
    assert subprocess.run(["bash", "-c", head], capture_output=True, text=True, check=True).stdout == "--forgive\n"
    with pytest.raises(JobError, match="no past"):
        desk.submit("name=s", sweeps=("args.a=1,2",), terms=Terms(fresh=True))


def test_a_refusal_of_slurm_leaves_no_job_behind(desk: Desk) -> None:
    desk.program("sbatch", "echo 'sbatch: error: Invalid account' >&2; exit 1")
    with pytest.raises(MachineError, match="Invalid account"):
        desk.submit()
    assert jobs_of(desk.home / "runs" / "job") == []
    desk.program("sbatch", "echo 18")
    assert desk.submit().job_id == "18"


def test_a_sweep_gives_every_combination_a_run_and_slurm_one_array(desk: Desk) -> None:
    made = desk.submit("name=s", sweeps=("args.lr=1e-4,2e-4", "args.m=[q,v],[q, 'k']"), array_parallelism=2)
    home = desk.home / "runs" / "s"
    assert "#SBATCH --array=0-3%2" in made.script
    assert f"--output={home}/s-%a/logs/slurm-%j.log" in made.script
    runs = made.as_json()["runs"]
    assert [run["job_id"] for run in runs] == ["17_0", "17_1", "17_2", "17_3"]
    assert runs[3]["set"] == ["args.lr=2e-4", "args.m=[q, 'k']", "name=s-3", f'run_dir="{home}/s-3"']
    lines = (home / "tasks.tsv").read_text().splitlines()
    assert lines[3].split("\t") == [f"{home}/s-3", *(w for one in runs[3]["set"] for w in ("--set", one))]
    assert {path.stat().st_mode & 0o777 for path in (home, home / "s-0", home / "control")} == {0o700}
    records = [jobs_of(home / f"s-{k}")[0] for k in range(4)]
    assert [record.job_id for record in records] == ["17_0", "17_1", "17_2", "17_3"]
    assert {record.script for record in records} == {str(home / "control" / "slurm.sbatch")}
    desk.program("squeue", shows("PENDING", "17_2"))
    with pytest.raises(OwnedError, match="s-2 is job 17_2 already"):
        desk.submit("name=s", sweeps=("args.lr=1,2,3",))
    assert len([line for line in desk.asked() if line.startswith("squeue")]) == 1


@pytest.mark.parametrize(
    ("sweeps", "words"),
    [
        (("args.lr",), "no key and values"),
        (("args.lr=1,]",), "no list of values"),
        (("args.lr=1]; [2",), "no list of values"),
        (("args.lr=1,2", "args.lr=3"), "given twice"),
        (("a=" + "1," * 50, "b=" + "1," * 50), "an array takes 1000"),
        (("checkpoint.keep_lst=1,2",), "did you mean checkpoint.keep_last"),
        (("args.lr=a\tb",), "control characters"),
    ],
)
def test_a_sweep_that_cannot_work_is_refused(desk: Desk, sweeps: tuple[str, ...], words: str) -> None:
    with pytest.raises(JobError, match=words):
        desk.submit(sweeps=sweeps)
    assert desk.asked() == []


def test_too_little_memory_is_remarked_and_none_too(desk: Desk) -> None:
    assert "the partition's default holds" in desk.submit(dry_run=True).remarks[0]
    assert desk.submit(dry_run=True, mem="4G").remarks == ()
    accept(write(desk.home / "runs" / "job", UNDER_WAY), "launch.processes_per_node=2")
    assert desk.submit("launch.processes_per_node=2", dry_run=True, mem="4G").remarks == (
        "slurm.mem is 4096 MiB, too little for 4096 MiB for the board and 1 GiB for each of 2 processes, "
        "the model not counted",
    )


def accept(run_dir: Path, *overrides: str, allocation: str = "local-1000") -> None:
    """Have the history tell of the mathematics of the job at hand."""
    journal = run_dir / "journal.jsonl"
    digest = mathematics(load_job(Path("job.yaml"), overrides))
    text = journal.read_text().replace('"mathematics": "m"', f'"mathematics": "{digest}"')
    journal.write_text(text.replace("local-1000", allocation))
