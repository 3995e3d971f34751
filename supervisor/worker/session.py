"""A loop of one's own on accelerate, made survivable.

    with Session(accelerator, model, optimizer, scheduler, dataloader, max_steps=1000) as session:
        for batch in session.batches():
            with accelerator.accumulate(model):
                loss = model(**batch).loss
                accelerator.backward(loss)
                optimizer.step(); scheduler.step(); optimizer.zero_grad()
            session.step_done(loss)

`step_done` is said after every batch; whether a step of the run is over by that is seen from the optimizers. It is
settled when the next batch is asked for: what the program does until then (evaluates, logs, saves) belongs to it.
At the end of the `with` block a snapshot is taken of the state in which training ended.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedType

from supervisor.board.pages import Phase
from supervisor.errors import JobError
from supervisor.worker.capture import ModelCapture
from supervisor.worker.health import skipped_steps
from supervisor.worker.holdings import Holdings
from supervisor.worker.keeping import Keeping, Stand
from supervisor.worker.position import Position
from supervisor.worker.seat import Seat, seat, supervised
from supervisor.worker.stepping import Stepping

#: How a model may lie on the ranks: whole on each of them.
_WHOLE = frozenset({DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU})


class Session:
    """One training by a loop of one's own; without a supervisor it counts steps and does nothing else.

    Attributes:
        log_history: rows of what was evaluated and logged, as trainer_state.json has them.
    """

    def __init__(
        self,
        accelerator: Any,
        model: Any,
        optimizer: Any,
        scheduler: Any,
        dataloader: Any,
        *,
        max_steps: int | None = None,
        epochs: int | None = None,
        at: Seat | None = None,
    ) -> None:
        """Take what `Accelerator.prepare` returned; several models, optimizers or schedulers as lists.

        Args:
            accelerator: the program's.
            model: what is trained; of several, first the one whose weights are the result.
            optimizer: what makes steps.
            scheduler: what sets learning rates, or None.
            dataloader: what training draws from.
            max_steps: where training ends, in optimizer steps.
            epochs: where it ends, in passes over the data; one pass if neither is given.
            at: this process's seat; found by itself.

        Raises:
            JobError: something of it cannot be gone on with; the message names it.
        """
        at = at or (seat() if supervised() else None)
        models, optimizers, schedulers = _listed(model), _listed(optimizer), _listed(scheduler)
        _check(accelerator, optimizers, supervised=at is not None)
        self._accelerator = accelerator
        self._max_steps = max_steps
        self._epochs = 1 if max_steps is None and epochs is None else epochs
        self._position = Position(dataloader, keeps=at is not None)
        self._holdings = Holdings(
            [ModelCapture(accelerator.unwrap_model(one)) for one in models] if at is not None else [],
            optimizers,
            schedulers,
            accelerator.scaler,
        )
        self._keeping = Keeping(at, accelerator, self._holdings, self._position) if at is not None else None
        self._stepping = Stepping(optimizers, schedulers, accelerator)
        self._skip = skipped_steps(os.environ) if at is not None else ()
        self.log_history: list[dict[str, Any]] = []
        self._settled = 0
        self._in_step = 0
        self._accumulation: int = accelerator.gradient_accumulation_steps
        self._said = True
        self._entered = self._begun = self._over = False

    # -- what the loop uses

    def __enter__(self) -> Session:
        """Restore whatever there is to resume from."""
        self._entered = True
        before = self._keeping.restore() if self._keeping is not None else None
        if before is not None:
            self._settled, self._accumulation = before.step, before.accumulation
            self._stepping.usual, self._stepping.pace = list(before.schedulers), before.pace
            self.log_history = before.rows
        return self

    def register(self, name: str, thing: Any) -> None:
        """Keep one more thing that training changes: an average of the weights, a sampler, a loss with a memory.

        Args:
            name: what it is called in a checkpoint.
            thing: has `state_dict` and `load_state_dict`, and is the same on all ranks.

        Raises:
            JobError: it has not, or training has begun.
        """
        if not (hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict")):
            raise JobError(f"{name!r} has no state_dict and load_state_dict", "give it both, or keep it out")
        if self._begun or name in self._holdings.registered:
            raise JobError(f"{name!r} is registered too late, or twice", "register each once, before session.batches()")
        self._holdings.registered[name] = thing
        if self._entered and self._keeping is not None and self._keeping.resume is not None:
            self._holdings.restore_registered(self._keeping.resume, name)

    def batches(self) -> Iterator[Any]:
        """Every batch that training still needs, of as many passes over the data as that takes.

        Raises:
            JobError: the loop is not written so that it could be gone on with.
        """
        self._begin()
        while not self._over:
            before = self._settled
            for batch in self._position.batches():
                self._in_step += 1
                if self._passes_over():
                    self._pass_over()
                else:
                    self._given()
                    yield batch
                    self._between()
                if self._over:
                    return
            self._over = self._epochs is not None and self._position.epoch >= self._epochs
            if self._settled == before and not self._over:
                self._complain_of_no_step()

    def step_done(self, loss: Any = None) -> bool:
        """Say that all is done with a batch; after every batch, whether it completed an optimizer step or not.

        Args:
            loss: of the batch, not divided by anything.

        Returns:
            Whether an optimizer step was made, and `step` has grown.
        """
        if not self._begun:
            raise JobError("step_done was called, but no batch was given out", "iterate over session.batches()")
        self._said = True
        if loss is not None and self._keeping is not None:
            self._keeping.told(loss)
        return self._stepping.over

    @property
    def step(self) -> int:
        """Optimizer steps made so far, over all lives of the run."""
        return self._settled + self._stepping.over

    @property
    def epoch(self) -> int:
        """Number of the pass over the data under way, from 0."""
        return self._position.epoch

    @property
    def epoch_ends(self) -> bool:
        """Whether the batch in hand is the last one of its pass."""
        return self._position.at_end

    def evaluated(self, metrics: Mapping[str, float]) -> None:
        """Record what an evaluation gave, such as ``{"eval_loss": 2.1}``; `keep_best` reads it there."""
        self.logged(metrics)

    def logged(self, values: Mapping[str, float]) -> None:
        """Add a row to the log history, the same on all ranks: which of them is asked for it later is open."""
        epoch = self._position.share
        self.log_history.append({**values, **({} if epoch is None else {"epoch": epoch}), "step": self.step})

    @contextmanager
    def evaluating(self) -> Iterator[Callable[[], None]]:
        """Around an evaluation: it may take longer than a step. Gives what may be called after each of its batches."""
        with self._during(Phase.EVALUATING):
            yield self._lives

    @contextmanager
    def saving(self) -> Iterator[Callable[[], None]]:
        """Around anything the program writes by itself."""
        with self._during(Phase.SAVING):
            yield self._lives

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Training is over, unless an error ended it: snapshot the state that it ends in."""
        if kind is None:
            self._end()
        self._stepping.detach()

    # -- how it goes on

    def _begin(self) -> None:
        if not self._entered:
            raise JobError("the session was not entered", "write `with Session(…) as session:` around the loop")
        if self._begun:
            raise JobError(
                "session.batches() was asked for twice", "iterate over it once: it goes over all epochs by itself"
            )
        self._begun = True
        self._over = self._reached()
        if self._keeping is not None:
            self._keeping.begin(self._stand(), over=self._over)

    def _reached(self) -> bool:
        """Whether what was settled so far is all there is to do."""
        if self._max_steps is not None and self._settled >= self._max_steps:
            return True
        return self._epochs is not None and self._position.epochs_done >= self._epochs

    def _given(self) -> None:
        self._said = False
        if self._keeping is not None:
            self._keeping.given()

    def _between(self) -> None:
        """The next batch is asked for: what was done with the one before is complete."""
        if not self._stepping.over:
            return
        if not self._said:
            raise JobError(
                "an optimizer made a step, but session.step_done was not called before the next batch was asked for",
                "call session.step_done(loss) at the end of the loop's body, for every batch",
            )
        self._settle()

    def _settle(self) -> None:
        self._settled += 1
        self._stepping.begin()
        if self._keeping is not None and self._keeping.remade(self._in_step, whole=not self._position.at_end):
            self._accumulation = 0
        self._accumulation, self._in_step = max(self._accumulation, self._in_step), 0
        self._over = self._reached()
        if self._keeping is None:
            return
        if self._over:
            self._keeping.ends(self._stand())
        else:
            self._keeping.settle(self._stand())

    def _end(self) -> None:
        if not self._begun:
            raise JobError("the session was left before it trained", "iterate over session.batches() within it")
        if self._stepping.over:  # the program left the loop by itself
            self._settled += 1
            self._stepping.begin()
        if self._keeping is not None:
            self._keeping.trained(self._stand())

    # -- steps whose data is passed over

    def _passes_over(self) -> bool:
        return any(first <= self._settled + 1 <= last for first, last in self._skip)

    def _pass_over(self) -> None:
        if self._in_step < self._accumulation and not self._position.at_end:
            return
        self._stepping.pass_over()
        self._settle()

    # -- what is told

    def _stand(self) -> Stand:
        return Stand(
            step=self._settled,
            max_steps=self._last_step(),
            epochs=self._epochs,
            accumulation=self._accumulation,
            schedulers=tuple(self._stepping.usual),
            pace=self._stepping.pace,
            rows=self.log_history,
        )

    def _last_step(self) -> int | None:
        length = self._position.length
        if self._epochs is None or not length:
            return self._max_steps
        steps = self._epochs * -(-length // self._accumulation)
        return steps if self._max_steps is None else min(steps, self._max_steps)

    def _complain_of_no_step(self) -> None:
        raise JobError(
            "a whole pass over the data was made without a step of an optimizer that Session knows",
            "give it the optimizers that accelerator.prepare returned, and call their step()",
        )

    @contextmanager
    def _during(self, phase: Phase) -> Iterator[None]:
        if self._keeping is None:
            yield
            return
        with self._keeping.during(phase):
            yield

    def _lives(self) -> None:
        if self._keeping is not None:
            self._keeping.lives()


def _listed(value: Any) -> Sequence[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _check(accelerator: Any, optimizers: Sequence[Any], *, supervised: bool) -> None:
    if not optimizers:
        raise JobError("Session was given no optimizer", "give it the one that accelerator.prepare returned")
    for number, one in enumerate(optimizers):
        if not isinstance(one, AcceleratedOptimizer):
            raise JobError(
                f"optimizer {number} given to Session is a plain {type(one).__name__}",
                "give the one that accelerator.prepare(optimizer) returns",
            )
    if supervised and accelerator.distributed_type not in _WHOLE:
        raise JobError(
            f"Session keeps models that are whole on every rank, this one is spread by {accelerator.distributed_type}",
            "train it with data parallelism, or with transformers' Trainer",
        )
