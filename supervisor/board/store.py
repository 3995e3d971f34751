"""The board's files: made exclusively, adopted by the next supervisor of the same run, removed.

A board is a directory that carries the run's id, ``lora-supervisor-<run id>``, 0700, below
the first root that has room: /dev/shm, else $TMPDIR. Node k after the first one adds ``-n<k>``,
since several nodes may be one machine. In it:

    control           orders, beats, replies (`board.pages`)
    bell              a named pipe on which workers wake the supervisor for rare news
    rank-<r>.<g>      the slots of local rank r, generation g of their layout
    history-<a>       the log history of attempt a, a JSON object a line, append-only
    resume-<a>/       what attempt a is to go on from
    anonymous         is there if the regions are memory that only the supervisor holds (`board.regions`)

A region that does not fit below the first root goes to the next one, into a directory of
the same name. Not `multiprocessing.shared_memory`, whose tracker would unlink them with the
process that a successor wants to inherit from.

A supervisor keeps a shared flock on its board's directory, so that no sweep takes it away
(`board.sweep`).
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from supervisor.board.pages import BELL, CONTROL, Control, control_size
from supervisor.board.regions import (
    dangles,
    is_region,
    region_name,
    regions_in,
    reserve_file,
    reserve_memory,
    show_memory,
)
from supervisor.errors import MachineError

PREFIX = "lora-supervisor-"
ANONYMOUS = "anonymous"


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


def board_name(run_id: str, node: int = 0) -> str:
    """What a node's board is called.

    >>> board_name("5f3c"), board_name("5f3c", 2)
    ('lora-supervisor-5f3c', 'lora-supervisor-5f3c-n2')
    """
    return f"{PREFIX}{run_id}-n{node}" if node else PREFIX + run_id


class Board:
    """One run's board on this node, as its supervisor holds it.

    Attributes:
        directory: the main one, which holds the control file.
        control: orders, beats and replies.
        bell: read end of the bell; readable when a worker rang.
        adopted: whether a predecessor left it.
        anonymous: whether regions go with this process, rather than wait for a successor.
    """

    def __init__(
        self,
        run_id: str,
        ranks: int,
        roots: Sequence[Path],
        free_bytes: Callable[[Path | None], int],
        *,
        node: int = 0,
        anonymous: bool = False,
    ) -> None:
        """Make the run's board, or adopt what a killed supervisor of the same run left.

        Args:
            run_id: of the run.
            ranks: of this node.
            roots: directories to try, in order.
            free_bytes: what a root can still give; asked with None, what memory can.
            node: number of this node.
            anonymous: whether regions are to go with this process, rather than wait for a successor.

        Raises:
            MachineError: no root can hold even the control file, or something that is not
                ours stands in the way.
        """
        self._name = board_name(run_id, node)
        self._roots = list(roots)
        self._free_bytes = free_bytes
        self.anonymous = anonymous
        self._memory: dict[Path, int] = {}  # what this process holds, under the path that leads to it
        self.directory, self.adopted, self._occupied = self._occupy(ranks)
        if anonymous:
            (self.directory / ANONYMOUS).touch(mode=0o600)
        else:
            (self.directory / ANONYMOUS).unlink(missing_ok=True)
        self._drop_links()
        self.control = self._open_control(ranks)
        self.bell = self._open_bell()

    def _occupy(self, ranks: int) -> tuple[Path, bool, int]:
        """The directory, whether it was there, and the descriptor that keeps sweeps off it."""
        while True:
            left = next((d for d in self._directories() if (d / CONTROL).is_file()), None)
            directory = left or self._make_directory(control_size(ranks))
            with suppress(FileNotFoundError):
                descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                with suppress(OSError):  # no locks here: then it is not swept either
                    fcntl.flock(descriptor, fcntl.LOCK_SH)
                if directory.exists() and os.path.samestat(os.fstat(descriptor), directory.lstat()):
                    return directory, left is not None, descriptor
                os.close(descriptor)  # it was being swept away

    def _drop_links(self) -> None:
        """Links of a predecessor lead nowhere, or to memory that goes with it."""
        for path in self.directory.iterdir():
            if is_region(path.name) and path.is_symlink():
                path.unlink()

    def _hold(self, path: Path, descriptor: int) -> None:
        self._let_go(path)
        self._memory[path] = descriptor
        show_memory(path, descriptor)

    def _let_go(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        if path in self._memory:
            os.close(self._memory.pop(path))

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
        while True:
            try:
                directory.mkdir(mode=0o700)  # exclusive, and never through a link
            except FileExistsError:
                if not _is_ours(directory):
                    if not os.path.lexists(directory):
                        continue  # it was being swept away
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
        return sorted((one for d in self._directories() for one in regions_in(d, rank)), reverse=True)

    def allocate(self, rank: int, generation: int, size: int, spare: int = 0) -> Path:
        """Make a region, exclusively and with its memory reserved.

        Args:
            rank: local rank that it is for.
            generation: of its layout.
            size: in bytes.
            spare: bytes that must be left beside it, for the copy that a resume is made from.

        Raises:
            MachineError: there is no room for it; the message says how large it is.
        """
        tried = []
        name = region_name(rank, generation)
        for root in [None] if self.anonymous else self._roots:
            free = self._free_bytes(root)
            where = "memory" if root is None else str(root)
            tried.append(f"{where} has {human_bytes(free)} to spare")
            if free < size + spare:
                continue
            try:
                return self._allocate_in(root, name, size)
            except OSError as error:
                tried[-1] = f"{where}: {error.strerror}"
        raise MachineError(
            f"the board of local rank {rank} needs {human_bytes(size)} for its snapshots, but {'; '.join(tried)}",
            "ask for more memory, point TMPDIR at a fast local disk with room, or set `checkpoint.snapshot: off` "
            "and do without checkpoints",
        )

    def _allocate_in(self, root: Path | None, name: str, size: int) -> Path:
        if root is not None:
            path = self._directory_below(root) / name
            self._let_go(path)
            reserve_file(path, size)
            return path
        path = self.directory / name
        self._let_go(path)  # a half-made one: its memory comes back before more is taken
        self._hold(path, reserve_memory(path, size))
        return path

    def drop_regions(self, rank: int, below: int) -> None:
        """Remove the regions of a rank whose generation is older than ``below``."""
        for generation, path in self.regions(rank):
            if generation < below:
                self._let_go(path)

    def size_bytes(self) -> int:
        """What the board takes now."""
        total = sum(os.fstat(descriptor).st_blocks * 512 for descriptor in self._memory.values())
        for directory in self._directories():
            for place, _, names in os.walk(directory):  # unlike rglob it does not mind what vanishes meanwhile
                for name in names:
                    try:
                        total += os.lstat(os.path.join(place, name)).st_blocks * 512  # noqa: PTH118
                    except FileNotFoundError:
                        continue
        return total

    def close(self) -> None:
        """Let go of it; named regions stay for a successor, anonymous ones go, and with the last one the board."""
        for path in [*self._memory]:
            self._let_go(path)
        if self.anonymous and not holds_regions(self.directory):
            shutil.rmtree(self.directory, ignore_errors=True)
        self.control.close()
        os.close(self.bell)
        os.close(self._occupied)

    def remove(self) -> None:
        """Let go of it and take its files away."""
        for directory in self._directories():
            shutil.rmtree(directory, ignore_errors=True)
        self.close()


def left_behind(run_id: str, roots: Sequence[Path], node: int | None = None) -> list[Path]:
    """Directories of a run's board that exist below these roots, those of every node if none is named."""
    if node is not None:
        return [root / board_name(run_id, node) for root in roots if _is_ours(root / board_name(run_id, node))]
    names = re.compile(re.escape(PREFIX + run_id) + r"(-n\d+)?")
    return [path for root in roots for path in ours_below(root) if names.fullmatch(path.name)]


def remove_boards(run_id: str, roots: Sequence[Path], node: int | None = None) -> None:
    """Take away what a run left: nothing in it is needed any more."""
    for directory in left_behind(run_id, roots, node):
        shutil.rmtree(directory, ignore_errors=True)


def holds_regions(directory: Path) -> bool:
    """Whether a board has a region that can still be opened."""
    try:
        return any(is_region(path.name) and not dangles(path) for path in directory.iterdir())
    except FileNotFoundError:
        return False


def ours_below(root: Path) -> list[Path]:
    """Boards of this user below a root, whosever run they are of."""
    try:
        return sorted(path for path in root.glob(f"{PREFIX}*") if _is_ours(path))
    except OSError:
        return []


def _is_ours(path: Path) -> bool:
    """Whether this is a real directory that belongs to this user and that nobody else may enter."""
    try:
        seen = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid() and not seen.st_mode & 0o077
