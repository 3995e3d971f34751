"""What the stock form of a checkpoint has no place for, put back when training begins."""

from __future__ import annotations

from typing import Any

import torch

from supervisor.checkpoint.contents import ADAPTER, EXTRA, MODEL
from supervisor.checkpoint.shards import own_file
from supervisor.errors import JobError
from supervisor.worker import sharded, sums, tree
from supervisor.worker.capture import BUFFER, ModelCapture, Tensors
from supervisor.worker.resume import Resume
from supervisor.worker.warmup import rebuild_buckets


def model_files(resume: Resume, rank: int) -> dict[str, Tensors]:
    """What was saved of the model, whole; what a stock checkpoint holds the Trainer has loaded.

    All ranks have to ask for it: what other nodes' hold of a sharded state comes from them.
    """
    if _loaded(resume):
        return {}
    files = {file: sharded.whole(resume, file, rank) for file in (ADAPTER, MODEL, EXTRA)}
    files[EXTRA] |= _buffers(resume, rank)
    return files


def restore(resume: Resume, rank: int, trainer: Any, model: ModelCapture, given: dict[str, Any]) -> None:
    """Put back what the Trainer itself does not load.

    Args:
        resume: what there is.
        rank: this one.
        trainer: a `transformers.Trainer`; None in a program that binds none.
        model: where the weights belong.
        given: what the hook was given: optimizer, scheduler, data loader.
    """
    if trainer is not None:
        _restore_sums(resume, rank, trainer)
        # Sums of more than two ranks depend on how gradients are packed.
        if trainer.args.world_size > 2:
            rebuild_buckets(trainer, given["train_dataloader"])
    shard = sharded.some_shard(model.model)
    if _loaded(resume):
        if shard is not None:
            raise JobError(
                "`start_from` names a stock checkpoint, and this model is in shards: it cannot be put into them",
                "begin without FSDP, and go on with it from the first checkpoint of this run (`--accept-changes`)",
            )
        return
    files = {file: sharded.saved(resume, file, rank, shard) for file in (ADAPTER, MODEL, EXTRA)}
    files[EXTRA] |= _buffers(resume, rank)
    model.restore(files, sharded.local)
    if trainer is not None and sharded.give_back_loading(trainer):
        sharded.restore_optimizer(given["optimizer"], resume, rank, shard)
        if resume.state.get("scheduler") is not None:
            given["lr_scheduler"].load_state_dict(tree.decode(resume.state["scheduler"]))


def _buffers(resume: Resume, rank: int) -> Tensors:
    """Buffers that each rank had of its own, under FSDP2; a rank that there was not takes those of the first."""
    own = resume.tensors(own_file(rank if rank < resume.state["world_size"] else 0))
    return {name: value for name, value in own.items() if name.startswith(BUFFER)}


def _loaded(resume: Resume) -> bool:
    return bool(resume.state.get("imported"))


def _restore_sums(resume: Resume, rank: int, trainer: Any) -> None:
    sums.restore(trainer, resume.rank(rank)["trainer"])
    if (loss := _running_loss(resume, rank, trainer.args.world_size)) is not None and hasattr(trainer, "_tr_loss"):
        trainer._tr_loss = loss.to(trainer.args.device)


def _running_loss(resume: Resume, rank: int, world_size: int) -> torch.Tensor | None:
    """The losses since the last log line, as this rank summed them.

    The Trainer logs their mean over the ranks. So where there were others, each rank takes that mean.
    """
    before = resume.state["world_size"]
    ranks = [rank] if before == world_size else range(before)
    found = [resume.tensors(own_file(one)).get("trainer.tr_loss") for one in ranks]
    known = [loss.clone() for loss in found if loss is not None]
    return torch.stack(known).mean(0) if len(known) > 1 else next(iter(known), None)
