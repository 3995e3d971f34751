"""Whether checkpoints have room, and whether their size makes sense."""

import pytest

from supervisor.policy.footprint import saved_untrained, short_of_room, too_large, trained_besides, trained_whole

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


@pytest.mark.parametrize(
    ("untrained", "trained", "told"),
    [(14_000, 160, True), (480, 160, False), (481, 160, True), (0, 160, False), (0.5, 0, False), (14_000, 0, True)],
)
def test_a_base_that_is_saved_and_not_trained_is_told_before_the_first_step(
    untrained: float, trained: int, told: bool
) -> None:
    said = saved_untrained(int(untrained * MB), trained * MB, [("embed_tokens", 500 * MB)])
    assert (said is not None) == told
    assert said is None or "embed_tokens (500 MB)" in said


@pytest.mark.parametrize(
    ("adapter", "others", "told"),
    [(160, 14_000, True), (160, 480, False), (160, 481, True), (0, 14_000, False), (0.1, 0.5, False)],
)
def test_a_base_that_is_trained_beside_its_adapter_is_told(adapter: float, others: float, told: bool) -> None:
    said = trained_besides(int(adapter * MB), int(others * MB), 42_000 * MB, [("embed_tokens", 500 * MB)])
    assert (said is not None) == told
    assert said is None or "embed_tokens (500 MB)" in said


@pytest.mark.parametrize(
    ("trained", "frozen", "checkpoint", "told"),
    [(14_000, 0, 42_000, True), (2_000, 12_000, 6_000, False), (500, 0, 1_500, False)],
)
def test_a_large_model_that_is_trained_whole_is_told(trained: int, frozen: int, checkpoint: int, told: bool) -> None:
    said = trained_whole(trained * MB, frozen * MB, checkpoint * MB, [("embed_tokens", 500 * MB)])
    assert (said is not None) == told
