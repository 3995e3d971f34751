"""Ports that are chosen now and listened on later."""

from __future__ import annotations

import os
import socket
from itertools import count

#: Below those that the kernel gives to whoever asks for any, and those of slurm/cluster.
_FIRST, _MANY = 10_000, 5_000
_numbers = count(os.getpid() * 61)


def own_port(host: str = "127.0.0.1") -> int:
    """A port that nothing listens on; processes that test at the same time are given others."""
    while True:
        port = _FIRST + next(_numbers) % _MANY
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
