"""A systemd unit that resumes a run at boot: made as text, shown, and only then installed.

What this does not protect against: what the shell of its user sets beyond `PATH`. A job that needs more names
it under `env`.
"""

from __future__ import annotations

import math
import os
import pwd
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.errors import DiskError, ExitCode, MachineError

#: With these the same command would do the same again, or a user wants none.
FINAL = (ExitCode.FINISHED, ExitCode.USAGE, ExitCode.GAVE_UP, ExitCode.STOPPED)
#: What stands between a stop and SIGKILL besides the grace: the last commit, and the last words [s].
STOP_MARGIN_S = 30.0
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MARK = "# Made by `supervisor install-service` for "
_PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What a unit is made of.

    Attributes:
        name: of the job.
        run_dir: of the run.
        command: the program's absolute path, and its arguments.
        directory: to run it in.
        grace_s: how long a drain may take [s].
        user: whose the processes are, of a unit of the system; None for one of the user's own.
    """

    name: str
    run_dir: Path
    command: tuple[str, ...]
    directory: Path
    grace_s: float
    user: str | None = None

    @property
    def unit(self) -> str:
        """Name of the unit.

        >>> Service(name="my job", run_dir=Path("/r"), command=(), directory=Path("/"), grace_s=1.0).unit
        'supervisor-my-job.service'
        """
        return f"supervisor-{re.sub(r'[^A-Za-z0-9_.-]+', '-', self.name)[:100]}.service"


def unit_text(service: Service) -> str:
    """The unit file.

    Raises:
        MachineError: a path or an argument holds what no unit file can hold.
    """
    program, *arguments = service.command
    for text in (*service.command, str(service.directory), str(service.run_dir), service.name):
        if not text.isprintable():
            raise MachineError(f"{text!r} cannot stand in a unit file", "rename it: it holds control characters")
    if any(mark in program for mark in "\"'\\"):
        raise MachineError(f"systemd starts no program whose path holds quotes: {program}", "install it elsewhere")
    if str(service.directory)[-1] in " \\":
        raise MachineError(f"systemd cannot be told to work in {service.directory}", "start from another directory")
    # A unit of a user's own sees none of the system's targets, and starts when the network is long there.
    network = ("Wants=network-online.target", "After=network-online.target") if service.user is not None else ()
    lines = [
        f"{_MARK}{service.run_dir}",
        "[Unit]",
        f"Description=Training of {_specified(service.name)}, resumed at boot",
        *network,
        "",
        "[Service]",
        "Type=exec",
        *([f"User={service.user}"] if service.user is not None else ()),
        f"WorkingDirectory={_specified(str(service.directory))}",
        f"Environment={_quoted(f'PATH={Path(program).parent}:{_SYSTEM_PATH}')}",
        # systemd expands variables in arguments, not in the program's own path.
        " ".join([f"ExecStart={_quoted(program)}", *(_quoted(word).replace("$", "$$") for word in arguments)]),
        "Restart=on-failure",
        "RestartSec=30",
        f"RestartPreventExitStatus={' '.join(str(code.value) for code in FINAL)}",
        # 75 is no failure, and not the end of the run.
        f"SuccessExitStatus={ExitCode.HANDED_BACK.value}",
        f"RestartForceExitStatus={ExitCode.HANDED_BACK.value}",
        # Its workers are the supervisor's business; what is left after it is killed.
        "KillMode=mixed",
        f"TimeoutStopSec={math.ceil(service.grace_s + STOP_MARGIN_S)}",
        "",
        "[Install]",
        f"WantedBy={'default' if service.user is None else 'multi-user'}.target",
    ]
    return "\n".join(lines) + "\n"


def _specified(text: str) -> str:
    """Text in which systemd would otherwise fill in its specifiers."""
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    r"""One word of a command line, or one assignment.

    >>> _quoted('50 % of "it"')
    '"50 %% of \\"it\\""'

    Source:
        systemd.syntax(7), "Quoting"; systemd.unit(5), "Specifiers".
    """
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_specified(escaped)}"'


def account(environment: Mapping[str, str]) -> str:
    """Whose processes a unit of the system is to have: who calls, also through `sudo`."""
    return environment.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name


def unit_directory(service: Service, environment: Mapping[str, str]) -> Path:
    """Where systemd looks for such units."""
    if service.user is not None:
        return Path("/etc/systemd/system")
    told = environment.get("XDG_CONFIG_HOME")
    return (Path(told) if told else Path(environment.get("HOME") or Path.home()) / ".config") / "systemd" / "user"


def install(service: Service, directory: Path) -> Path:
    """Write the unit file, where none but this run's own is replaced.

    Args:
        service: what it is made of.
        directory: where to.

    Raises:
        MachineError: it cannot be made, or another unit has this name.
        DiskError: it cannot be written.
    """
    text, path = unit_text(service), directory / service.unit
    try:
        before = path.read_text(errors="replace") if path.exists() else None
        if before is not None and before.splitlines()[:1] != text.splitlines()[:1]:
            raise MachineError(f"{path} is there already, and not of this run", "give the job another `name`")
        directory.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
    except OSError as error:
        raise DiskError(
            f"{path} cannot be written: {error.strerror}", "use --print, and put it there with the rights it takes"
        ) from error
    return path


def enabling(service: Service) -> list[list[str]]:
    """The commands after which systemd starts it at boot."""
    systemctl = ["systemctl"] if service.user is not None else ["systemctl", "--user"]
    return [[*systemctl, "daemon-reload"], [*systemctl, "enable", service.unit]]


def enable(service: Service) -> None:
    """Have systemd start it at boot.

    Raises:
        MachineError: there is no systemd that answers, or it refuses.
    """
    for command in enabling(service):
        said = " ".join(command)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MachineError(f"`{said}` did not work: {error}", "the unit is written; enable it by hand") from error
        if done.returncode != 0:
            words = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise MachineError(f"`{said}` did not work: {words}", "the unit is written; enable it by hand")
