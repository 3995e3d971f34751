"""One throw-away backward pass, so that a resumed run packs its gradients as the first one did.

After its first backward pass DDP rebuilds its buckets in the order in which gradients came.
A run that goes on would sum its first step in the old packing, and with more than two ranks
the last bit of a sum depends on the order. With `find_unused_parameters=True` buckets are
never rebuilt and nothing is needed; with two ranks a + b is b + a.

Source: torch/csrc/distributed/c10d/reducer.cpp, `should_rebuild_buckets`; pytorch#44798.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from supervisor.worker import randomness


def rebuild_buckets(trainer: Any, dataloader: Any) -> None:
    """Run one forward and backward pass on the wrapped model and forget its gradients.

    The random state, the gradients and the trainer's own metrics are afterwards as before.
    A data set that cannot be indexed gives no batch without being moved on; then nothing is
    done, and results may differ from the undisturbed run in the last bit.

    Args:
        trainer: a `transformers.Trainer` whose model is wrapped.
        dataloader: the one it trains with.
    """
    model = trainer.model_wrapped
    if not isinstance(model, DistributedDataParallel) or model.find_unused_parameters or model.static_graph:
        return
    dataset, collate = dataloader.dataset, dataloader.collate_fn
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        return
    from accelerate.utils import send_to_device

    kept = {name: copy.deepcopy(getattr(trainer, name)) for name in ("_metrics",) if hasattr(trainer, name)}
    with randomness.untouched():
        size = min(trainer.args.per_device_train_batch_size, len(dataset))
        batch = send_to_device(collate([dataset[i] for i in range(size)]), trainer.args.device)
        model.train()
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(model, batch)
        loss = loss[0] if isinstance(loss, tuple) else loss
        torch.autograd.backward(loss)
        model.zero_grad(set_to_none=True)
    for name, value in kept.items():
        setattr(trainer, name, value)
