"""A listening socket, and enough descriptors for whoever comes in."""

from __future__ import annotations

import errno
import fcntl
import resource
import socket

#: As many as the kernel queues at most before they are let in (net.core.somaxconn caps it).
_BACKLOG = 4096

#: `select` takes descriptors below 1024 only. From here on connections move above that, so that whoever
#: calls it in this process still finds low ones, however many members there are.
_LOW = 512
_HIGH = 1024

#: How far the soft limit is raised at a time, and how long to wait where nothing helps [s].
_MORE = 4096
_PAUSE_S = 0.5


class Door:
    """Listens on one address.

    Attributes:
        address: it: a number and a port.
        fd: readable when somebody is there.
    """

    def __init__(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            OSError: that address cannot be listened on.
        """
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._socket = socket.socket(family, kind, protocol)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(where)
            self._socket.listen(_BACKLOG)
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise
        host, port = self._socket.getsockname()[:2]
        self.address = (host, port)
        self.fd = self._socket.fileno()
        self._failed = False
        self._shut_until_s = 0.0

    def open(self) -> socket.socket | None:
        """The next connection; None if there is none, or none can be had now.

        Source:
            accept(2): errors of the new connection are reported here, and mean the next one is to be tried.
        """
        while True:
            try:
                return _moved(self._socket.accept()[0])
            except (BlockingIOError, InterruptedError):
                return None
            except ConnectionError:
                continue
            except OSError as error:
                if error.errno == errno.EMFILE and _raise_limit():
                    continue
                self._failed = True
                return None

    def shut(self, now_s: float) -> bool:
        """Whether it is of no use to look now: descriptors or memory have run out, and wait for better times."""
        if self._failed:
            self._failed, self._shut_until_s = False, now_s + _PAUSE_S
        return now_s < self._shut_until_s

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def _moved(connection: socket.socket) -> socket.socket:
    """The same connection, with a high descriptor if low ones become rare and high ones can be had."""
    if not _LOW <= connection.fileno() < _HIGH:
        return connection
    for _ in range(2):
        try:
            high = fcntl.fcntl(connection.fileno(), fcntl.F_DUPFD_CLOEXEC, _HIGH)
        except OSError:  # EINVAL: the limit is below it; EMFILE: all are taken
            if not _raise_limit():
                break
        else:
            connection.close()
            return socket.socket(fileno=high)
    return connection


def _raise_limit() -> bool:
    """Raise the soft limit of descriptors towards the hard one; False if it is there already.

    Children inherit it; those that count on the low one are those that call `select`, and they
    only fail beyond 1,024 open files.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = soft + _MORE if hard == resource.RLIM_INFINITY else min(hard, soft + _MORE)
    if wanted <= soft:
        return False
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return False
    return True
