"""What a member without its leader reads in the run directory: where it is, whether it has left, whether it lives.

A cut that takes the leader away often takes the file system along, and then every read hangs: nobody
waits for one here, and what was read last counts until the next is over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from supervisor.engine.disk import Disk, Pending
from supervisor.engine.members.meeting import Over, find
from supervisor.engine.members.place import Stand
from supervisor.link.address import Address

T = TypeVar("T")


@dataclass(slots=True)
class Whereabouts:
    """Asks on a thread.

    Attributes:
        run_dir: of the run.
        stand: this node's place.
    """

    run_dir: Path
    stand: Stand
    _found: Address | Over | None = None
    _pending: Pending[Any] | None = None
    _disk: Disk = field(default_factory=Disk)

    def ask(self, question: Callable[[], T], unknown: T) -> T:
        """The answer to a question that has to be read; ``unknown`` while the disk hangs."""
        if self._pending is not None and not self._pending.over:
            return unknown
        self._pending = pending = self._disk.do(question)
        return pending.result() if pending.over else unknown

    def leader(self) -> Address | None:
        """Where it listens: as the command line says, and with the token that it left in the run directory."""
        host, port, token = self.stand.host, self.stand.port, self.stand.token
        if host is not None and token is not None:
            return Address(host, port, token)
        found = self._find()
        if not isinstance(found, Address):
            return None
        return found if host is None else replace(found, host=host, port=port)

    def over(self) -> Over | None:
        """How a scheduler's leader left; outside of one nobody says."""
        found = self._find() if self.stand.allocation else None
        return found if isinstance(found, Over) else None

    def _find(self) -> Address | Over | None:
        self._found = self.ask(lambda: find(self.run_dir, self.stand.allocation), self._found)
        return self._found
