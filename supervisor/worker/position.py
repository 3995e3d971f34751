"""Where a loop stands in its data, and how it comes to the same batches again.

accelerate's loaders are one fetch ahead of the program: when a step is settled, the next batch has been made, by a data
set or a collator that may draw random numbers. So three random states are kept: the one in which the pass over the data
began, from which a sampler draws its order; the one before each fetch that is ahead, if it drew; and the one of the
settled step, which is the caller's. On the way back each is put where it was. What was given out before is passed over
by its indices. Where there are none (iterable data sets, batches dispatched by rank 0) it is fetched again and dropped;
a `StatefulDataLoader` goes back by its own state, where batches and ranks are as they were.

What this does not bring back: random numbers that a loader's worker processes draw. They depend on how many batches
each worker has made, and those passed over are not made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from accelerate.data_loader import DataLoaderDispatcher, DataLoaderStateMixin
from accelerate.state import PartialState
from torch.utils.data import IterableDataset

from supervisor.errors import JobError
from supervisor.worker import drawing, randomness, tree
from supervisor.worker.drawing import Base, Indices, Random


@dataclass(slots=True)
class _WayBack:
    """What is put back in the first pass after a resume.

    Attributes:
        first: number of the first fetch that is made.
        began: the state to begin the pass in.
        states: before which fetch which state is put.
        on: number of the first fetch that the settled step had not made.
        now: the state to go on in, until it was put.
    """

    first: int
    began: Random
    states: dict[int, Random] = field(default_factory=dict)
    on: int = 0
    now: Random | None = None

    def before(self, fetch: int) -> Random | None:
        """The state to be put before a fetch, if there is one."""
        return self.arrive() if fetch == self.on else self.states.pop(fetch, None)

    def arrive(self) -> Random | None:
        """The state to go on in, once."""
        state, self.now = self.now, None
        return state


class Position:
    """A prepared data loader, and how far the program has come in it.

    Attributes:
        loader: as `Accelerator.prepare` made it.
        epoch: passes over the data that are complete.
        taken: batches that the program was given in this one.
    """

    def __init__(self, loader: Any, *, keeps: bool) -> None:
        """Begin with the first pass.

        Args:
            loader: a loader that accelerate has prepared.
            keeps: whether anybody will ask for the position.

        Raises:
            JobError: it was not prepared.
        """
        if not isinstance(loader, DataLoaderStateMixin):
            raise JobError(
                f"the data loader given to Session is a plain {type(loader).__name__}",
                "give the one that accelerator.prepare(dataloader) returns",
            )
        self.loader: Any = loader
        self.epoch = self.taken = 0
        self._began: Random = {}
        self._told_began: Any = None
        self._fetched = 0
        self._drawn: dict[int, Random] = {}
        self._back: _WayBack | None = None
        self._indices: Indices | None = None
        self._lent: list[tuple[Any, Any]] = []  # samplers without their generators, until the pass is over
        if hasattr(loader.base_dataloader, "load_state_dict"):
            # accelerate has asked for its state, for which it began a pass; a resumed one begins without.
            loader.base_dataloader.load_state_dict({})
        if keeps:
            loader.base_dataloader = Base(loader.base_dataloader, self._fetch)

    @property
    def at_end(self) -> bool:
        """Whether the batch in hand is the last of its pass."""
        return bool(self.loader.end_of_dataloader)

    @property
    def epochs_done(self) -> int:
        """Passes of which nothing is left."""
        return self.epoch + (self.taken > 0 and self.at_end)

    @property
    def length(self) -> int | None:
        """Batches of one pass for each rank, None if nobody knows."""
        try:
            return len(self.loader)
        except TypeError:
            return None

    @property
    def share(self) -> float | None:
        """Passes that the program has made, with the part of this one; None if nobody knows how long it is."""
        length = self.length
        return None if not length else self.epoch + self.taken / length

    @property
    def batch(self) -> int | None:
        """Samples that all ranks are given at a time, None if that is not always the same."""
        sampler = self.loader.sampler if self.loader.batch_sampler is None else self.loader.batch_sampler
        size = getattr(sampler, "batch_size", None) or self.loader.batch_size
        whole = getattr(sampler, "split_batches", False) or getattr(self.loader, "split_batches", False)
        return None if size is None else size * (1 if whole else PartialState().num_processes)

    @property
    def micro_batch(self) -> int | None:
        """Samples that this rank is given at a time, None if that is not always the same."""
        return None if self.batch is None else self.batch // PartialState().num_processes

    def batches(self) -> Iterator[Any]:
        """One pass over the data, or what is left of it after a resume."""
        if self._back is not None:
            self._put(self._back.began)
        for batch in self.loader:
            if self._back is not None:
                self._put(self._back.arrive())  # a rank that is sent its batches fetches none
            self.taken += 1
            yield batch
        self._forget_way_back()
        self.epoch, self.taken = self.epoch + 1, 0

    # -- what is kept

    def told(self) -> dict[str, Any]:
        """Where this rank stands, as JSON.

        Raises:
            JobError: a stateful loader's state holds what a checkpoint cannot.
        """
        over = self.epochs_done > self.epoch
        told: dict[str, Any] = {
            "epoch": self.epoch + over,
            "iteration": self.loader.iteration + over,
            "batches": 0 if over else self.taken,
            "batch": self.batch,
            "ranks": PartialState().num_processes,
            "seeds": drawing.seeds(self.loader),
            "generators": tree.encode(drawing.generator_states(self.loader)),
        }
        if told["batches"] == 0:
            return told
        given = self.taken * self._per_batch
        self._told_began = self._told_began or drawing.encode(self._began)
        told |= {
            "began": self._told_began,
            "ahead": self._fetched - given,
            "drawn": [[n - given, drawing.encode(state)] for n, state in self._drawn.items() if n >= given],
        }
        if self._stateful and not (self._indices is not None and self._indices.passed_over):
            told["loader"] = self._loader_state()
        return told

    def _loader_state(self) -> Any:
        try:
            return tree.encode(self.loader.state_dict(), "the data loader's state")
        except TypeError as error:
            remedy = "keep numbers, strings, small tensors, lists and dicts in it"
            raise JobError(str(error), remedy) from None

    # -- the way back

    def go_back(self, told: Mapping[str, Any], rng: Mapping[str, Any]) -> None:
        """Have the next pass go on where a settled step stood.

        Args:
            told: what `told` said then.
            rng: this rank's random state then, as `randomness.capture` has it.

        Raises:
            JobError: what was given out then makes no whole number of batches now.
        """
        self.epoch, self.loader.iteration = told["epoch"], told["iteration"]
        drawing.set_seeds(self.loader, told["seeds"])
        now: Random = {**randomness.stock(dict(rng)), "generators": tree.decode(told["generators"])}
        drawing.make_generators(self.loader, now["generators"])
        self.taken = self._batches_now(told)
        if self.taken == 0:
            self._back = _WayBack(0, now)
            return
        given = self.taken * self._per_batch
        ranks = PartialState().num_processes
        same = (told["batch"], told.get("ranks", ranks)) == (self.batch, ranks)
        self._lent = drawing.take_generators(self.loader, now["generators"])
        states = {given + number: drawing.decode(state) for number, state in told["drawn"]} if same else {}
        first = self._pass_over(told, given, same=same)
        self._back = _WayBack(first, drawing.decode(told["began"]), states, given + told["ahead"], now)

    def _batches_now(self, told: Mapping[str, Any]) -> int:
        """As many batches as hold the samples that were given out then."""
        before, now = told["batch"], self.batch
        if before == now:
            return int(told["batches"])
        if before is None or now is None or told["batches"] * before % now:
            raise JobError(
                f"{told['batches']} batches of {before or 'various'} samples were given out in this pass, "
                f"which batches of {now or 'various'} do not make up",
                "set the batch size and the number of processes so that they do",
            )
        return int(told["batches"] * before // now)

    def _pass_over(self, told: Mapping[str, Any], given: int, *, same: bool) -> int:
        """Have the loader begin behind what was given out; the number of its first fetch."""
        base = self.loader.base_dataloader.loader
        if self._stateful and same and "loader" in told:
            base.load_state_dict(tree.decode(told["loader"]))
            self._watch_indices(base, 0, given)
            return given
        if self._dispatches or isinstance(base.dataset, IterableDataset):
            self.loader.skip_batches = self.taken
            return 0
        self._watch_indices(base, given, given)
        return given

    def _watch_indices(self, base: Any, skip: int, first: int) -> None:
        """Put our own iteration around the sampler's, for this one pass.

        A sampler may draw its order at its first index, and only after that the state of the first fetch
        is put: a loader offers no place between the two.
        """
        name = "batch_sampler" if base.batch_sampler is not None else "sampler"
        inner = getattr(base, name)
        if isinstance(base.dataset, IterableDataset) or (skip == 0 and hasattr(inner, "load_state_dict")):
            return  # it goes back by its own state
        self._indices = Indices(inner, skip, first, self._before)
        object.__setattr__(base, name, self._indices)  # torch forbids it: a pass under way would not see it

    def _forget_way_back(self) -> None:
        self._back, self.loader.skip_batches = None, 0
        for sampler, generator in self._lent:
            sampler.generator = generator
        self._lent = []
        if self._indices is not None:
            base = self.loader.base_dataloader.loader
            name = "batch_sampler" if base.batch_sampler is self._indices else "sampler"
            object.__setattr__(base, name, self._indices.inner)
            self._indices = None

    def _before(self, fetch: int) -> None:
        if self._back is not None:
            self._put(self._back.before(fetch))

    def _put(self, state: Random | None) -> None:
        if state is not None:
            drawing.put(self.loader, state)

    def _fetch(self, base: Any) -> Iterator[Any]:
        """Hand a loader's batches on, and keep the random states from which they were made."""
        number = self._back.first if self._back is not None else 0
        told_apart = number if self._indices is not None else -1
        self._began, self._told_began, self._drawn = drawing.state(self.loader), None, {}
        draws = base.num_workers == 0  # worker processes draw from generators of their own
        iterator = iter(base)
        while True:
            if number != told_apart:
                self._before(number)
            before = drawing.state(self.loader) if draws else None
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._drawn = {n: s for n, s in self._drawn.items() if n >= self.taken * self._per_batch}
            if before is not None and not drawing.same(before, drawing.state(self.loader)):
                self._drawn[number] = before
            number += 1
            self._fetched = number
            yield batch

    @property
    def _dispatches(self) -> bool:
        return isinstance(self.loader, DataLoaderDispatcher)

    @property
    def _stateful(self) -> bool:
        return not self._dispatches and hasattr(self.loader.base_dataloader, "load_state_dict")

    @property
    def _per_batch(self) -> int:
        """Fetches that one batch of every rank is made of."""
        return PartialState().num_processes if self._dispatches and not self.loader.split_batches else 1
