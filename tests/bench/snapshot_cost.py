"""What a snapshot costs a step, against what the stock Trainer's own save costs it.

Measured: a real Trainer on the CPU, one process, LoRA on all linear layers of a Llama, AdamW;
40 M trainable parameters in 448 tensors make 480 MB of state. Every step is followed by a
snapshot (the callback's whole `on_step_begin`, collecting included), every other one by the
stock `Trainer._save_checkpoint` as well, into a directory on disk and into one in memory, in
turn. The board is a real one; a thread of this process plays the supervisor. The first
snapshot makes the layout and faults its pages in; it is told apart. Then the same with a tiny
model, where collecting is all that counts.

Not shown: a GPU (its copies overlap the next step), other processes that want the memory bus
at the same time, and what a stock save would cost if it were synced to the disk: it is not.

Run it:
    python tests/bench/snapshot_cost.py --steps 20 --dir /some/disk
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SIZES = {
    # name: hidden, intermediate, layers, rank of the adapter
    "40M": (256, 512, 32, 288),
    "tiny": (32, 64, 2, 4),
}
FREE_BYTES = 8 << 30
TARGET = 0.2


def main() -> None:
    arguments = argparse.ArgumentParser(description="snapshots against stock saves")
    arguments.add_argument("--steps", type=int, default=20, help="steps to train; the first is told apart")
    arguments.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()), help="where stock saves go")
    arguments.add_argument("--one", choices=SIZES, help="only this size, in this process")
    given = arguments.parse_args()
    if given.one:
        measure(given.one, given.steps, given.dir)
        return
    for size in SIZES:  # a process each: a rank sits at one board in its life
        told = [sys.executable, __file__, "--one", size, "--steps", str(given.steps), "--dir", str(given.dir)]
        subprocess.run(told, check=True)


def measure(size: str, steps: int, disk: Path) -> None:
    from supervisor.board.environment import worker_environment
    from supervisor.board.pages import Orders
    from supervisor.board.store import Board
    from supervisor.engine.state.memory import Memory

    board = Board(f"bench-{os.getpid()}", 1, [Path("/dev/shm")], lambda _: FREE_BYTES)
    memory = Memory(board, lambda _: None)
    memory.begin_attempt(Orders(attempt=1, period=1))
    work = Path(tempfile.mkdtemp(prefix="bench-snapshot-", dir=disk))
    fast = Path(tempfile.mkdtemp(prefix="bench-snapshot-", dir="/dev/shm"))
    os.environ |= worker_environment(
        board=board.directory,
        run_dir=work,
        run_id="bench",
        attempt=1,
        lineage=0,
        logs=work,
        hooks="off",
        snapshot="auto",
        world_size=1,
        resume_from=None,
        accept_changes=False,
    )
    over = threading.Event()
    granting = threading.Thread(target=grant, args=(memory, over), daemon=True)
    granting.start()
    try:
        report(size, *train(size, steps, {"disk": work, "memory": fast}), read_back(memory))
    finally:
        over.set()
        granting.join()
        memory.close(remove=True)
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(fast, ignore_errors=True)


def grant(memory, over: threading.Event) -> None:
    """The supervisor's part: memory for who asks for it."""
    while not over.wait(0.001):
        memory.grant_wishes()


def train(size: str, steps: int, places: dict[str, Path]):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    from supervisor.worker import SupervisorCallback

    took: dict[str, list[float]] = {"snapshot": [], "taking": [], **{place: [] for place in places}}

    class Timed(SupervisorCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            super().on_train_begin(args, state, control, **kwargs)
            take = self._taker.take

            def timed(**what):
                began_s = time.perf_counter()
                take(**what)
                took["taking"].append(time.perf_counter() - began_s)

            self._taker.take = timed

        def on_step_begin(self, args, state, control, **kwargs):
            began_s = time.perf_counter()
            super().on_step_begin(args, state, control, **kwargs)
            if state.global_step:
                took["snapshot"].append(time.perf_counter() - began_s)

    class StockSave(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % 2:
                return
            place = list(places)[state.global_step // 2 % len(places)]
            trainer.args.output_dir = str(places[place])
            began_s = time.perf_counter()
            trainer._save_checkpoint(trainer.model, trial=None)
            took[place].append(time.perf_counter() - began_s)
            shutil.rmtree(places[place] / f"checkpoint-{state.global_step}")

    hidden, intermediate, layers, rank = SIZES[size]
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    model = get_peft_model(
        LlamaForCausalLM(config), LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    rows = [{"input_ids": torch.arange(8) + i, "labels": torch.arange(8) + i} for i in range(steps + 2)]  # one epoch
    options = TrainingArguments(
        output_dir=str(places["disk"]),
        max_steps=steps + 1,
        per_device_train_batch_size=1,
        save_strategy="no",
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    ours = Timed()
    trainer = Trainer(model=model, args=options, train_dataset=rows, callbacks=[StockSave()])
    # First of all, as the bootstrap puts it: nothing of what others do at a step's begin counts.
    trainer.callback_handler.callbacks.insert(0, ours)
    ours.bind(trainer)
    with contextlib.redirect_stdout(io.StringIO()):  # the Trainer prints its log
        trainer.train()
    trainable = [p for p in model.parameters() if p.requires_grad]
    return took, sum(p.numel() for p in trainable), len(trainable)


def read_back(memory) -> tuple[int, float]:
    """Bytes of the newest snapshot's tensors, and seconds to make its JSON text."""
    whole = memory.common()
    part = whole.parts[0]
    told = json.loads(memory.reader(part).text(part))
    times = []
    for _ in range(20):
        began_s = time.perf_counter()
        json.dumps(told, separators=(",", ":")).encode()
        times.append(time.perf_counter() - began_s)
    return sum(size for _, size in part.geometry.files), statistics.median(times)


def report(size: str, took: dict[str, list[float]], parameters: int, tensors: int, read: tuple[int, float]) -> None:
    state_bytes, json_s = read
    first_s, *whole = took["snapshot"]
    copying_s = statistics.median(took["taking"][1 : len(took["snapshot"])]) - json_s
    whole_s = statistics.median(whole)
    print(f"{size}: {parameters:,} parameters in {tensors} tensors, {state_bytes / 1e6:.1f} MB of state")
    print(f"  snapshot           {_ms(whole_s)}   of {len(whole)}: {_ms(min(whole))} to {_ms(max(whole))}")
    print(f"    collecting       {_ms(whole_s - copying_s - json_s)}")
    print(f"    JSON             {_ms(json_s)}")
    print(f"    copying          {_ms(copying_s)}")
    print(f"    the first one    {_ms(first_s)}   lays the slots out")
    for place in ("disk", "memory"):
        stock_s = statistics.median(took[place])
        print(f"  stock save, {place:6} {_ms(stock_s)}   of {len(took[place])}: ratio {whole_s / stock_s:.3f}")
    if size != "tiny":
        ratio = whole_s / statistics.median(took["disk"])
        print(f"  {'reached' if ratio <= TARGET else 'MISSED'}: ratio {ratio:.3f}, at most {TARGET} wanted")


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:8.2f} ms"


if __name__ == "__main__":
    main()
