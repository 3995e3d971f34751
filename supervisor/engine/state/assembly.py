"""A snapshot put together as the files of a checkpoint.

Tensor files are byte ranges of slots, or came over the link; what ranks hold pieces of is put together from
the pieces. JSON files are merged from the JSON parts.
No torch is needed, and no help of a worker.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.board.slots import SlotReader, Snapshot
from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.manifest import Health
from supervisor.checkpoint.parts import Part, part_from_bytes, part_from_range
from supervisor.checkpoint.shards import own_file, put_together, shard_of
from supervisor.engine.state.memory import Memory, Whole
from supervisor.errors import DiskError


class TornSnapshotError(DiskError):
    """A slot changed or broke while it was read: nothing was committed, the next one will be."""


@dataclass(frozen=True, slots=True)
class Source:
    """One rank's share of a snapshot, and the open reader of its region.

    Attributes:
        reader: of the region.
        snapshot: which one.
        rank: global.
    """

    reader: SlotReader
    snapshot: Snapshot
    rank: int

    def part(self, file: str) -> Part:
        """One of its tensor files."""
        offset, size = self.snapshot.range_of(file)
        return part_from_range(file, self.snapshot.path, offset, size)


def sources_of(memory: Memory, whole: Whole, first_rank: int = 0) -> tuple[Source, ...]:
    """A snapshot's slots with the open readers of their regions, in the order of ranks."""
    return tuple(Source(memory.reader(part), part, first_rank + local) for local, part in enumerate(whole.parts))


@dataclass(frozen=True, slots=True)
class Share:
    """What only one rank of another node holds of a snapshot.

    Attributes:
        rank: global.
        told: the JSON part that is its own.
        files: its tensor files.
    """

    rank: int
    told: Mapping[str, Any]
    files: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a checkpoint made of a snapshot consists of.

    Attributes:
        texts: the JSON files.
        images: the tensor files that lie in slots, and whose.
        others: those of other nodes.
        stood_in: ranks whose own state is lost, and the rank whose state stands in for it.
        health: how training was.
        world_size: ranks in all.
    """

    texts: tuple[Part, ...]
    images: tuple[tuple[str, Source], ...]
    others: tuple[Part, ...] = ()
    stood_in: Mapping[int, int] = field(default_factory=dict)
    health: Health = field(default_factory=Health)
    world_size: int = 1

    def parts(self) -> list[Part]:
        """All files; the pieces that ranks hold are put together.

        Raises:
            TornSnapshotError: a piece is missing, or they do not belong together.
        """
        held = {name: source.part(name) for name, source in self.images} | {part.name: part for part in self.others}
        try:
            return [*put_together(held, self.world_size), *self.texts]
        except FlawError as flaw:
            raise TornSnapshotError(str(flaw), "what is newest on disk is gone on from") from None


def contents(
    sources: Sequence[Source],
    histories: Path,
    run_id: str,
    *,
    world_size: int | None = None,
    others: Sequence[Share] = (),
    lost: Sequence[int] = (),
) -> Contents:
    """Put a checkpoint's files together.

    Args:
        sources: one per rank of this node, in the order of ranks; the first one leads.
        histories: directory of the log histories.
        run_id: of the run.
        world_size: ranks in all; default: those that are given.
        others: of ranks of other nodes.
        lost: ranks whose own state went with their node. What all ranks have in common is whole without
            them; for their random state and running sums the lowest rank's stand in. A program that seeds
            each step, as jobs.lora does, comes out the same.

    Raises:
        TornSnapshotError: a JSON part does not match its checksum, or a log history is gone.
    """
    told = [_told(source) for source in sources]
    shared: dict[str, Any] = dict(told[0]["shared"])
    ranks = {source.rank: one["rank"] for source, one in zip(sources, told, strict=True)}
    ranks |= {share.rank: share.told for share in others}
    health = _health([one.get("health") for one in ranks.values()])
    stood_in = {rank: min(ranks) for rank in lost}
    ranks |= {rank: ranks[other] for rank, other in stood_in.items()}
    trainer_state, adapter_config = shared.pop("trainer_state"), shared.pop("adapter_config")
    header = sources[0].snapshot.header
    state = {
        "format": 1,
        "run_id": run_id,
        "lineage": header.lineage,
        "step": header.step,
        "world_size": world_size or len(ranks),
        "trained": bool(header.trained),
        "ranks": {str(rank): ranks[rank] for rank in sorted(ranks)},
        **({"stood_in": {str(rank): other for rank, other in stood_in.items()}} if stood_in else {}),
        **shared,
    }
    texts = [part_from_bytes("state.json", _json(state))]
    if adapter_config is not None:
        texts.append(part_from_bytes("adapter_config.json", _json(adapter_config)))
    texts.append(_trainer_state(trainer_state, histories / f"history-{header.attempt}", header.history_bytes))
    images = [(name, source) for source in sources for name, _ in source.snapshot.geometry.files]
    foreign = [part for share in others for part in share.files]
    own = {name: source.part(name) for name, source in images} | {part.name: part for part in foreign}
    for rank, other in stood_in.items():
        name = own_file(other)
        if name in own:
            foreign.append(Part(own_file(rank), own[name].size, own[name].pieces))
    return Contents(tuple(texts), tuple(images), tuple(foreign), stood_in, health, state["world_size"])


def _health(told: Sequence[Any]) -> Health:
    """How training was, from what each rank told: the mean loss, and wrong if one rank says so."""
    known = [one for one in told if isinstance(one, Mapping)]
    losses = [one["loss"] for one in known if one.get("loss") is not None]
    norms = [one["grad_norm"] for one in known if one.get("grad_norm") is not None]
    return Health(
        sum(losses) / len(losses) if losses and len(losses) == len(told) else None,
        max(norms, default=None),
        any(one.get("diverged") is True for one in known),
    )


def share_of(source: Source) -> tuple[bytes, dict[str, Part]]:
    """What only this rank holds, for a leader on another node: its JSON text and its files by name.

    Raises:
        TornSnapshotError: the JSON part does not match its checksum.
    """
    told = json.dumps(_told(source)["rank"]).encode()
    held = [name for name, _ in source.snapshot.geometry.files]
    names = [name for name in held if name == own_file(source.rank) or shard_of(name) is not None]
    return told, {name: source.part(name) for name in names}


def _told(source: Source) -> dict[str, Any]:
    text = source.reader.text(source.snapshot)
    if text is None:
        raise TornSnapshotError(f"{source.snapshot.path.name} broke while it was read", "the next snapshot is taken")
    told: dict[str, Any] = json.loads(text)
    return told


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def _trainer_state(told: Mapping[str, Any], history: Path, length: int) -> Part:
    """trainer_state.json, its log history streamed from where it was appended row by row.

    A run's whole history in one JSON takes the worker a second at 100,000 rows; so rows are
    written once, one a line, and become a list here by turning line ends into commas.
    """
    head = json.dumps(told).encode()
    assert head.endswith(b"}")
    head = head[:-1] + (b"," if told else b"") + b'"log_history":['
    tail = b"]}\n"
    if length == 0:
        return part_from_bytes("trainer_state.json", head + tail)
    if not history.is_file() or history.stat().st_size < length:
        raise TornSnapshotError(f"{history.name} is shorter than the snapshot says", "the next snapshot is taken")

    def pieces() -> Iterator[bytes]:
        yield head
        rows = part_from_range("history", history, 0, length - 1)  # without the last line end
        for piece in rows.pieces():
            yield bytes(piece).replace(b"\n", b",")
        yield tail

    return Part("trainer_state.json", len(head) + length - 1 + len(tail), pieces)
