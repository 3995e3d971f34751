"""What the supervisor and the process that keeps its mirror tell each other: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from supervisor.owner import Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the keeper is to do.

    Attributes:
        url: of the mirror; the run's name is part of it.
        run_dir: of the run.
        owner: the supervisor.
        over: jobs that the scheduler says are over.
        epoch: under which the run directory is ours.
        keep_last: how many of the newest checkpoints stay.
        run_id: of the run as the run directory has it; None where it has none.
        fresh: the run begins anew, whatever there is.
        late: the run is under way already: nothing may be brought into its directory.
    """

    url: str
    run_dir: str
    owner: Owner
    over: tuple[str, ...]
    epoch: int
    keep_last: int
    run_id: str | None
    fresh: bool
    late: bool = False

    def encode(self) -> dict[str, Any]:
        """The settings as JSON holds them."""
        return asdict(self)

    @staticmethod
    def parse(values: Mapping[str, Any]) -> Settings:
        """Read back what `encode` gave."""
        owner = Owner.parse(values["owner"])
        assert owner is not None
        return Settings(**{**values, "owner": owner, "over": tuple(values["over"])})


def line(what: str, /, **fields: Any) -> bytes:
    r"""One message.

    >>> line("look")
    b'{"what": "look"}\n'
    """
    return json.dumps({"what": what, **fields}).encode() + b"\n"


class Lines:
    """Puts bytes together to messages."""

    def __init__(self) -> None:
        self._left = b""

    def take(self, data: bytes) -> list[dict[str, Any]]:
        r"""The messages that are whole now.

        >>> lines = Lines()
        >>> lines.take(b'{"what": "lo'), lines.take(b'ok"}\n')
        ([], [{'what': 'look'}])
        """
        *whole, self._left = (self._left + data).split(b"\n")
        return [json.loads(one) for one in whole]


def address(prefix: str, name: str) -> str:
    """Where a run's mirror is.

    >>> address("s3://bucket/runs/", "demo")
    's3://bucket/runs/demo'
    """
    return f"{prefix.rstrip('/')}/{name}"
