from __future__ import annotations

from collections.abc import Iterator

import link_ends
import pytest


@pytest.fixture
def world() -> Iterator[link_ends.World]:
    with link_ends.world() as made:
        yield made
