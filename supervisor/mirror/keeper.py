"""The process that keeps a run's mirror: `python -m supervisor.mirror.keeper`, told on standard input what to do.

It lives as long as the supervisor's end of that pipe: when that closes, it is gone at once, whatever it was at.
One thread listens, one renews the lease, and one does all the rest, in order: so what is being sent is never
cleaned away.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.names import MANIFEST
from supervisor.errors import OwnedError, SupervisorError
from supervisor.lease import RENEW_EVERY_S
from supervisor.mirror.copy import Copy
from supervisor.mirror.holding import Held
from supervisor.mirror.messages import Lines, Settings, line
from supervisor.mirror.refusals import StoreRefusedError

#: After a failure it is tried again after so long, and twice as long each time, up to the last [s].
PAUSE_S = 2.0
LONGEST_PAUSE_S = 60.0
#: How often something that is under way is told of at most [s].
MOVED_S = 1.0
#: How often it looks whether the journal has grown since a checkpoint [s].
SAVE_S = 60.0
#: Pause before an opening is tried again that the store did not answer [s].
REOPEN_S = 5.0


class Keeper:
    """One stay's mirror.

    Attributes:
        commands: what was told and has not been done.
        given_up: names of checkpoints that are damaged and not tried again.
    """

    def __init__(self, tell: Callable[[bytes], None]) -> None:
        self.commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._tell_bytes, self._lock = tell, threading.Lock()
        self._copy: Copy | None = None
        self._owned = threading.Event()
        self._moved_s = 0.0
        self._due, self._pause_s, self._next_s, self._save_s = False, PAUSE_S, 0.0, 0.0
        self.given_up: set[str] = set()

    def run(self) -> None:
        """Do what is told, until it is told to leave."""
        while True:
            command = self._next() or {"what": "nothing"}
            match command["what"]:
                case "open":
                    if not self._open(Settings.parse(command["settings"])):
                        return
                case "adopt":
                    self._adopt(command)
                case "fetch":
                    self._fetch(command["lineage"], command["step"])
                case "look":
                    self._due, self._next_s = True, 0.0
                case "leave":
                    self._leave()
                    return
            self._work()

    # -- what is told

    def _next(self) -> dict[str, Any] | None:
        """The next command; None where there is something else to do first."""
        now_s = time.monotonic()
        wake_s = self._next_s if self._due else max(self._save_s, now_s)
        wait_s = max(0.0, min(wake_s - now_s, SAVE_S)) if self._copy is not None and self._copy.adopted else None
        try:
            return self.commands.get(timeout=wait_s) if wait_s != 0.0 else self.commands.get_nowait()
        except queue.Empty:
            return None

    def _open(self, settings: Settings) -> bool:
        """Take hold of the mirror, however long the store does not answer; False if it refuses."""
        while True:
            copy: Copy | None = None
            try:
                copy = Copy(settings, self._wait, self._moved)
                copy.reach()
                self._tell("reached")
                copy.open()
            except (StoreRefusedError, OwnedError, FlawError) as error:
                owned = isinstance(error, OwnedError)
                problem = getattr(error, "problem", f"{settings.url}: its head is damaged: {error}")
                remedy = getattr(error, "remedy", "choose another `checkpoint.mirror`, or start with --fresh")
                self._tell("refused", problem=problem, remedy=remedy, owned=owned)
                self._release(copy)
                return False
            except (SupervisorError, OSError) as error:
                self._tell("unreachable", problem=str(error))
                time.sleep(REOPEN_S)
                continue
            break
        self._copy = copy
        assert copy.held is not None
        self._renewing(copy.held)
        self._tell("opened", run_id=copy.run_id, committed=copy.committed, restored=copy.restored, commits=copy.told())
        return True

    def _adopt(self, command: dict[str, Any]) -> None:
        copy = self._copy
        if copy is None:
            return
        copy.behind = tuple((int(lineage), int(step)) for lineage, step in command["behind"])
        copy.adopt(command["run_id"])
        self._due, self._next_s, self._save_s = True, 0.0, time.monotonic() + SAVE_S

    def _fetch(self, lineage: int, step: int) -> None:
        copy = self._copy
        if copy is None:
            self._tell("unread", lineage=lineage, step=step, reason="the mirror has not been opened")
            return
        began_s = time.monotonic()
        try:
            made = copy.fetch(lineage, step)
        except FlawError as flaw:
            self._tell("rejected", lineage=lineage, step=step, reason=flaw.reason)
        except (SupervisorError, OSError) as error:
            self._tell("unread", lineage=lineage, step=step, reason=str(error))
        else:
            seconds = time.monotonic() - began_s
            self._tell("fetched", lineage=lineage, step=step, bytes=made.bytes, seconds=seconds)

    def _leave(self) -> None:
        """What is newest is sent, the journal is saved, and the lease is given back."""
        copy = self._copy
        while copy is not None and copy.adopted and self._lost is None:
            try:
                if (newest := next(iter(copy.missing(self.given_up)), None)) is not None and copy.is_newest(newest):
                    self.send(copy, newest)
                copy.save(force=True)
                copy.clean()
                break
            except (OSError, FlawError, SupervisorError) as error:
                if isinstance(error, OwnedError | StoreRefusedError):
                    break
                time.sleep(PAUSE_S)  # the supervisor knows how long there is time for this
        self._release(copy)
        self._tell("left")

    def _release(self, copy: Copy | None) -> None:
        if copy is not None and copy.held is not None:
            with suppress(SupervisorError):
                copy.held.release()

    # -- what is done by itself

    def _work(self) -> None:
        copy, now_s = self._copy, time.monotonic()
        if copy is None or not copy.adopted or self._lost is not None:
            return
        if self._due and now_s >= self._next_s:
            self._attempt(lambda: self._send_one(copy))
        elif not self._due and now_s >= self._save_s:
            self._save_s = now_s + SAVE_S
            self._attempt(copy.save)

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OwnedError as error:
            self._lose(error)
        except (OSError, FlawError, SupervisorError) as error:
            self._tell("failed", problem=str(error))
            self._next_s, self._pause_s = time.monotonic() + self._pause_s, min(2 * self._pause_s, LONGEST_PAUSE_S)
        else:
            self._pause_s = PAUSE_S

    def _send_one(self, copy: Copy) -> None:
        if copy.unsaved:
            copy.save(force=True)
        missing = copy.missing(self.given_up)
        if not missing:
            self._due = False
            self._tell("idle")
            return
        self.send(copy, missing[0])
        copy.clean()

    def send(self, copy: Copy, directory: Path) -> None:
        """Send a checkpoint, or give it up where it is damaged."""
        began_s = time.monotonic()
        try:
            sent = copy.send(directory)
        except FileNotFoundError as error:
            if (directory / MANIFEST).exists():  # else it was deleted meanwhile, for newer ones are there
                self.given_up.add(directory.name)
                self._tell("failed", problem=f"{directory.name} is not sent: {error.filename} is missing")
            return
        except FlawError as flaw:
            self.given_up.add(directory.name)
            self._tell("failed", problem=f"{directory.name} is not sent: {flaw.reason}")
            return
        self._tell(
            "mirrored",
            lineage=sent.manifest.lineage,
            step=sent.manifest.step,
            diverged=sent.manifest.health.diverged,
            bytes=sent.manifest.total_bytes,
            sent_bytes=sent.sent_bytes,
            seconds=time.monotonic() - began_s,
        )

    # -- the lease

    _lost: str | None = None

    def _lose(self, error: OwnedError) -> None:
        if self._lost is None:
            self._lost = error.problem
            self._tell("lost", problem=error.problem, remedy=error.remedy)

    def _renewing(self, held: Held) -> None:
        def renew() -> None:
            while self._lost is None:
                time.sleep(RENEW_EVERY_S)
                try:
                    held.renew()
                except OwnedError as error:
                    self._lose(error)
                except SupervisorError:
                    continue  # nothing is known; a commit asks again before it counts

        threading.Thread(target=renew, name="renewing", daemon=True).start()

    # -- telling

    def _wait(self, seconds: float) -> None:
        time.sleep(seconds)
        self._moved()

    def _moved(self) -> None:
        now_s = time.monotonic()
        if now_s - self._moved_s >= MOVED_S:
            self._moved_s = now_s
            self._tell("moved")

    def _tell(self, what: str, /, **fields: Any) -> None:
        with self._lock:
            self._tell_bytes(line(what, **fields))


def main() -> None:
    """Keep a mirror until the supervisor is gone, or says so."""
    _be_modest()
    keeper = Keeper(_write)
    threading.Thread(target=_listen, args=(keeper.commands.put,), name="listening", daemon=True).start()
    try:
        keeper.run()
    except Exception as error:  # a bug of ours, which nobody would hear of
        _write(line("failed", problem=f"{type(error).__name__}: {error}"))
    os._exit(0)  # the other threads may be in a store that does not answer


def _listen(put: Callable[[dict[str, Any]], None]) -> None:
    lines = Lines()
    while data := os.read(0, 1 << 16):
        for command in lines.take(data):
            put(command)
    os._exit(0)  # the supervisor is gone, and its successor goes on from what is there


def _write(data: bytes) -> None:
    try:
        os.write(1, data)
    except OSError:
        os._exit(0)


def _be_modest() -> None:
    """Let training go first: on a busy machine, and when memory ends, where the kernel is to take this process."""
    os.nice(5)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main()
