"""A loop of its own that knows nothing of a supervisor but $SUPERVISOR_RESUME_FROM, and saves with `torch.save`.

Usage: saves_itself.py --output_dir DIR --steps N [--dies-at STEP]

It saves every second step, as `step_<n>/` with `model.pt` and `optimizer.pt`. While it saves at the step named last it
is killed once: `optimizer.pt` is written to its half.
"""

from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path

import torch


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--dies-at", type=int, default=-1)
    options = parser.parse_args()
    options.output_dir.mkdir(parents=True, exist_ok=True)

    torch.manual_seed(0)
    model = torch.nn.Linear(64, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    step = 0
    resume_from = os.environ.get("SUPERVISOR_RESUME_FROM")
    if resume_from is not None:
        model.load_state_dict(torch.load(Path(resume_from) / "model.pt", weights_only=True))
        held = torch.load(Path(resume_from) / "optimizer.pt", weights_only=True)
        optimizer.load_state_dict(held["optimizer"])
        step = held["step"]
    with (options.output_dir / "lives.txt").open("a") as file:
        file.write(f"{step} {resume_from}\n")

    while step < options.steps:
        step += 1
        generator = torch.Generator().manual_seed(step)
        loss = model(torch.randn(8, 64, generator=generator)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 2 == 0:
            save(model, optimizer, step, options)
    print(f"loss {loss.item():.17g}")
    (options.output_dir / "loss.txt").write_text(f"{loss.item():.17g}")


def save(model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int, options: argparse.Namespace) -> None:
    place = options.output_dir / f"step_{step}"
    place.mkdir(exist_ok=True)
    torch.save(model.state_dict(), place / "model.pt")
    torch.save({"optimizer": optimizer.state_dict(), "step": step}, place / "optimizer.pt")
    died = options.output_dir / "died"
    if step == options.dies_at and not died.exists():
        died.touch()
        os.truncate(place / "optimizer.pt", (place / "optimizer.pt").stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
