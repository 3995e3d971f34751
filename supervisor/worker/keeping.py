"""The supervised side of a loop of one's own: what a session publishes, snapshots, restores and obeys."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch.nn.parallel import DistributedDataParallel

from supervisor.board.environment import ACCEPT_CHANGES
from supervisor.board.pages import Phase, Trained
from supervisor.errors import JobError
from supervisor.worker import adapting, randomness
from supervisor.worker.alone import OwnTime
from supervisor.worker.capture import Tensors
from supervisor.worker.facts import base_of, libraries
from supervisor.worker.footprint import foretell
from supervisor.worker.health import Measured, await_end
from supervisor.worker.history import History
from supervisor.worker.holdings import Holdings
from supervisor.worker.looking import Looking
from supervisor.worker.pacing import Pacing
from supervisor.worker.position import Position
from supervisor.worker.resume import Resume, find
from supervisor.worker.seat import Seat, WorldSizeError
from supervisor.worker.snapshots import SnapshotTaker
from supervisor.worker.standby import remember_modules

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a loop stands.

    Attributes:
        step: settled steps.
        max_steps: where training ends, None while unknown.
        epochs: the same in passes over the data, None where steps alone count.
        accumulation: batches of a whole step.
        schedulers: numbers of those that move with a step.
        pace: how often a prepared one moves then.
        rows: its log history.
    """

    step: int
    max_steps: int | None
    epochs: int | None
    accumulation: int
    schedulers: tuple[int, ...]
    pace: int
    rows: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Step:
    """What a step is made of: batches of each rank, their samples where they are always as many, and ranks."""

    accumulation: int
    micro_batch: int | None
    ranks: int

    @property
    def samples(self) -> int | None:
        """Of all ranks."""
        return None if self.micro_batch is None else self.accumulation * self.micro_batch * self.ranks

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.accumulation} batches of {self.micro_batch or 'various'} samples on {self.ranks} ranks"

    def __str__(self) -> str:
        return f"a step was {self.words}"


