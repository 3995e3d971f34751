"""A tiny peft model, and a supervisor small enough to live on a thread of the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load

from supervisor.board.environment import ATTEMPT, BOARD, LINEAGE, WORLD_SIZE, worker_environment
from supervisor.board.pages import Orders, Reply
from supervisor.board.store import Board
from supervisor.checkpoint.contents import missing_part
from supervisor.engine.state.assembly import contents, sources_of
from supervisor.engine.state.memory import Memory
from supervisor.engine.state.resuming import note_snapshot
from supervisor.errors import MachineError
from supervisor.worker.seat import Seat

FREE_BYTES = 64 << 20


def tiny_lora(**options: Any) -> Any:
    """A random Llama of two layers with an adapter; the same one every time."""
    from peft import LoraConfig, get_peft_model

    config = {"r": 2, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", **options}
    return get_peft_model(tiny_base(), LoraConfig(**config))


def tiny_base() -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=16,
        )
    )


def environment(board: Path, attempt: int = 1, rank: int = 0, world_size: int = 1, lineage: int = 0) -> dict[str, str]:
    return {
        BOARD: str(board),
        ATTEMPT: str(attempt),
        LINEAGE: str(lineage),
        WORLD_SIZE: str(world_size),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }


def seat_at(board: Board, attempt: int = 1, rank: int = 0) -> Seat:
    return Seat.take(environment(board.directory, attempt, rank, board.control.ranks))


def note_newest(board: Board, attempt: int) -> int:
    """Have an attempt go on from the newest snapshot on the board, as the engine does; its step."""
    memory = Memory(board, admit=lambda _: None)
    whole = next(iter(memory.wholes()))
    made = contents(sources_of(memory, whole), board.directory, "run1")
    assert missing_part(part.name for part in made.parts()) is None
    for part in made.parts():
        if part.name.endswith(".safetensors"):
            load(b"".join(bytes(piece) for piece in part.pieces()))
    note_snapshot(board.directory / f"resume-{attempt}", made, whole.step)
    return whole.step


def make_board(root: Path, ranks: int = 1) -> Board:
    made = Board("run1", ranks, [root], lambda _: FREE_BYTES)
    made.control.give_orders(Orders(attempt=1))
    return made


def rank_environment(root: Path, board: Board, hooks: str = "auto", **more: Any) -> dict[str, str]:
    """What the only rank of a run below `root` is started with, this process being its supervisor."""
    return worker_environment(
        board=board.directory,
        run_dir=root,
        run_id="run1",
        attempt=1,
        lineage=0,
        logs=root / "logs",
        hooks=hooks,
        snapshot="auto",
        world_size=1,
        resume_from=None,
        accept_changes=False,
        **more,
    )


@contextmanager
def granting(board: Board) -> Iterator[list[int]]:
    """Answer wishes for memory, as the loop of the engine does; yields the sizes asked for.

    As at the beginning of an attempt each rank is offered the newest region that it has.
    """
    replies, asked = [], []
    for rank in range(board.control.ranks):
        generation, path = (board.regions(rank) or [(0, "")])[0]
        replies.append(Reply(granted=generation, text=str(path)))
        board.control.forget(rank)
        board.control.reply(rank, replies[rank])
    over = threading.Event()

    def answer() -> None:
        while not over.wait(0.001):
            if board.hush():
                for rank in range(board.control.ranks):
                    grant(rank)

    def grant(rank: int) -> None:
        beat = board.control.beat(rank)
        if beat.wish <= max(replies[rank].granted, replies[rank].refused):
            return
        asked.append(beat.wish_bytes)
        try:
            path = board.allocate(rank, beat.wish, beat.wish_bytes)
            replies[rank] = Reply(granted=beat.wish, refused=replies[rank].refused, text=str(path))
        except MachineError as error:
            replies[rank] = Reply(granted=replies[rank].granted, refused=beat.wish, text=str(error))
        board.control.reply(rank, replies[rank])

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join()
