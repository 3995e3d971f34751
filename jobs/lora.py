"""Fine-tunes a causal language model with LoRA, on plain text or on chats.

    supervisor run JOB.yaml                     # survives whatever happens to it
    accelerate launch -m jobs.lora JOB.yaml     # just trains
    python -m jobs.lora JOB.yaml                # the same, one process

JOB.yaml is a job file whose `program` is `jobs.lora`; what it takes under
`args` is in `jobs/lora_args.py`, an example in `jobs/demo.yaml`. Everything of
the run lives in its `run_dir`; the adapter is in `final/` when training is over.

The result is a function of the job file, the data, the base model and the
number of processes, not of when the run was interrupted: the order of the data
depends on (seed, epoch), every other random number on (seed, rank, step), and
model and data are pinned by the first attempt.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from jobs.lora_args import LoraArgs, check, parse
from supervisor.errors import JobError, MachineError, SupervisorError

if TYPE_CHECKING:
    from jobs.lora_data import Reading
    from jobs.lora_load import Source

__all__ = ["LoraArgs", "check", "main", "parse", "train"]

T = TypeVar("T")

log = logging.getLogger("jobs.lora")


def main(argv: Sequence[str] | None = None) -> None:
    """Train the job that the command line names; without one, that of the run directory.

    Raises:
        JobError: the job cannot work.
        MachineError: this machine cannot run it.
    """
    from jobs.lora_settings import prepare_environment
    from supervisor.job.load import load_job

    words = sys.argv[1:] if argv is None else list(argv)
    if words and words[0] in ("-h", "--help"):
        sys.stdout.write(str(__doc__))
        return
    supervised_dir = os.environ.get("SUPERVISOR_RUN_DIR")
    if len(words) != 1 and not (supervised_dir and not words):
        raise JobError(f"{len(words)} arguments were given", "call it as python -m jobs.lora JOB.yaml")
    job_file = Path(words[0]) if words else Path(str(supervised_dir)) / "job.yaml"
    job = load_job(job_file)
    if not isinstance(job.args, dict):
        raise JobError("args is a list", "jobs.lora takes a mapping: model, data, …", str(job_file))
    run_dir = Path(supervised_dir or job.run_dir).resolve()
    first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(level=logging.INFO if first else logging.WARNING, format="%(message)s")
    args = parse(job.args)
    if first and not _supervised():  # else it has been done
        check(args, Path.cwd())
    prepare_environment(run_dir, job.name, os.environ)  # before torch is imported
    train(args, run_dir, job.name)


def train(args: LoraArgs, run_dir: Path, name: str) -> None:
    """Train a job, or go on with it.

    Raises:
        JobError: the job cannot work, or is no longer what it was when the run began.
        MachineError: this machine cannot run it.
    """
    from transformers import Trainer, set_seed
    from transformers.utils.logging import disable_progress_bar

    from jobs.lora_data import Reading, longest, padding_for
    from jobs.lora_load import sources_of
    from jobs.lora_model import load_model, load_tokenizer, positions_of
    from jobs.lora_pins import ask_hub, hold_pins
    from jobs.lora_seeding import SeedEveryStep
    from jobs.lora_settings import training_arguments
    from supervisor.worker import SupervisorCallback, resume_point

    # ---- setup
    disable_progress_bar()  # output goes to files
    resume_from = resume_point()  # None without a supervisor, and for a fresh start
    settings = training_arguments(args, run_dir, name, resuming=resume_from is not None)
    _refuse_other_worlds(settings)
    accept = os.environ.get("SUPERVISOR_ACCEPT_CHANGES") == "1"
    pins = _decided_by_rank_0(settings, lambda: hold_pins(args, run_dir, ask_hub, accept_changes=accept))

    # ---- model
    set_seed(settings.seed)  # the adapter begins with random numbers
    tokenizer = load_tokenizer(args, pins["model"])
    model = load_model(args, pins["model"], settings)
    trainable, total = model.get_nb_trainable_parameters()
    log.info("model: %s, %s of %s parameters are trained", args.model, f"{trainable:,}", f"{total:,}")

    # ---- data
    max_length = longest(args.max_length, tokenizer, positions_of(model))
    reading = Reading(args, tokenizer, max_length, run_dir / "cache")
    data = [_tokens(source, reading, settings) for source in sources_of(args, pins)]

    # ---- loop
    trainer = Trainer(
        model=model,
        args=settings,
        train_dataset=data[0],
        eval_dataset=data[1] if len(data) > 1 else None,
        data_collator=padding_for(tokenizer, multiple=1 if settings.device.type == "cpu" else 8),
        callbacks=[SeedEveryStep(settings.seed, settings.process_index), SupervisorCallback()],
    )
    trainer.train(resume_from_checkpoint=resume_from)

    # ---- end
    if settings.process_index == 0:
        losses = [row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row]
        if losses:
            log.info("eval loss: %.4f at first, %.4f at last", losses[0], losses[-1])
    if not _supervised() or os.environ.get("SUPERVISOR_SNAPSHOT") == "off":  # else the supervisor writes it
        _save(trainer, run_dir / "final")


def _supervised() -> bool:
    return "SUPERVISOR_BOARD" in os.environ


def _refuse_other_worlds(settings: Any) -> None:
    """Refuse what is not one process per device, all of them training one model.

    `accelerate launch --multi_gpu` on a machine whose GPUs are not visible starts
    processes that do not know of each other, all writing the same directory. A
    single process that sees several GPUs trains with torch's DataParallel.

    Raises:
        MachineError: it is one of these.
    """
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != settings.world_size:
        raise MachineError(
            f"{launched} processes were launched, but each would train a model of its own",
            "make the GPUs visible, or set ACCELERATE_USE_CPU=true to train on the CPU",
        )
    if settings.n_gpu > 1:
        raise MachineError(
            f"one process sees {settings.n_gpu} GPUs",
            "start one process per GPU (accelerate launch, supervisor run), or show it one: CUDA_VISIBLE_DEVICES=0",
        )


def _decided_by_rank_0(settings: Any, decide: Callable[[], T]) -> T:
    """What rank 0 found, on every rank; its JobError is everybody's.

    Raises:
        JobError: rank 0 raised it.
    """
    from accelerate.utils import broadcast_object_list

    outcome: list[Any] = [None]
    if settings.process_index == 0:
        try:
            outcome[0] = decide()
        except JobError as error:
            outcome[0] = error
    if settings.world_size > 1:
        broadcast_object_list(outcome)
    if isinstance(outcome[0], JobError):
        raise outcome[0]
    found: T = outcome[0]
    return found


def _tokens(source: Source, reading: Reading, settings: Any) -> Any:
    """The examples of a source: made by one process of each node, while the others wait."""
    from jobs.lora_data import make_tokens, open_tokens

    with settings.main_process_first(desc=f"tokenising {source.key}"):
        if settings.local_process_index == 0:
            make_tokens(source, reading)
    return open_tokens(source, reading)


def _save(trainer: Any, final: Path) -> None:
    """Write the adapter in PEFT's format; it appears whole."""
    partial = final.with_name(f".partial-{final.name}")
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        trainer.save_model(str(final))  # gathers the shards of all ranks
        return
    if trainer.args.process_index != 0:
        return
    shutil.rmtree(partial, ignore_errors=True)
    trainer.accelerator.unwrap_model(trainer.model).save_pretrained(str(partial))
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    log.info("the adapter is in %s", final)


def _command() -> None:
    """The same for people, who are told in a line what was refused; a supervisor reads the exception."""
    try:
        main()
    except SupervisorError as error:
        if _supervised():
            raise
        sys.stderr.write(f"jobs.lora: {error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    _command()