class Keeping:
    """One session's dealings with its supervisor.

    Attributes:
        resume: what there is to go on from, None for a fresh start.
    """

    def __init__(self, at: Seat, accelerator: Any, holdings: Holdings, position: Position) -> None:
        """Take the seat; nothing is published yet.

        Raises:
            WorldSizeError: the program trains with another number of processes than were launched.
        """
        if accelerator.num_processes != at.world_size:
            raise WorldSizeError(
                f"{at.world_size} processes were launched, but the program trains with {accelerator.num_processes}; "
                "each would train a model of its own. Is the GPU visible? On a CPU use Accelerator(cpu=True)"
            )
        self._at, self._accelerator, self._holdings, self._position = at, accelerator, holdings, position
        self.resume: Resume | None = find(at)
        self._taker = SnapshotTaker(at, since=self.resume.step if self.resume is not None else 0)
        self._looking = Looking(accelerator, at.rank)
        self._history = History(at.board, at.attempt)
        self._alone = OwnTime()
        self._libraries = libraries()
        self._done = False
        self._pacing = Pacing(at)
        self._owed: _Step | None = None  # what a step has to be made of, until one is

    # -- around the training

    def restore(self) -> Stand | None:
        """Put everything back but the random state, which is put when training begins; where that state stood."""
        if self.resume is None:
            return None
        self._holdings.restore(self.resume)
        own = self.resume.rank(self._at.rank)
        if "data" not in own:
            raise JobError(
                "what is to be gone on from was left by a Trainer: it does not tell where a Session's data stand",
                "begin without `start_from`, or name a checkpoint that a Session has left",
            )
        self._position.go_back(own["data"], own["rng"])
        data = self.resume.state["data"]
        accumulation = self._accumulation_now(data)
        self._warn()
        # At a settled step nothing is gathered, so that any multiple of the number of batches would do.
        self._accelerator.step = data["accelerator_step"] if accumulation == data["accumulation"] else 0
        told = json.loads(self.resume.parts["trainer_state.json"].read())
        return Stand(
            step=self.resume.step,
            max_steps=None,
            epochs=None,
            accumulation=accumulation,
            schedulers=tuple(data["schedulers"]),
            pace=data.get("pace", data["world_size"]),
            rows=told["log_history"],
        )

    def _accumulation_now(self, data: dict[str, Any]) -> int:
        """Batches of a step that are as many samples as it was before, as far as that is known."""
        before = _Step(data["accumulation"], data["micro_batch"], data["world_size"])
        now = _Step(before.accumulation, self._position.micro_batch, self._at.world_size)
        if now == before:
            return before.accumulation
        if before.samples is None or now.samples is None:
            log.warning("%s; whether it still is of as many is not known: batches differ in size", before)
            return before.accumulation
        self._owed = before
        return max(1, before.samples * now.accumulation // now.samples)

    def remade(self, batches: int, *, whole: bool) -> bool:
        """Whether the first step of this life is made of another number of samples than those before, as was accepted.

        Args:
            batches: that it was made of.
            whole: it was not cut short by the end of a pass over the data.

        Raises:
            JobError: it is, and nobody has accepted it: the ranks are others.
        """
        before, now = self._owed, _Step(batches, self._position.micro_batch, self._at.world_size)
        if before is None or before.samples is None or now.samples is None:
            return False
        if not whole and now.samples <= before.samples:
            return False  # the next one tells
        self._owed = None
        if now.samples == before.samples:
            return False
        remedy = "take both numbers from supervisor.worker.fitting_batch"
        if now.ranks != before.ranks and os.environ.get(ACCEPT_CHANGES) != "1":
            raise JobError(f"{before}, and is now {now.words}", f"{remedy}, or launch {before.ranks} processes again")
        log.warning("%s, and is now %s: %s, and it is of the same samples", before, now.words, remedy)
        return True

    def _warn(self) -> None:
        """Say what will not be the same to the last bit."""
        wrapped = [m for m in self._accelerator._models if isinstance(m, DistributedDataParallel)]
        if self._at.world_size > 2 and any(not m.find_unused_parameters and not m.static_graph for m in wrapped):
            # Source: torch/csrc/distributed/c10d/reducer.cpp, `should_rebuild_buckets`; see `warmup`.
            log.warning(
                "torch sums the first step of this life in another order than in one life, which may show in the last "
                "bit; DistributedDataParallelKwargs(find_unused_parameters=True) among the Accelerator's "
                "kwargs_handlers keeps the order"
            )

    def begin(self, stand: Stand, *, over: bool) -> None:
        """Training begins, or goes on; ``over`` if there is nothing left to train.

        What an earlier life has trained to its end is on the board or on disk already: saying so has it committed
        if it is not.
        """
        if self.resume is not None:
            self._holdings.check_registered(self.resume)
        self._done = over and self.resume is not None and self.resume.trained
        if self._done:
            self._at.announce(phase=Phase.TRAINED, trained=Trained.ON_BOARD, **_resumed(stand))
            return
        self._alone.watch(self._holdings.models[0].model)
        if self._at.leads:
            remember_modules(self._at)
            models = [one.model for one in self._holdings.models]
            foretell(self._at, models, self._holdings.weights(), self._holdings.optimizers)
        self._at.announce(phase=Phase.TRAINING, **_resumed(stand))
        self._pacing.begins()
        self._pacing.obey(self._taker)

    def ends(self, stand: Stand) -> None:
        """The last step is made: what comes until `trained` is like a save."""
        self._end_if_wrong(stand.step)
        self._at.publish(phase=Phase.SAVING)

    def trained(self, stand: Stand) -> None:
        """Training is over: snapshot the state that it ends in."""
        self._looking.detach()
        if self._done:
            return
        self._end_if_wrong(stand.step)
        told = {"phase": Phase.TRAINED, "step": stand.step, "max_steps": stand.step}
        if not self._at.orders().period:
            self._at.announce(trained=Trained.WITHOUT_SNAPSHOT, **told)
            return
        for optimizer in self._holdings.optimizers:
            optimizer.eval()  # schedule-free optimizers keep the weights to be used apart from those they train
        self._snapshot(stand, trained=True)
        self._taker.finish()
        self._at.announce(trained=Trained.ON_BOARD, **told)

    def _end_if_wrong(self, step: int) -> None:
        measured = self._looking.settle(step)
        if measured.ends:
            await_end(self._at, self._taker, step, measured)  # nobody wants to keep such an end

    # -- in every step

    def given(self) -> None:
        """The program has its next batch."""
        self._alone.begins()

    def told(self, loss: Any) -> None:
        """The program has told a batch's loss."""
        self._looking.add(loss)

    def settle(self, stand: Stand) -> None:
        """A step is settled: look at it, snapshot it if that is due, say so, and wait if that is asked for."""
        self._alone.ended()
        orders, step = self._at.orders(), stand.step
        measured = self._looking.settle(step)
        asked_for = orders.asks_for(step)
        due = orders.wants(step)
        if due:
            self._snapshot(stand, trained=False)
        self._pacing.settled(step, measured, self._taker, taken=due, asked_for=asked_for, own_s=self._alone.usual_s)

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """Say what the program does meanwhile, which may take longer than a step."""
        before = Phase(self._at.beat.phase)
        self._at.publish(phase=phase)
        yield
        self._at.publish(phase=before)

    def lives(self) -> None:
        """Something has moved."""
        self._at.publish()

    # -- a snapshot

    def _snapshot(self, stand: Stand, *, trained: bool) -> None:
        began_s = time.perf_counter()
        health: Measured = self._looking.newest
        rank = {"rng": randomness.capture(), "trainer": {}, "data": self._position.told(), "health": health.told()}
        told: dict[str, Any] = {"rank": rank}
        files: dict[str, Tensors] = {}
        if self._at.leads:
            shared, files = self._holdings.told()
            told["shared"] = {**shared, **self._facts(stand)}
            self._history.append(stand.rows)
        self._taker.take(
            step=stand.step,
            trained=trained,
            diverged=health.bad,
            files=files,
            told=told,
            history_bytes=self._history.size_bytes,
            began_s=began_s,
        )

    def _facts(self, stand: Stand) -> dict[str, Any]:
        epoch = self._position.share
        micro_batch = self._position.micro_batch
        own = adapting.own_batch(micro_batch or 1, stand.accumulation)
        return {
            "trainer_state": {
                "epoch": epoch,
                "global_step": stand.step,
                "max_steps": _or_unknown(stand.max_steps),
                "num_train_epochs": stand.epochs or 0,
                "train_batch_size": micro_batch,
            },
            "data": {
                "epoch": epoch,
                "step": stand.step,
                "batch_size": micro_batch,
                "micro_batch": micro_batch,
                "accumulation": stand.accumulation,
                "own_micro_batch": own[0],
                "own_accumulation": own[1],
                "world_size": self._at.world_size,
                "accelerator_step": self._accelerator.step,
                "pace": stand.pace,
                "schedulers": stand.schedulers,
            },
            "base": base_of(self._holdings.models[0].model),
            "libraries": self._libraries,
            "best_loaded": False,
        }


def _resumed(stand: Stand) -> dict[str, int]:
    return {"resumed": stand.step, "step": stand.step, "max_steps": _or_unknown(stand.max_steps)}


def _or_unknown(count: int | None) -> int:
    """A beat's and a Trainer's word for what nobody knows is -1."""
    return -1 if count is None else count
