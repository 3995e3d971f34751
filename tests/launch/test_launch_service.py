"""A systemd unit: read back by systemd's own rules, checked by systemd itself where it is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import DiskError, MachineError
from supervisor.launch.service import Service, enabling, install, unit_directory, unit_text

HOSTILE = '50 % of $HOME and ${x}; "it\'s" \\ é %h'
SERVICE = Service(
    name="demo",
    run_dir=Path("/data/runs/demo"),
    command=("/venv/bin/python", "-m", "supervisor", "run", "/data/job.yaml"),
    directory=Path("/data"),
    grace_s=30.0,
)


def settings(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and line[0] not in "[#"]
    found = dict(line.split("=", 1) for line in lines)
    assert len(found) == len(lines)
    return found


def words(value: str, *, expands: bool = True) -> list[str]:
    """The words of a setting, by systemd.syntax(7), systemd.unit(5) and systemd.service(5)."""
    found = []
    for at, quoted in enumerate(re.findall(r'"((?:[^"\\]|\\.)*)"', value)):
        word = re.sub(r"\\(.)", r"\1", quoted)
        assert re.fullmatch(r"(?:[^%]|%%)*", word), "a specifier"
        word = word.replace("%%", "%")
        if expands and at > 0:  # the program's own path is taken as it is
            assert re.fullmatch(r"(?:[^$]|\$\$)*", word), "a variable"
            word = word.replace("$$", "$")
        found.append(word)
    return found


TEXT = st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(" %$\"'\\{}#;"), min_size=1)


@given(arguments=st.lists(TEXT), name=TEXT)
def test_systemd_reads_back_the_very_words(arguments: list[str], name: str) -> None:
    program = "/opt/my $envs/50 %/bin/python"
    read = settings(unit_text(replace(SERVICE, command=(program, *arguments), name=name)))
    assert words(read["ExecStart"]) == [program, *arguments]
    [path] = words(read["Environment"], expands=False)
    assert path.startswith("PATH=/opt/my $envs/50 %/bin:/usr/local/sbin:")


def test_it_is_restarted_after_a_failure_and_a_hand_back_and_not_after_an_end() -> None:
    read = settings(unit_text(SERVICE))
    assert (read["Restart"], read["RestartPreventExitStatus"]) == ("on-failure", "0 2 3 130")
    assert (read["SuccessExitStatus"], read["RestartForceExitStatus"]) == ("75", "75")
    assert (read["KillMode"], read["TimeoutStopSec"]) == ("mixed", "60")
    assert read["WantedBy"] == "default.target"
    assert "User" not in read


def test_one_of_the_system_waits_for_the_network_and_runs_as_its_user() -> None:
    read = settings(unit_text(replace(SERVICE, user="ada")))
    assert (read["User"], read["WantedBy"]) == ("ada", "multi-user.target")
    assert (read["Wants"], read["After"]) == ("network-online.target", "network-online.target")


@pytest.mark.parametrize(
    "changes",
    [
        {"directory": Path("/data/with\nnewline")},
        {"command": ("/venv/bin/python", "a\nExecStartPre=/bin/evil")},
        {"run_dir": Path("/data/\x1b[2J")},
        {"command": ('/venv "x"/bin/python', "run")},
        {"directory": Path("/data/ends with a backslash\\")},
        {"directory": Path("/data/ends with a space ")},
    ],
)
def test_what_no_unit_can_hold_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(MachineError):
        unit_text(replace(SERVICE, **changes))  # type: ignore[arg-type]


def verified(unit: Path, user: str | None, runtime: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *(["--user"] if user is None else []), "verify", str(unit)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


@pytest.mark.parametrize("user", [None, "root"])
def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path, user: str | None) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze here")
    place = tmp_path / "my $envs" / "50 %h" / "bin"
    place.mkdir(parents=True)
    (place / "python").symlink_to(sys.executable)
    directory = tmp_path / HOSTILE.replace("/", "")
    directory.mkdir()
    command = (str(place / "python"), "-m", "supervisor", "run", HOSTILE, "--set", f"name={HOSTILE}")
    path = install(replace(SERVICE, command=command, directory=directory, name=HOSTILE, user=user), tmp_path / "units")
    done = verified(path, user, tmp_path)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    broken = path.with_name("broken.service")
    broken.write_text(path.read_text().replace("50 %%h/bin", "elsewhere"))
    assert verified(broken, user, tmp_path).returncode != 0  # it does look


def test_it_is_written_again_for_the_same_run_and_takes_nobody_elses_place(tmp_path: Path) -> None:
    path = install(SERVICE, tmp_path / "units")
    assert path.stat().st_mode & 0o777 == 0o644
    install(replace(SERVICE, grace_s=90.0), tmp_path / "units")
    assert "TimeoutStopSec=120" in path.read_text()
    with pytest.raises(MachineError, match="not of this run; give the job another `name`"):
        install(replace(SERVICE, run_dir=Path("/other")), tmp_path / "units")
    path.write_text("")
    with pytest.raises(MachineError, match="not of this run"):
        install(SERVICE, tmp_path / "units")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match=r"supervisor-demo\.service cannot be written: File exists; use --print"):
        install(SERVICE, tmp_path / "file")


def test_units_lie_where_systemd_looks_for_them() -> None:
    assert unit_directory(SERVICE, {"HOME": "/home/ada"}) == Path("/home/ada/.config/systemd/user")
    assert unit_directory(SERVICE, {"XDG_CONFIG_HOME": "/c", "HOME": "/h"}) == Path("/c/systemd/user")
    assert unit_directory(replace(SERVICE, user="ada"), {}) == Path("/etc/systemd/system")


PROGRAM = (
    "from supervisor.launch.service import *; from tests.launch.test_launch_service import SERVICE; enable(SERVICE)"
)


@pytest.mark.parametrize(("answer", "said"), [("exit 0", ""), ("echo no bus >&2; exit 1", "no bus")])
def test_it_is_enabled_by_the_commands_that_are_printed(tmp_path: Path, answer: str, said: str) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\necho "systemctl $*" >> {tmp_path}/asked\n{answer}\n')
    systemctl.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PATH": f"{tmp_path}:/bin:/usr/bin", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    asked = (tmp_path / "asked").read_text().splitlines()
    if said:
        assert "`systemctl --user daemon-reload` did not work: no bus; the unit is written" in done.stderr
        assert len(asked) == 1
    else:
        assert asked == [" ".join(command) for command in enabling(SERVICE)]


def supervisor(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "supervisor", "install-service", *arguments],
        env={**os.environ, "HOME": str(home), "XDG_CONFIG_HOME": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def test_the_command_prints_writes_and_says_how_to_enable(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    job = tmp_path / "my job.yaml"
    job.write_text(f"name: demo.v2\nprogram: {tmp_path}/train.py\nrun_dir: {tmp_path}/run\n")
    shown = supervisor(str(job), "--print", "--set", "recovery.grace=90 s", home=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert not (tmp_path / ".config").exists()
    read = settings(shown.stdout)
    assert words(read["ExecStart"])[1:] == ["-m", "supervisor", "run", str(job), "--set", "recovery.grace=90 s"]
    assert (read["WorkingDirectory"], read["TimeoutStopSec"]) == (os.getcwd(), "120")
    done = supervisor(str(job), home=tmp_path)
    unit = tmp_path / ".config" / "systemd" / "user" / "supervisor-demo.v2.service"
    assert (done.returncode, done.stdout) == (0, f"{unit}\n")
    assert "  systemctl --user daemon-reload\n  systemctl --user enable supervisor-demo.v2.service\n" in done.stderr
    assert settings(unit.read_text())["TimeoutStopSec"] == "60"
    refused = supervisor(str(tmp_path / "none.yaml"), home=tmp_path)
    assert refused.returncode == 2
