"""A detached run: in a scope of the user's own systemd where that outlives the logout, else on its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import until

from supervisor.owner import start_ticks

#: Runs the command in its own place, as the real one does, and writes down how it was called.
SYSTEMD_RUN = """#!/bin/sh
echo "systemd-run $*" >> "$ASKED"
{before}
while [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""


@dataclass
class Machine:
    """Commands that stand for systemd's, and a job."""

    base: Path

    def install(self, name: str, text: str) -> None:
        path = self.base / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def systemd(self, *, linger: str = "echo yes", before: str = "") -> None:
        self.install("loginctl", f'#!/bin/sh\necho "loginctl $*" >> "$ASKED"\n{linger}\n')
        self.install("systemd-run", SYSTEMD_RUN.format(before=before))

    @property
    def asked(self) -> list[str]:
        path = self.base / "asked"
        return path.read_text().splitlines() if path.exists() else []

    def detach(self, *flags: str) -> subprocess.CompletedProcess[str]:
        (self.base / "program.py").write_text("import time\ntime.sleep(600)\n")
        job = self.base / "job.yaml"
        job.write_text(f"program: {self.base}/program.py\nrun_dir: {self.base}/run of mine\nhooks: 'off'\n")
        return subprocess.run(
            [sys.executable, "-m", "supervisor", "run", str(job), "--detach", *flags],
            env={
                **os.environ,
                "PATH": f"{self.base}/bin:{os.environ['PATH']}",
                "ASKED": f"{self.base}/asked",
                "A": "é b",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def assert_runs_by_itself(machine: Machine, done: subprocess.CompletedProcess[str]) -> None:
    """It took the run, with this environment and in this directory, in a session of its own; then it is ended."""
    run_dir = machine.base / "run of mine"
    assert done.returncode == 0, done.stderr
    words = done.stderr.split()
    pid = int(words[words.index("pid") + 1].rstrip(";"))
    assert done.stderr == f"running as pid {pid}; `supervisor watch {run_dir}` shows it\n"
    try:
        assert os.getsid(pid) == pid != os.getsid(0)
        assert b"A=\xc3\xa9 b" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert Path(f"/proc/{pid}/cwd").readlink() == Path.cwd()
        assert Path(f"/proc/{pid}/exe").samefile(sys.executable)
    finally:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not start_ticks(pid), "end of it")
    assert "notice: SIGTERM" in (run_dir / "supervisor.log").read_text()


def test_a_user_who_lingers_has_it_in_a_scope_with_its_environment_and_none_of_it_on_a_command_line(
    machine: Machine,
) -> None:
    machine.systemd()
    done = machine.detach("--set", "recovery.grace=1 s")
    asked, probed, ran = machine.asked
    assert asked == f"loginctl show-user {os.getuid()} --property=Linger --value"
    assert probed == "systemd-run --user --scope --quiet --collect -- true"
    assert ran.startswith("systemd-run --user --scope --quiet --collect --unit=supervisor-run-of-mine-")
    assert ran.endswith(f" -- {sys.executable} -m supervisor run {machine.base}/job.yaml --set recovery.grace=1 s")
    assert_runs_by_itself(machine, done)


@pytest.mark.parametrize(
    ("linger", "before"),
    [
        ("echo no", ""),  # the user's systemd ends at logout, and takes all with it
        ("echo no such user >&2; exit 1", ""),
        ("echo yes", "echo 'Failed to connect to bus' >&2; exit 1"),
    ],
    ids=["does not linger", "no logind", "no systemd of the user's"],
)
def test_whoever_has_no_such_systemd_has_it_as_ever(machine: Machine, linger: str, before: str) -> None:
    machine.systemd(linger=linger, before=before)
    assert_runs_by_itself(machine, machine.detach())
    assert not any("supervisor" in line for line in machine.asked)


def test_a_systemd_that_does_not_answer_is_not_waited_for(machine: Machine) -> None:
    machine.systemd(linger="exec sleep 60")
    began_s = time.monotonic()
    done = machine.detach()
    assert_runs_by_itself(machine, done)
    assert time.monotonic() - began_s < 55.0


@pytest.mark.parametrize("scoped", [True, False])
def test_one_that_is_refused_says_so_here_and_leaves_with_its_own_code(machine: Machine, scoped: bool) -> None:
    if scoped:
        machine.systemd()
    else:
        machine.install("loginctl", "#!/bin/sh\nexit 1\n")
    done = machine.detach("--node-rank", "1")
    assert done.returncode == 2
    assert "--nodes" in done.stderr
    assert any("--unit=supervisor-" in line for line in machine.asked) is scoped
