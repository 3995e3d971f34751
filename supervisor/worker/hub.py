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


def at_hand(name: str, revision: str | None) -> str:
    """Where to load a model from: by its name, or from the local cache while the hub does not answer."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if Path(name).exists() or hub_answers(name, revision):
        return name
    try:
        return str(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):  # no name of the hub, or not in the cache: loading will say so
        return name
