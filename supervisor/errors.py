"""What can go wrong outside of training, one class per person who can help.

A failed attempt is not here: it is a value (`supervisor.policy.causes`). Each
error is built from facts, kept as attributes; the sentence is made in
`__str__`, in lower case, and names the thing and the remedy. `supervisor.cli`
turns an error into its exit code, in one place.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a `supervisor` command leaves with; the contract of the command line."""

    FINISHED = 0
    BUG = 1
    USAGE = 2
    GAVE_UP = 3
    HANDED_BACK = 75  # EX_TEMPFAIL of sysexits.h: the run is not over
    STOPPED = 130  # what shells report for SIGINT


class SupervisorError(Exception):
    """Something outside refused.

    Attributes:
        problem: what is wrong, naming the thing.
        remedy: what to do about it.
    """

    exit_code = ExitCode.USAGE

    def __init__(self, problem: str, remedy: str) -> None:
        # All arguments go to Exception, so that the error survives pickling.
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


class JobError(SupervisorError):
    """The job file, or what it names, cannot work: its author can help.

    Attributes:
        where: `file:line` of the offending key, or None for what has no line.
    """

    def __init__(self, problem: str, remedy: str, where: str | None = None) -> None:
        super().__init__(problem, remedy)
        self.args = (problem, remedy, where)
        self.where = where

    def __str__(self) -> str:
        return f"{self.where}: {super().__str__()}" if self.where else super().__str__()


class MachineError(SupervisorError):
    """This machine lacks what the run needs (memory, GPUs, a program)."""


class OwnedError(SupervisorError):
    """Somebody else owns the run directory."""


class TakenOverError(OwnedError):
    """Somebody else owns the run now; it goes on there."""

    exit_code = ExitCode.HANDED_BACK


class DiskError(SupervisorError):
    """The file system refused, or holds too little."""


class GaveUpError(SupervisorError):
    """The run cannot go on by itself; a person has to look."""

    exit_code = ExitCode.GAVE_UP
