"""`supervisor demo`: a real training on real text, made on the spot, with or without faults."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from supervisor.drill.faults import survive, wait_or_end
from supervisor.engine.leading import leaving_code
from supervisor.engine.opening import Terms
from supervisor.engine.running import run
from supervisor.errors import ExitCode, MachineError
from supervisor.job import Job, load_job
from supervisor.report.display import display
from supervisor.watch.signals import Inbox

#: Fewer steps for the demo with faults, which trains twice.
FAULTS_STEPS = 60


def demo(run_dir: Path, overrides: Sequence[str], inbox: Inbox, *, faults: bool) -> ExitCode:
    """Make the data and the base model if they are not there, then train.

    Args:
        run_dir: where the run is to live; the base model and the data go beside it.
        overrides: `--set` of the user.
        inbox: signals.
        faults: train twice, undisturbed and disturbed, and compare.

    Returns:
        What to exit with.
    """
    assets = run_dir.parent / "demo-assets"
    _say(f"data and a tiny base model in {assets} …")
    process = subprocess.Popen([sys.executable, "-m", "jobs.demo_assets", str(assets)])
    caught = wait_or_end(process, inbox)
    if caught:
        return leaving_code(caught)
    if process.returncode != 0:
        raise MachineError("the demo's data and base model could not be made", "see the lines above")
    if faults:
        return survive(
            run_dir.with_name(f"{run_dir.name}-faults"), [*_paths(assets), *_short(), *overrides], inbox, _say
        )
    job = demo_job(run_dir, assets, overrides)
    with display(run_dir) as tell:
        code = run(job, Terms(), inbox, tell)
    if code is ExitCode.FINISHED:
        _say(last_screen(job))
    return code


def demo_job(run_dir: Path, assets: Path, overrides: Sequence[str]) -> Job:
    """The job `jobs/demo.yaml`, its paths where this demo lives."""
    return load_job(Path(str(files("jobs") / "demo.yaml")), [f"run_dir={run_dir}", *_paths(assets), *overrides])


def _paths(assets: Path) -> list[str]:
    return [
        f"args.model={assets / 'base'}",
        f"args.data={assets / 'train.jsonl'}",
        f"args.eval_data={assets / 'eval.jsonl'}",
    ]


def _short() -> list[str]:
    return [f"args.training.max_steps={FAULTS_STEPS}", "checkpoint.every=10 steps"]


def last_screen(job: Job) -> str:
    """Where the adapter is, how to load it, and what was learnt."""
    args = job.args if isinstance(job.args, dict) else {}
    losses = eval_losses(job.run_dir)
    learnt = f"eval loss {losses[0]:.3f} → {losses[-1]:.3f}" if losses else "no evaluation"
    width = min(shutil.get_terminal_size().columns, 100)
    return "\n".join(
        [
            "─" * width,
            f"Finished. {learnt}.",
            f"The adapter is in {job.run_dir / 'final'}. Load it with",
            "",
            "    from peft import PeftModel",
            "    from transformers import AutoModelForCausalLM",
            f"    base = AutoModelForCausalLM.from_pretrained({str(args.get('model'))!r})",
            f"    model = PeftModel.from_pretrained(base, {str(job.run_dir / 'final')!r})",
            "",
            f"What happened: supervisor why {job.run_dir}",
            "─" * width,
        ]
    )


def eval_losses(run_dir: Path) -> list[float]:
    """Evaluation losses in the order in which they were measured."""
    states = sorted((run_dir / "checkpoints").glob("checkpoint-*/trainer_state.json"), key=_step_of)
    if not states:
        return []
    history = json.loads(states[-1].read_text()).get("log_history", [])
    return [row["eval_loss"] for row in history if "eval_loss" in row]


def _step_of(state: Path) -> int:
    return int(state.parent.name.rpartition("-")[2])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - talk goes to standard error
