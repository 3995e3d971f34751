"""Tensors that all ranks hold together: what this rank holds of them, and how it is put back.

FSDP2 cuts each parameter along its first dimension, one piece for each rank, and the optimizer's
moments like it. A rank snapshots its pieces as they are (`shard-<r>.<file>`), without a word to the
others; the supervisor puts them together when it commits, so that a checkpoint is the same as
without shards and can be gone on from with another number of ranks, or without shards at all.

What is cut in another way is refused by name: it would be put together wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from supervisor.checkpoint.contents import OPTIMIZER
from supervisor.checkpoint.shards import own_file, shard_file
from supervisor.errors import JobError
from supervisor.worker.capture import BUFFER, Tensors, join_optimizer
from supervisor.worker.resume import Resume

#: What the Trainer loads by itself in forms that only it writes; both are private, and if they are called
#: otherwise one day a resume fails, loudly.
_LOADS = ("_load_from_checkpoint", "_load_optimizer_and_scheduler")
_REMEDY = "use data parallelism, or FSDP2 (fsdp_version: 2 in `launch.accelerate`), and no other kind"


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether ranks hold what is trained of a model in pieces.

    Raises:
        JobError: they do in a way that is not supported, or only some of it.
    """
    from torch.distributed.fsdp import FullyShardedDataParallel

    refuse_foreign()
    if any(isinstance(module, FullyShardedDataParallel) for module in model.modules()):
        raise _fsdp1()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    cut = [(name, p) for name, p in trained if isinstance(p, DTensor)]
    if not cut:
        return False
    for name, parameter in cut:
        _check(name, parameter)
    if len(cut) != len(trained):
        own = next(name for name, p in trained if not isinstance(p, DTensor))
        raise JobError(
            f"{own} is trained, but FSDP2 leaves it out: each rank would train its own", "let FSDP2 shard it"
        )
    return True


def refuse_foreign(known: Mapping[str, Any] | None = None) -> None:
    """Refuse what keeps parameters in a form of its own, as far as accelerate knows of it.

    Args:
        known: what it knows; default: of this process, which is nothing in a program that does not use it.

    Raises:
        JobError: naming it.
    """
    from accelerate.state import AcceleratorState

    state = AcceleratorState._shared_state if known is None else known
    if getattr(state.get("fsdp_plugin"), "fsdp_version", 2) == 1:
        raise _fsdp1()
    plugins = state.get("deepspeed_plugins")  # one, or several by name
    for plugin in plugins.values() if isinstance(plugins, dict) else (plugins,) if plugins else ():
        raise JobError(f"DeepSpeed ZeRO-{plugin.zero_stage} is not supported: it cuts a buffer, not tensors", _REMEDY)
    if getattr(state.get("distributed_type"), "name", "") == "MEGATRON_LM":
        raise JobError("Megatron-LM is not supported", _REMEDY)
    sizes = state.get("parallelism_config")
    for kind in ("tp", "cp", "sp", "pp", "ep", "dp_replicate"):
        size = getattr(sizes, f"{kind}_size", None)
        if isinstance(size, int) and size > 1:
            raise JobError(f"parallelism_config has {kind}_size {size}, which is not supported", _REMEDY)


def _fsdp1() -> JobError:
    return JobError("FSDP1 is not supported: it keeps parameters in flat buffers of its own", _REMEDY)


def _check(name: str, tensor: DTensor) -> None:
    """Make sure that the pieces, in the order of ranks and end to end, are the tensor.

    Raises:
        JobError: they are not.
    """
    world = torch.distributed.get_world_size()
    if tensor.placements != (Shard(0),) or tensor.device_mesh.size() != world:
        how = ", ".join(map(str, tensor.placements))
        raise JobError(f"{name} is placed as {how} over {tuple(tensor.device_mesh.shape)} of {world} ranks", _REMEDY)


def check_optimizer(optimizer: Any) -> None:
    """Make sure that an optimizer keeps for each sharded parameter what is sharded alike, or mere numbers.

    Raises:
        JobError: it does not.
    """
    for parameter in _parameters(optimizer):
        for key, value in optimizer.state.get(parameter, {}).items():
            if not isinstance(parameter, DTensor) or not isinstance(value, torch.Tensor):
                continue
            if isinstance(value, DTensor):
                _check(key, value)
            if value.numel() > 1 and (not isinstance(value, DTensor) or value.shape != parameter.shape):
                kind = type(getattr(optimizer, "optimizer", optimizer)).__name__
                raise JobError(
                    f"{kind} keeps {key} of {tuple(value.shape)} for a sharded parameter of {tuple(parameter.shape)}",
                    "take one whose state has the parameters' shape, such as adamw_torch, or train without shards",
                )


def _parameters(optimizer: Any) -> Iterator[torch.Tensor]:
    """In the order in which a state dict numbers them."""
    return (p for group in optimizer.param_groups for p in group["params"])


