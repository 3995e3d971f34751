"""Imported first, it has a program of the tests start in two thirds of the time: most of what a rank costs is imports.

What only other programs need is left out where transformers and peft take whatever they find, and nobody looks for
cycles while modules are read. What only compiles is left out where a program's own `--model light` is trained. None of
it touches what is trained. A worker that has stood by has imported everything.
"""

from __future__ import annotations

import gc
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

#: Words of a command line, each with what it needs of what is left out otherwise.
NEEDED = {"--quantise": {"bitsandbytes"}, "--trl": {"datasets", "pandas", "pyarrow"}}
OTHERS = {"bitsandbytes", "boto3", "datasets", "pandas", "pyarrow", "scipy", "sklearn"}


class NoCompiler(ModuleType):
    """What torch and accelerate ask of torch._dynamo where nothing is compiled: a fifth of the start."""

    eval_frame = SimpleNamespace(OptimizedModule=())

    utils = SimpleNamespace(get_optimize_ddp_mode=lambda: "no_optimization")
    trace_rules = SimpleNamespace(clear_lru_cache=lambda: None)

    @staticmethod
    def disable(function: Any, *_: Any, **__: Any) -> Any:
        return function

    @staticmethod
    def graph_break(*_: Any) -> None:
        return None


if "transformers" not in sys.modules:
    for package in OTHERS.difference(*(NEEDED[word] for word in NEEDED if word in sys.argv)):
        sys.modules[package] = None  # type: ignore[assignment]  # to `import` and to `find_spec`: not there
if "light" in sys.argv and "torch" not in sys.modules:
    sys.modules["torch._dynamo"] = NoCompiler("torch._dynamo")
gc.set_threshold(100_000, 10, 10)
