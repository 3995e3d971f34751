"""A run of one rank without its process: a board that a test fills, and commits made of it as the engine makes them."""

from __future__ import annotations

import json
import re
import select
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from supervisor.board.layout import SlotHeader, Tensor, image, region
from supervisor.board.pages import PAGE
from supervisor.board.slots import SlotWriter
from supervisor.board.store import Board
from supervisor.checkpoint.contents import ADAPTER, OPTIMIZER
from supervisor.checkpoint.retain import Keep
from supervisor.checkpoint.verify import Intact, verify
from supervisor.engine.members.team import Team
from supervisor.engine.ranks.node import Node
from supervisor.engine.state.checkpoints import Checkpoints
from supervisor.engine.state.commits import Committer
from supervisor.engine.state.memory import Memory
from supervisor.engine.state.pace import Pace
from supervisor.journal import Journal, Record, read
from supervisor.policy.interval import Exposure
from supervisor.policy.schedule import Steps

RUN = "run-a"
NEW = 50
TOLD = {
    "shared": {"trainer_state": {}, "adapter_config": {"peft_type": "LORA"}},
    "rank": {"rng": "00"},
}


class Commits:
    """Snapshots taken by hand, and what becomes of them in a run directory."""

    def __init__(self, board_root: Path, run_dir: Path, *, keep_last: int, pages: int = 2) -> None:
        sizes = {ADAPTER: pages * PAGE, OPTIMIZER: 2 * pages * PAGE}
        images = {name: image([Tensor("t", "U8", (size,), size)]) for name, size in sizes.items()}
        geometry = region(images, slots=3, json_bytes=PAGE)
        self.run_dir, self.images = run_dir, images
        run_dir.mkdir(exist_ok=True)
        (run_dir / "checkpoints").mkdir()
        self.memory = Memory(Board(RUN, 1, (board_root,), lambda _: 1 << 40), admit=lambda _: None)
        path = self.memory.board.allocate(0, 1, geometry.total_bytes)
        self.writer = SlotWriter(path, geometry, images, since=0, populate=False)
        self.journal = Journal.open(run_dir, time.time, "here")
        team = Team(Node(RUN, self.memory, None))  # type: ignore[arg-type]
        committer = Committer(
            run_dir, RUN, self.memory.board.directory, keep=Keep(last=keep_last), still_owner=lambda: None
        )
        pace = Pace(Steps(1), 30.0, Exposure)
        self.checkpoints = Checkpoints(run_dir, pace, team, committer, self.journal.note)

    def take(self, step: int, *, trained: bool = False) -> None:
        """A snapshot of a step; other steps hold other bytes."""
        slot = self.writer.begin(lambda: None, lambda _: False)
        for name, one in self.images.items():
            at = self.writer.geometry.file_at(slot, name) + one.offsets["t"]
            size = one.size - one.offsets["t"]
            self.writer.memory[at : at + size] = bytes([step % 251]) * size
        header = SlotHeader(0, 0, step, 1, int(trained), 0, 0, 0, 0.0)
        self.writer.finish(slot, header, json.dumps(TOLD).encode())

    def commit(self, reason: str = "emergency") -> None:
        """Have the newest snapshot committed, and what came of it written down."""
        self.checkpoints.begin(reason, time.monotonic())
        assert self.checkpoints.under_way
        while self.checkpoints.under_way:  # other news rings the same bell
            ready, _, _ = select.select([self.checkpoints.committer.fd], [], [], 30.0)
            assert ready, "no answer"
            for answer in self.checkpoints.committer.answers():
                self.checkpoints.take(answer, time.monotonic(), alive=True)
                self.memory.release()

    def told(self, event: str) -> list[Record]:
        """What the journal tells by now."""
        self.journal.write_kept()
        return [record for record in read(self.run_dir / "journal.jsonl") if record.event == event]

    def close(self) -> None:
        self.checkpoints.committer.close(5.0)
        self.writer.close()
        self.memory.close(remove=True)
        self.journal.close()


@contextmanager
def run_on(disk: Path, boards: Path, steps: tuple[int, ...]) -> Iterator[Commits]:
    """A run with these checkpoints, and a snapshot of the state in which training ended."""
    run = Commits(boards, disk / "run", keep_last=5)  # none goes unless it has to
    try:
        for step in steps:
            run.take(step)
            run.commit()
        run.take(NEW, trained=True)
        yield run
    finally:
        run.close()
        shutil.rmtree(disk / "run")


def checkpoints(run: Commits) -> dict[str, dict[str, bytes]]:
    """Each directory that is there, hidden ones included, and its files."""
    return {
        place.name: {path.name: path.read_bytes() for path in place.iterdir()}
        for place in (run.run_dir / "checkpoints").iterdir()
    }


def names(steps: Sequence[int]) -> set[str]:
    return {f"checkpoint-{step}" for step in steps}


def outcome(run: Commits, before: dict[str, dict[str, bytes]]) -> str:
    """In words what came of a commit, unless it is what must not."""
    steps = sorted(int(name.removeprefix("checkpoint-")) for name in before)
    now, final, new = checkpoints(run), run.run_dir / "final", f"checkpoint-{NEW}"
    committed = [record.fields["step"] for record in run.told("checkpoint_committed")]
    said = [record.fields["detail"] for record in run.told("incident") if record.fields["cause"] == "disk_full"]
    assert all(isinstance(verify(run.run_dir / "checkpoints" / name, RUN), Intact) for name in now)
    assert {name: before[name] for name in now if name != new} == {name: now[name] for name in now if name != new}
    assert (new in now) == (NEW in committed)
    gone = names(steps) - set(now)
    assert gone <= names(steps[:-1] if new in now else steps[:-2]), "the newest, or what it falls back to, went"
    assert gone == {name for words in said for name in re.findall(r"checkpoint-\d+(?=, checkpoint| had| went)", words)}
    if new not in now:
        assert f"the final checkpoint of step {NEW} failed" in said[-1]
        assert re.search("no space left on device|disk quota exceeded", said[-1])
        assert not final.exists()
        return f"refused, {len(gone)} gone"
    if not final.exists():
        assert "final/ could not be written" in said[-1]
        assert re.search("no space left on device|disk quota exceeded", said[-1])
    else:
        assert (final / ADAPTER).read_bytes() == now[new][ADAPTER]
    return "committed" + (" with final/" if final.exists() else "") + (f", {len(gone)} gone" if gone else "")
