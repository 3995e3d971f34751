"""Imported first, it has a program of the tests start in two thirds of the time: most of what a rank costs is imports.

What only other programs need is left out where transformers and peft take whatever they find, and nobody looks for
cycles while modules are read. Neither touches what is trained. A worker that has stood by has imported everything.
"""

from __future__ import annotations

import gc
import sys

#: Words of a command line, each with what it needs of what is left out otherwise.
NEEDED = {"--quantise": {"bitsandbytes"}, "--trl": {"datasets", "pandas", "pyarrow"}}
OTHERS = {"bitsandbytes", "datasets", "pandas", "pyarrow", "scipy", "sklearn"}

if "transformers" not in sys.modules:
    for package in OTHERS.difference(*(NEEDED[word] for word in NEEDED if word in sys.argv)):
        sys.modules[package] = None  # type: ignore[assignment]  # to `import` and to `find_spec`: not there
gc.set_threshold(100_000, 10, 10)
