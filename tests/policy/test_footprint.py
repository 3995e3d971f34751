"""Whether checkpoints have room, and whether their size makes sense."""

import pytest

from supervisor.policy.footprint import short_of_room, too_large

MB = 1_000_000


@pytest.mark.parametrize(("standing", "free", "short"), [(0, 399, True), (0, 400, False), (3, 99, True), (4, 0, False)])
def test_there_has_to_be_room_for_those_that_are_kept_and_for_the_next(standing: int, free: int, short: bool) -> None:
    told = short_of_room(100 * MB, keep_last=3, standing=standing, free_bytes=free * MB)
    assert (told is not None) == short


@pytest.mark.parametrize(
    ("weights", "optimizer", "told"),
    [
        (160, 320, False),  # AdamW, all in 32 bits
        (80, 320, False),  # weights in 16 bits
        (160, 80, False),  # 8-bit AdamW
        (14_000, 320, True),  # a frozen base of 7 billion in 16 bits beside an adapter
        (14_000, 0, False),  # an optimizer without state explains nothing
    ],
)
def test_a_frozen_base_is_told_from_what_is_trained(weights: int, optimizer: int, told: bool) -> None:
    files = {"model.safetensors": weights * MB, "optimizer.safetensors": optimizer * MB}
    said = too_large(files, "optimizer.safetensors", [("embed_tokens", 500 * MB)])
    assert (said is not None) == told
    assert said is None or "embed_tokens (500 MB)" in said