def gather_in(model: torch.nn.Module) -> None:
    """Have every parameter be its piece again: after a forward pass without a backward one some are whole."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def divide(files: Mapping[str, Tensors], rank: int, *, leads: bool) -> tuple[dict[str, Tensors], dict[str, Tensors]]:
    """What this rank writes of files whose tensors are sharded.

    Buffers that training changes are no shards, but FSDP2 lets those of each rank drift apart: each writes its own.

    Args:
        files: file name to live tensors.
        rank: this one.
        leads: whether it writes what all ranks hold alike.

    Returns:
        File name to this rank's pieces, and to the tensors that they are pieces of.
    """
    mine: dict[str, Tensors] = {}
    wholes: dict[str, Tensors] = {}
    with torch.no_grad():  # else each piece is made a node of the graph
        for file, tensors in files.items():
            cut = {name: t for name, t in tensors.items() if isinstance(t, DTensor)}
            if leads and len(cut) < len(tensors):
                mine[file] = {name: t for name, t in tensors.items() if name not in cut}
            drifting = {name: t for name, t in tensors.items() if name.startswith(BUFFER)}
            if drifting:
                mine[own_file(rank)] = drifting
            if cut:
                wholes[shard_file(rank, file)] = cut
                mine[shard_file(rank, file)] = {name: t.to_local() for name, t in cut.items()}
    return mine, wholes


def as_held(value: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A saved tensor as a sharded target is: cut into pieces, of which this rank has its own."""
    if isinstance(target, DTensor) and not isinstance(value, DTensor) and value.shape == target.shape:
        # Without a source rank nothing is sent: each takes its piece of what it has.
        return distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
    return value


def local(target: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The memory of a target on this rank, and what of a saved value belongs there."""
    if not isinstance(target, DTensor):
        return target, value
    own = as_held(value, target)
    assert isinstance(own, DTensor)
    return target.to_local(), own.to_local()


def saved(resume: Resume, file: str, rank: int, like: DTensor | None) -> Tensors:
    """Tensors of a file: this rank's pieces where there are pieces, else whole ones.

    Args:
        resume: what there is.
        file: which one.
        rank: this one.
        like: any tensor that is sharded now; None where none is.
    """
    pieces = {} if like is None else resume.pieces(file, rank)
    if like is None or not pieces:
        return resume.tensors(file)
    made = resume.alike(file)
    for name, (piece, shape) in pieces.items():
        stride = torch.empty(shape, device="meta").stride()
        own = piece.reshape(-1, *shape[1:]).to(like.device)
        made[name] = DTensor.from_local(
            own, like.device_mesh, like.placements, run_check=False, shape=torch.Size(shape), stride=stride
        )
    return made


def whole(resume: Resume, file: str, rank: int) -> Tensors:
    """Tensors of a file, whole on every rank; all ranks have to ask for it.

    A snapshot lies on each node in the pieces of the node's own ranks. Those of others come from them, one tensor
    after the other, since only the whole model is known to have room.
    """
    size = resume.state["world_size"]
    if not resume.in_pieces(file) or all(resume.pieces(file, one) for one in range(size)):
        return resume.tensors(file)
    found = resume.alike(file)
    for name, (piece, shape) in resume.pieces(file, rank).items():
        pieces: list[Any] = [None] * size
        torch.distributed.all_gather_object(pieces, piece)
        found[name] = torch.cat([one.flatten() for one in pieces]).reshape(shape)
    return found


def restore_optimizer(optimizer: Any, resume: Resume, rank: int, like: DTensor | None) -> None:
    """Put an optimizer's state back through its own `load_state_dict`; arguments as for `saved`."""
    parameters = list(_parameters(optimizer))
    tensors = saved(resume, OPTIMIZER, rank, like)
    for name, value in tensors.items():
        head, _, rest = name.partition(".")
        if head == "state":
            tensors[name] = as_held(value, parameters[int(rest.partition(".")[0])])
    optimizer.load_state_dict(join_optimizer(tensors, resume.state["optimizer"]))


def some_shard(model: torch.nn.Module) -> DTensor | None:
    """Any sharded parameter that is trained; None without any."""
    return next((p for p in model.parameters() if p.requires_grad and isinstance(p, DTensor)), None)


def take_over_loading(trainer: Any, resume: Resume) -> None:
    """Have a trainer load neither weights nor optimizer where there are shards, now or in what was saved.

    It would want forms of them that it alone writes. Its state, its random numbers and its scaler it loads
    as ever; the rest is put back when training begins.
    """
    if not (getattr(trainer, "is_fsdp_enabled", False) or resume.in_pieces()):
        return
    for name in _LOADS:
        setattr(trainer, name, lambda *_args, **_kwargs: None)


def give_back_loading(trainer: Any) -> bool:
    """Undo `take_over_loading`, and tell whether there was anything to undo."""
    undone = [vars(trainer).pop(name, None) for name in _LOADS]
    return undone != [None] * len(_LOADS)
