"""The board's files: made exclusively, adopted by the next supervisor of the same run, removed.

A board is a directory that carries the run's id, ``lora-supervisor-<run id>``, 0700, below
the first root that has room: /dev/shm, else $TMPDIR. In it:

    control           orders, beats, replies (`board.pages`)
    bell              a named pipe on which workers wake the supervisor for rare news
    rank-<r>.<g>      the slots of local rank r, generation g of their layout
    history-<a>       the log history of attempt a, a JSON object a line, append-only
    resume-<a>/       what attempt a is to go on from

A region that does not fit below the first root goes to the next one, into a directory of
the same name. Named files, not `multiprocessing.shared_memory`, whose tracker would unlink
them with the process that a successor wants to inherit from.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from supervisor.board.pages import BELL, CONTROL, Control, control_size
from supervisor.errors import MachineError

PREFIX = "lora-supervisor-"
_REGION = re.compile(r"rank-(\d+)\.(\d+)")


def human_bytes(count: float) -> str:
    """A size for people.

    >>> human_bytes(480_000_000), human_bytes(12)
    ('457.8 MiB', '12 B')
    """
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


class Board:
    """One run's board on this node, as its supervisor holds it.

    Attributes:
        directory: the main one, which holds the control file.
        control: orders, beats and replies.
        bell: read end of the bell; readable when a worker rang.
        adopted: whether a predecessor left it.
    """

    def __init__(
        self,
        run_id: str,
        ranks: int,
        roots: Sequence[Path],
        free_bytes: Callable[[Path], int],
    ) -> None:
        """Make the run's board, or adopt what a killed supervisor of the same run left.

        Args:
            run_id: of the run.
            ranks: of this node.
            roots: directories to try, in order.
            free_bytes: what a root can still give.

        Raises:
            MachineError: no root can hold even the control file, or something that is not
                ours stands in the way.
        """
        self._name = PREFIX + run_id
        self._roots = list(roots)
        self._free_bytes = free_bytes
        existing = [root / self._name for root in self._roots if _is_ours(root / self._name)]
        left = next((d for d in existing if (d / CONTROL).is_file()), None)
        self.adopted = left is not None
        self.directory = left if left is not None else self._make_directory(control_size(ranks))
        self.control = self._open_control(ranks)
        self.bell = self._open_bell()

    def _make_directory(self, size: int) -> Path:
        tried = []
        for root in self._roots:
            free = self._free_bytes(root)
            tried.append(f"{root} has {human_bytes(free)} to spare")
            if free < size:
                continue
            try:
                return self._directory_below(root)
            except OSError as error:
                tried[-1] = f"{root}: {error.strerror}"
        raise MachineError(
            f"no room for the {human_bytes(size)} control file of the board: {'; '.join(tried)}",
            "give the container a larger /dev/shm (--shm-size), or point TMPDIR at a disk with room",
        )

    def _directory_below(self, root: Path) -> Path:
        directory = root / self._name
        try:
            directory.mkdir(mode=0o700)  # exclusive, and never through a link
        except FileExistsError:
            if not _is_ours(directory):
                raise MachineError(
                    f"{directory} is there already and is not a directory that only you can open",
                    "have it removed; somebody may be trying to read your training state",
                ) from None
        return directory

    def _open_control(self, ranks: int) -> Control:
        path = self.directory / CONTROL
        if path.is_file() and path.stat().st_size == control_size(ranks):
            control = Control(path)
            if control.valid():
                return control
            control.close()
        path.unlink(missing_ok=True)
        return Control.create(path, ranks)

    def _open_bell(self) -> int:
        path = self.directory / BELL
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)
        # O_RDWR: the pipe never shows an end of file when the last worker closes it.
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def hush(self) -> bool:
        """Empty the bell; whether it had rung."""
        try:
            return bool(os.read(self.bell, 65536))
        except BlockingIOError:
            return False

    def _directories(self) -> list[Path]:
        return [root / self._name for root in self._roots if _is_ours(root / self._name)]

    def regions(self, rank: int) -> list[tuple[int, Path]]:
        """Generation and path of each region of a local rank, newest generation first."""
        found = []
        for directory in self._directories():
            for entry in directory.iterdir():
                match = _REGION.fullmatch(entry.name)
                if match and int(match[1]) == rank:
                    found.append((int(match[2]), entry))
        return sorted(found, reverse=True)

    def allocate(self, rank: int, generation: int, size: int, spare: int = 0) -> Path:
        """Make a region, exclusively and with its memory reserved.

        Args:
            rank: local rank that it is for.
            generation: of its layout.
            size: in bytes.
            spare: bytes that must be left beside it, for the copy that a resume is made from.

        Raises:
            MachineError: no root can hold it; the message says how large it is.
        """
        tried = []
        for root in self._roots:
            free = self._free_bytes(root)
            tried.append(f"{root} has {human_bytes(free)} to spare")
            if free < size + spare:
                continue
            try:
                path = self._directory_below(root) / f"rank-{rank}.{generation}"
                _reserve(path, size)
            except OSError as error:
                tried[-1] = f"{root}: {error.strerror}"
                continue
            return path
        raise MachineError(
            f"the board of local rank {rank} needs {human_bytes(size)} for its snapshots, but {'; '.join(tried)}",
            "ask for more memory, point TMPDIR at a fast local disk with room, or set `checkpoint.snapshot: off` "
            "and do without checkpoints",
        )

    def drop_regions(self, rank: int, below: int) -> None:
        """Remove the regions of a rank whose generation is older than ``below``."""
        for generation, path in self.regions(rank):
            if generation < below:
                path.unlink(missing_ok=True)

    def size_bytes(self) -> int:
        """What the board takes now."""
        total = 0
        for directory in self._directories():
            for place, _, names in os.walk(directory):  # unlike rglob it does not mind what vanishes meanwhile
                for name in names:
                    try:
                        total += os.lstat(os.path.join(place, name)).st_blocks * 512  # noqa: PTH118
                    except FileNotFoundError:
                        continue
        return total

    def close(self) -> None:
        """Let go of it; the files stay for a successor."""
        self.control.close()
        os.close(self.bell)

    def remove(self) -> None:
        """Let go of it and take its files away."""
        directories = self._directories()
        self.close()
        for directory in directories:
            shutil.rmtree(directory, ignore_errors=True)


def left_behind(run_id: str, roots: Sequence[Path]) -> list[Path]:
    """Directories of a run's board that exist below these roots."""
    return [root / (PREFIX + run_id) for root in roots if _is_ours(root / (PREFIX + run_id))]


def remove_boards(run_id: str, roots: Sequence[Path]) -> None:
    """Take away what a run left: nothing in it is needed any more."""
    for directory in left_behind(run_id, roots):
        shutil.rmtree(directory, ignore_errors=True)


def _reserve(path: Path, size: int) -> None:
    """Make a file, exclusively, 0600, its memory reserved: a full file system is an error here, not SIGBUS later."""
    path.unlink(missing_ok=True)  # a half-made one of a killed predecessor
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(descriptor)


def _is_ours(path: Path) -> bool:
    """Whether this is a real directory that belongs to this user and that nobody else may enter."""
    try:
        seen = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid() and not seen.st_mode & 0o077
