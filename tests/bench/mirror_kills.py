"""kill -9 while a mirror is being written, at random moments: of the process that sends, and of the whole machine.

Measured: a machine (a supervisor's end of a mirror, with no training: it commits small checkpoints one after the
other, as fast as they are taken) is killed 50 times, each time after a random pause. Of three kills one takes the
process that sends, and that machine goes on; two take everything, disk included. A new machine then has nothing
but the address. It has to find the run under its own name, fetch a checkpoint that verifies, not older than the
newest whose commit object was in the store when the old one died, and go on. After the clean-up that follows its
first checkpoint no object may lie there that no commit object and not the head needs, except those of checkpoints
that came since.

Not shown: a store that loses what it has acknowledged.

Run it (exit 1 if anything was lost, torn or leaked):
    python -m tests.bench.mirror_kills --times 50 --seed 5 [--file]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from supervisor.checkpoint.retain import delete
from supervisor.checkpoint.verify import Intact, verify
from supervisor.engine.state.mirroring import Mirroring
from supervisor.journal import JOURNAL, Journal, read
from supervisor.lease import acquire
from supervisor.mirror.cleaning import Cleaner
from supervisor.mirror.layout import HEAD, commits_of, parse_head, pieces_of
from supervisor.mirror.messages import Settings
from supervisor.mirror.store import Store
from supervisor.owner import this_process
from tests.harness import send, until
from tests.stores import RUN, made, s3_server

KEPT = 3
SIZE = 300_000  # of the adapter [B]; its optimizer has twice that


def main() -> None:
    arguments = argparse.ArgumentParser(description="kills while a mirror is written")
    arguments.add_argument("--times", type=int, default=50)
    arguments.add_argument("--seed", type=int, default=5)
    arguments.add_argument("--file", action="store_true", help="a directory in place of an S3 server")
    arguments.add_argument("--machine", nargs=2, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.machine:
        be_a_machine(Path(given.machine[0]), given.machine[1])
        return
    base = Path(tempfile.mkdtemp(prefix="bench-mirror-"))
    with ExitStack() as left:
        url = f"file://{base}/store/demo"
        if not given.file:
            server = left.enter_context(s3_server())
            os.environ.update(server.environment())
            url = f"{server.bucket('bench')}/demo"
        wrong, figures = kills(base, url, given.times, random.Random(given.seed))
    shutil.rmtree(base, ignore_errors=True)
    print(json.dumps({"kills": given.times, **figures, "wrong": wrong}, indent=1))
    sys.exit(1 if wrong else 0)


def kills(base: Path, url: str, times: int, rng: random.Random) -> tuple[list[str], dict[str, int]]:
    """Do all that; what went wrong, and what was counted."""
    wrong: list[str] = []
    figures: Counter[str] = Counter()
    store = Store(url)
    machine = Machine(base / "0", url)
    for number in range(times):
        machine.await_another()
        time.sleep(rng.uniform(0.0, 1.0))  # the random moment
        if rng.randrange(3) == 0:
            figures["keepers"] += 1
            machine.kill_keeper()
            continue
        figures["machines"] += 1
        machine.kill()
        exist = {tuple(map(int, p.rpartition("/")[2][:-5].split("-"))) for p in store.names(commits_of(RUN))}
        figures["pieces on their way"] += len(leaked(store))
        machine = Machine(base / str(number + 1), url)
        start = until(machine.origin, "origin of a new machine", 120)
        if not start["intact"] or start["step"] < max(step for _, step in exist):
            wrong.append(f"kill {number}: there were {sorted(exist)}, it went on from {start}")
        idle = leaked(store)
        machine.await_clean_up()
        still = idle & leaked(store)
        if still:
            wrong.append(f"kill {number}: {len(still)} objects that nobody needs are still there")
    machine.kill()
    return wrong, dict(figures)


def leaked(store: Store) -> set[str]:
    """Pieces that no commit object needs, and not the head."""
    place = pieces_of(RUN)
    there = {path.removeprefix(place) for path in store.names(place)}
    head = store.get(HEAD)
    needed = set() if head is None else set(parse_head(head.data).all_pieces)
    for one in Cleaner(store, RUN).commits().values():
        needed |= one.all_pieces
    return there - needed


class Machine:
    """One of them, in a process of its own."""

    def __init__(self, run_dir: Path, url: str) -> None:
        run_dir.mkdir()
        self.run_dir, self._brought = run_dir, 0
        self.process = subprocess.Popen([sys.executable, "-m", "tests.bench.mirror_kills", "--machine", run_dir, url])

    def _steps(self, event: str) -> list[int]:
        assert self.process.poll() is None, "the machine died by itself"
        return [record.count("step") or 0 for record in read(self.run_dir / JOURNAL) if record.event == event]

    def mirrored(self) -> int:
        return max(self._steps("mirrored"), default=-1)

    def await_another(self) -> None:
        """Until another checkpoint has arrived."""
        before = self.mirrored()
        until(lambda: self.mirrored() > before, "a checkpoint that arrives", 120)

    def await_clean_up(self) -> None:
        """Until its first checkpoint has been sent, and all that follows that is done, since the next one was."""
        until(lambda: len(self._steps("mirrored")) - self._brought >= 2, "clean-up", 120)

    def origin(self) -> dict[str, int] | None:
        """Where it began; None until it has."""
        place = self.run_dir / "origin.json"
        if not place.exists():
            return None
        told = json.loads(place.read_text())
        self._brought = told["brought"]
        return told

    def _keepers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def kill_keeper(self) -> None:
        for pid in self._keepers():
            send(pid, signal.SIGKILL)

    def kill(self) -> None:
        """Everything of it at once, and its disk."""
        keepers = self._keepers()
        self.process.kill()
        for pid in keepers:
            send(pid, signal.SIGKILL)
        self.process.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in keepers), "end of a keeper", 30)
        shutil.rmtree(self.run_dir)


def be_a_machine(run_dir: Path, url: str) -> None:
    """Open the mirror, go on from what it has, and commit one checkpoint after the other, until killed."""
    owner = replace(this_process(), host=run_dir.name)
    lease = acquire(run_dir, wait=time.sleep, owner=owner)
    settings = Settings(
        url=url,
        run_dir=str(run_dir),
        owner=lease.owner,
        over=(),
        epoch=lease.epoch,
        keep_last=KEPT,
        run_id=None,
        fresh=False,
    )
    mirror, checkpoints = Mirroring(settings), run_dir / "checkpoints"
    mirror.open(time.sleep)
    brought = sum(record.event == "mirrored" for record in read(run_dir / JOURNAL))
    journal = Journal.open(run_dir, time.time, "machine")
    mirror.adopt(RUN, (), journal.note)
    at = mirror.newer(None, take_diverged=False)
    step, intact = 0, True
    while at is not None:
        told = Fetching(mirror).fetch(at)
        if told["what"] == "fetched":
            step = at[1]
            intact = isinstance(verify(checkpoints / f"checkpoint-{step}", RUN), Intact)
            break
        at = mirror.newer(None, take_diverged=False)
    partial = run_dir / ".origin.json"
    partial.write_text(json.dumps({"step": step, "intact": intact, "brought": brought}))
    partial.rename(run_dir / "origin.json")
    while True:
        step += 1
        made(checkpoints, step, run_id=RUN, size=SIZE)
        for old in sorted(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name[11:]))[:-KEPT]:
            delete(old)
        until_s = time.monotonic() + 0.2  # the pace of committing
        while time.monotonic() < until_s:
            mirror.look(time.monotonic())
            mirror.awaited(step, None, time.monotonic())
            time.sleep(0.01)


class Fetching:
    """Fetches on another thread, as the loop does, while this one hears what comes."""

    def __init__(self, mirror: Mirroring) -> None:
        self.mirror = mirror

    def fetch(self, at: tuple[int, int]) -> dict[str, object]:
        from supervisor.engine.disk import attended

        return attended(lambda: self.mirror.fetch(at), lambda: self.mirror.look(time.monotonic()), 0.05)


if __name__ == "__main__":
    main()
