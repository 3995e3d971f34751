"""A file system of one's own that errs as local ones do: ext4 in a file, which hangs, or is read-only from now on.

Files that are open for writing do not hinder the latter, unlike a remount, which the kernel refuses then.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SIZE_BYTES = 64 << 20


@contextmanager
def tmpfs(place: Path, options: str) -> Iterator[Path]:
    """A small file system that is really full; mounting one takes root."""
    place.mkdir(exist_ok=True)
    _possible("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


class Ext4:
    """Mounted at `place`; its image lies beside it."""

    def __init__(self, place: Path) -> None:
        self.place, self._image, self._number = place, place.with_name(f"{place.name}.0"), 0
        place.mkdir()
        with self._image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        _possible("mkfs.ext4", "-q", "-F", str(self._image))
        self._device = self._mount()

    def _mount(self) -> str:
        device = _possible("losetup", "--find", "--show", str(self._image)).strip()
        try:
            _possible("mount", "-o", "errors=remount-ro", device, str(self.place))
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)  # as soon as nothing uses it
        return device

    def err(self) -> None:
        """Have it find an error in itself: from now on nobody can write, whatever is open."""
        trigger = Path("/sys/fs/ext4", Path(self._device).name, "trigger_fs_error")
        try:
            trigger.write_text("asked for by a test")
        except OSError as error:
            pytest.skip(f"an ext4 cannot be made to err here: {error}")

    def freeze(self) -> None:
        """Whatever writes waits from now on, uninterruptibly."""
        subprocess.run(["fsfreeze", "--freeze", str(self.place)], check=True)

    def thaw(self) -> None:
        """It goes on, if it was frozen."""
        subprocess.run(["fsfreeze", "--unfreeze", str(self.place)], check=False, capture_output=True)

    def go(self) -> None:
        """Nothing is seen in its place any more; who has a file of it open has that of the old one."""
        subprocess.run(["umount", "--lazy", str(self.place)], check=True)

    def come_back(self) -> None:
        """It is mounted anew, mended, and with all that was synced."""
        self._number += 1
        old, self._image = self._image, self._image.with_suffix(f".{self._number}")
        shutil.copyfile(old, self._image)  # what still holds the old one must not write to it
        subprocess.run(["e2fsck", "-fy", str(self._image)], check=False, capture_output=True)
        self._device = self._mount()


def _possible(*command: str) -> str:
    """What a command prints; skips the test where there is none, or it may not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"no file system of one's own here: {error}")
    if done.returncode != 0:
        pytest.skip(f"no file system of one's own here: {done.stderr.strip()}")
    return done.stdout
