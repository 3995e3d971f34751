"""The network interface that an address of this machine belongs to.

gloo listens where the machine's own name points to, which on many clusters is 127.0.1.1; told the interface
that reaches the leader, it listens there.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct

_SIOCGIFADDR = 0x8915  # netdevice(7)


def interface_of(address: str) -> str | None:
    """Name of the interface that has this IPv4 address; None for none, or another kind of address.

    >>> interface_of("127.0.0.1"), interface_of("192.0.2.1"), interface_of("::1")
    ('lo', None, None)
    """
    try:
        wanted = ipaddress.IPv4Address(address)
    except ValueError:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # it has none
            if ipaddress.IPv4Address(answer[20:24]) == wanted:
                return name
    return None
