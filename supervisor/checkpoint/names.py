"""Names: of a checkpoint's directory, and of the files in it."""

from __future__ import annotations

import re

MANIFEST = "manifest.json"

#: No leading zeros: one step has one name. 18 digits stay below 2**63.
_CHECKPOINT = re.compile(r"checkpoint-(0|[1-9][0-9]{0,17})")

#: Far below NAME_MAX (255), so that the name fits with our prefixes and marks too.
_LONGEST_NAME_BYTES = 200


def checkpoint_name(step: int) -> str:
    """The directory's name of the checkpoint taken after ``step`` optimizer steps.

    >>> checkpoint_name(20)
    'checkpoint-20'
    """
    return f"checkpoint-{step}"


def step_of(name: str) -> int | None:
    """The step in a checkpoint's directory name; None for every other name.

    >>> [step_of(name) for name in ("checkpoint-20", "checkpoint-020", "checkpoint-", "final")]
    [20, None, None, None]
    """
    match = _CHECKPOINT.fullmatch(name)
    return int(match[1]) if match else None


def is_plain(name: str) -> bool:
    r"""Whether ``name`` can only mean a file in the directory it is looked up in.

    >>> [is_plain(name) for name in ("state.json", "../state.json", ".hidden", "a\\b", "", "a\0b")]
    [True, False, False, False, False, False]
    """
    return (
        name != ""
        and not name.startswith(".")
        and name.isprintable()  # excludes control characters and lone surrogates
        and not set("/\\") & set(name)
        and len(name.encode()) <= _LONGEST_NAME_BYTES
    )
