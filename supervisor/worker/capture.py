"""What a snapshot consists of: which tensors go into which file, and the JSON beside them.

The adapter is stored under the names that peft itself would write, so that the file is an
adapter for everybody; the mapping is made once, since peft may ask the network at each save.
Everything else that training changes is captured as well: every parameter that requires a
gradient, every buffer that has changed, the optimizer's state of whatever shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.modules.batchnorm import _NormBase

from supervisor.checkpoint.contents import ADAPTER, EXTRA, MODEL
from supervisor.errors import JobError
from supervisor.worker import tree

#: How names of changed buffers begin.
BUFFER = "buffer:"

Tensors = dict[str, torch.Tensor]


@dataclass(slots=True)
class ModelCapture:
    """The part of a model that training changes.

    Attributes:
        model: as the program made it, not wrapped by DDP.
        file: `ADAPTER` for a peft model, else `MODEL`.
        adapter_config: peft's, JSON-ready; None for a model without an adapter.
    """

    model: torch.nn.Module
    file: str = field(init=False)
    adapter_config: dict[str, Any] | None = field(init=False, default=None)
    _named: dict[str, str] = field(init=False, default_factory=dict)  # name in the model -> name in the file
    _holders: list[tuple[str, torch.nn.Module]] = field(init=False, default_factory=list)
    _buffers: dict[str, tuple[int, int]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.file = MODEL
        if _is_peft(self.model):
            self.file = ADAPTER
            self.adapter_config = _adapter_config(self.model)
            self._named = _peft_names(self.model)
        modules = self.model.named_modules()
        self._holders = [(f"{name}." if name else "", m) for name, m in modules if m._parameters or m._buffers]
        # The running averages of a norm are written by its kernel, which leaves no mark: they always count.
        norms = [(prefix, m) for prefix, m in self._holders if isinstance(m, _NormBase)]
        unmarked = {prefix + name for prefix, m in norms for name in m._buffers}
        self._buffers = {name: _mark(b) for name, b in self._changeable("_buffers") if name not in unmarked}

    def _changeable(self, kind: str) -> Iterator[tuple[str, torch.Tensor]]:
        """What `named_parameters` and `named_buffers` tell, as it is now.

        Those walk the whole tree of modules, which for a LoRA of 448 tensors takes 7 ms, at every
        step. Here the walk is made once: tensors that are replaced or unfrozen later are seen,
        modules that are added while training goes on are not.
        """
        seen: set[int] = set()
        for prefix, module in self._holders:
            for name, tensor in getattr(module, kind).items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield prefix + name, tensor

    def files(self) -> dict[str, Tensors]:
        """File name to tensors, alive: whoever copies them copies what they hold then; sharded ones as they are."""
        main: Tensors = {}
        extra: Tensors = {}
        for name, parameter in self._changeable("_parameters"):
            if name in self._named:
                main[self._named[name]] = parameter
            elif parameter.requires_grad:
                (extra if self.file == ADAPTER else main)[name] = parameter
        for name, buffer in self._changeable("_buffers"):
            if name in self._named:
                main[self._named[name]] = buffer
            elif self._buffers.get(name) != _mark(buffer):
                extra[BUFFER + name] = buffer
        return {self.file: main, **({EXTRA: extra} if extra else {})}

    def restore(
        self,
        files: Mapping[str, Tensors],
        local: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] = lambda *both: both,
    ) -> None:
        """Copy saved values back into the parameters and buffers they came from, bit for bit.

        The Trainer loads the adapter too, but through peft, which may cast it and leaves out
        what is no adapter.

        Args:
            files: file name to saved tensors.
            local: gives the memory of a target on this rank, and what of a saved value belongs there.

        Raises:
            ValueError: something saved has no place in this model, or another shape or type.
        """
        parameters, buffers = dict(self.model.named_parameters()), dict(self.model.named_buffers())
        back = {stored: name for name, stored in self._named.items()}
        for file in (self.file, EXTRA):
            for stored, value in files.get(file, {}).items():
                if stored.startswith(BUFFER):
                    target = buffers.get(stored.removeprefix(BUFFER))
                else:
                    name = back.get(stored, stored)
                    target = parameters[name] if name in parameters else buffers.get(name)
                if target is None or target.shape != value.shape or target.dtype != value.dtype:
                    now = "nothing" if target is None else f"{target.dtype} {tuple(target.shape)}"
                    raise ValueError(
                        f"the checkpoint holds {stored} as {value.dtype} {tuple(value.shape)}, the model has {now}"
                    )
                with torch.no_grad():
                    memory, own = local(target, value)
                    memory.copy_(own)


def _is_peft(model: torch.nn.Module) -> bool:
    return hasattr(model, "peft_config") and hasattr(model, "active_adapters")


def _mark(buffer: torch.Tensor) -> tuple[int, int]:
    """Changes whenever a buffer is replaced or written in place."""
    return id(buffer), buffer._version


def _adapter_config(model: Any) -> dict[str, Any]:
    """What peft's own save writes as adapter_config.json.

    Source: PeftModel.save_pretrained: inference_mode is set for the file, sets become lists, and
    without a task type the base model's class is named, for AutoPeftModel.
    """
    config = model.peft_config[_active(model)]
    told = config.to_dict()
    told["inference_mode"] = True
    named = told.get("base_model_name_or_path") or getattr(getattr(model, "config", None), "_name_or_path", None)
    told["base_model_name_or_path"] = named or None
    if told.get("task_type") is None:
        base = type(model.get_base_model())
        told["auto_mapping"] = {"base_model_class": base.__name__, "parent_library": base.__module__}
    return {k: sorted(v) if isinstance(v, set) else v for k, v in told.items()}


def _active(model: Any) -> str:
    active = model.active_adapters
    return str((active() if callable(active) else active)[0])


def _peft_names(model: Any) -> dict[str, str]:
    """Name in the model to the name that peft gives it in a saved adapter; VeRA saves buffers too."""
    from peft import get_peft_model_state_dict

    # The very parameters, not copies of them: shards are told apart by nothing else, empty ones have no address.
    own = model.state_dict(keep_vars=True)
    # False: the "auto" of peft's default asks the hub for the base model's configuration.
    saved = get_peft_model_state_dict(model, own, adapter_name=_active(model), save_embedding_layers=False)
    by_address = {_address(t): name for name, t in (*model.named_buffers(), *model.named_parameters())}
    computed = [key for key, t in saved.items() if _address(t) not in by_address]
    if computed:
        raise JobError(
            f"peft computes {computed[0]} when it saves, it is no parameter of the model",
            "use an adapter of the LoRA family; prompt tuning and its kin are not supported",
        )
    return {by_address[_address(t)]: key for key, t in saved.items()}


def _address(tensor: torch.Tensor) -> tuple[int, torch.Size]:
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    return tensor.data_ptr() if plain else id(tensor), tensor.shape


def split_optimizer(state_dict: Mapping[str, Any]) -> tuple[Tensors, dict[str, Any]]:
    """An optimizer's state as tensors and the JSON that joins them again.

    A tensor of parameter 3 called ``exp_avg`` becomes ``state.3.exp_avg``; numbers, and
    whatever is nested deeper, stand in the JSON, where larger tensors are named.

    Args:
        state_dict: as `torch.optim.Optimizer.state_dict` gives it.

    Returns:
        Tensors by name, and a JSON value for `join_optimizer`.

    Raises:
        TypeError: the state holds something that is neither tensor nor number nor nested of these.
    """
    tensors: Tensors = {}
    rest: dict[str, dict[str, Any]] = {}
    for index, entries in state_dict["state"].items():
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"state.{index}.{key}"] = value
            else:
                rest.setdefault(str(index), {})[key] = hoist(value, f"state.{index}.{key}", tensors)
    groups = [hoist(g, f"group.{i}", tensors) for i, g in enumerate(state_dict["param_groups"])]
    other = {k: hoist(v, k, tensors) for k, v in state_dict.items() if k not in ("state", "param_groups")}
    return tensors, {"state": rest, "param_groups": groups, "other": other}


def hoist(value: Any, name: str, tensors: Tensors) -> Any:
    """Encode a nested value, its tensors moved to ``tensors`` and named in their place."""
    if isinstance(value, torch.Tensor):
        tensors[name] = value
        return {"~": "named", "name": name}
    if isinstance(value, (list, tuple)):
        items = [hoist(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]
        return items if isinstance(value, list) else {"~": "tuple", "items": items}
    if isinstance(value, dict):
        items = [[tree.encode(k, name), hoist(v, f"{name}.{k}", tensors)] for k, v in value.items()]
        return {"~": "dict", "items": items}
    return tree.encode(value, name)


def join_optimizer(tensors: Mapping[str, torch.Tensor], told: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict that `split_optimizer` took apart."""
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        head, _, rest = name.partition(".")
        index, _, key = rest.partition(".")
        if head == "state" and key not in told["state"].get(index, {}) and not _nested(key, index, told):
            state.setdefault(int(index), {})[key] = tensor
    for index, entries in told["state"].items():
        for key, value in entries.items():
            state.setdefault(int(index), {})[key] = lower(value, tensors)
    groups = [lower(g, tensors) for g in told["param_groups"]]
    other = {k: lower(v, tensors) for k, v in told["other"].items()}
    return {"state": dict(sorted(state.items())), "param_groups": groups, **other}


def _nested(key: str, index: str, told: Mapping[str, Any]) -> bool:
    """Whether a tensor belongs to a nested value, such as item 0 of a list called ``old_dirs``."""
    return any(key.startswith(f"{outer}.") for outer in told["state"].get(index, {}))


def lower(value: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The nested value that `hoist` encoded."""
    if isinstance(value, list):
        return [lower(v, tensors) for v in value]
    if isinstance(value, dict):
        match value.get("~"):
            case "named":
                return tensors[value["name"]]
            case "tuple":
                return tuple(lower(v, tensors) for v in value["items"])
            case "dict":
                return {tree.decode(k): lower(v, tensors) for k, v in value["items"]}
    return tree.decode(value)


def names_of(files: Mapping[str, Tensors]) -> list[str]:
    """Every tensor's name, in order; a cheap test of whether the layout is still the same."""
    return [name for tensors in files.values() for name in tensors]


def flat(files: Mapping[str, Tensors]) -> Iterable[torch.Tensor]:
    """Every tensor, in the order of `names_of`."""
    return (tensor for tensors in files.values() for tensor in tensors.values())
