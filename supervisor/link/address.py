"""Where a leader listens, and the token that both ends prove; a record that can be written to a file."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from supervisor.owner import whole

TOKEN_BYTES = 32


def new_token() -> bytes:
    """A token that nobody can guess."""
    return secrets.token_bytes(TOKEN_BYTES)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect, and what to prove.

    Attributes:
        host: a number such as `10.0.0.7` or `fe80::7%ib0`; a name would have to be looked up, which can block.
        port: from 1 to 65535.
        token: 32 bytes; never shown.
    """

    host: str
    port: int
    token: bytes = field(repr=False)

    def __post_init__(self) -> None:
        ipaddress.ip_address(self.host)

    def encode(self) -> dict[str, Any]:
        """The address as JSON holds it, token included: for a file that only its owner can read."""
        return {"host": self.host, "port": self.port, "token": self.token.hex()}

    @staticmethod
    def parse(values: Any) -> Address | None:
        """Read back what `encode` gave; None for anything else.

        >>> Address.parse({"host": "10.0.0.7", "port": 4711, "token": "ab" * 32})
        Address(host='10.0.0.7', port=4711)
        >>> Address.parse({"host": "10.0.0.7", "port": 4711, "token": "ab"}) is None
        True
        """
        if not isinstance(values, Mapping):
            return None
        host, port, token = values.get("host"), whole(values.get("port")), values.get("token")
        if not isinstance(host, str) or not port or port >= 1 << 16:
            return None
        if not isinstance(token, str) or not re.fullmatch(f"[0-9a-f]{{{2 * TOKEN_BYTES}}}", token):
            return None
        try:
            return Address(host, port, bytes.fromhex(token))
        except ValueError:
            return None
