"""What this room raises when a store refuses."""

from __future__ import annotations

from supervisor.errors import ExitCode, OwnedError, SupervisorError


class StoreError(SupervisorError):
    """The store cannot be reached, or fails: the same may work later."""

    exit_code = ExitCode.HANDED_BACK


class StoreRefusedError(SupervisorError):
    """The store answers, and does not want to: credentials, a missing bucket."""


class StoreOwnedError(OwnedError):
    """Somebody else owns the run that is mirrored here."""


class ConditionError(Exception):
    """A conditional write found something else than it was to replace."""


class NoConditionsError(Exception):
    """The store knows no conditional writes."""
