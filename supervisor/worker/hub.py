"""Whether the hub can be asked, and what stands in for it where it cannot."""

from __future__ import annotations

import functools
from pathlib import Path


@functools.cache
def hub_answers(name: str, revision: str | None) -> bool:
    """Whether the hub can be asked about a model, found out with one question.

    transformers asks for a dozen files, and repeats each question for half a minute before
    it turns to the cache, some of them even when told to use the cache only.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        HfApi().model_info(name, revision=revision, timeout=10.0)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return True  # an answer; loading will say what is wrong
    except Exception:  # no route, a proxy's page, an outage, offline mode: each raises something else
        return False
    return True


def cached(name: str, revision: str | None) -> Path | None:
    """Where the local cache has a model of the hub while the hub does not answer; None while it does.

    Raises:
        LocalEntryNotFoundError: it is not in the cache.
        ValueError: the hub has no such names.
    """
    from huggingface_hub import snapshot_download

    if hub_answers(name, revision):
        return None
    return Path(snapshot_download(name, revision=revision, local_files_only=True))


def at_hand(name: str, revision: str | None) -> str:
    """Where to load a model from: by its name, or from the local cache while the hub does not answer."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    if Path(name).exists():
        return name
    try:
        return str(cached(name, revision) or name)
    except (LocalEntryNotFoundError, ValueError):  # no name of the hub, or not in the cache: loading will say so
        return name
