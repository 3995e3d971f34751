"""Checkpoints that others wrote: which is the newest, and which are visibly damaged. Nothing of them is loaded."""

from __future__ import annotations

import io
import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoint_samples import commit_step, safetensors
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.checkpoint.flaws import FlawError
from supervisor.checkpoint.foreign import check_directory, check_file
from supervisor.checkpoint.programs import find, judge, number_in


def archive(content: bytes = b"tensor" * 2000) -> bytes:
    """What `torch.save` writes: a zip archive, nothing in it packed."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as made:
        made.writestr("archive/data.pkl", b"\x80\x02.")
        made.writestr("archive/data/0", content)
    return held.getvalue()


#: accelerate's `save_state` with one rank.
STATE = {
    "model.safetensors": safetensors(a=b"1234"),
    "optimizer.bin": archive(),
    "scheduler.bin": archive(),
    "random_states_0.pkl": archive(),
}


def save(place: Path, at_ns: int, files: dict[str, bytes], without: str = "") -> Path:
    """A directory, last written at that time."""
    place.mkdir(parents=True)
    for name, data in files.items():
        if name != without:
            (place / name).write_bytes(data)
            os.utime(place / name, ns=(at_ns, at_ns))
    os.utime(place, ns=(at_ns, at_ns))
    return place


def newest(*places: Path, before: dict[str, int] | None = None) -> tuple[str | None, dict[str, str]]:
    """Name of the newest good one, and what is wrong with newer ones."""
    judged = judge(find(places, before))
    good = next((one.named.path.name for one in judged if one.reason is None), None)
    return good, {one.named.path.name: one.reason for one in judged if one.reason is not None}


def flaw(path: Path) -> str | None:
    try:
        (check_directory if path.is_dir() else check_file)(path)
    except FlawError as error:
        return error.reason
    return None


def test_the_highest_number_counts_and_not_the_order_of_names_or_times(tmp_path: Path) -> None:
    for number, at_ns in ((9, 30), (10, 10), (2, 20)):
        save(tmp_path / f"step_{number}", at_ns, STATE)
    assert newest(tmp_path) == ("step_10", {})


def test_between_kinds_the_one_written_last_counts(tmp_path: Path) -> None:
    save(tmp_path / "step_900", 10, STATE)
    save(tmp_path / "epoch_2", 20, STATE)
    save(tmp_path / "epoch_1", 5, STATE)
    assert newest(tmp_path) == ("epoch_2", {})


def test_files_count_as_well_as_directories(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"run-ckpt_{number}.pt").write_bytes(archive())
    (tmp_path / "run-ckpt_3.pt").write_bytes(archive()[:-30])
    good, torn = newest(tmp_path)
    assert good == "run-ckpt_2.pt"
    assert torn["run-ckpt_3.pt"].startswith("run-ckpt_3.pt: a damaged zip archive")


@pytest.mark.parametrize("missing", list(STATE))
def test_what_all_before_it_have_is_missed(tmp_path: Path, missing: str) -> None:
    for number in (1, 2):
        save(tmp_path / f"step_{number}", number, STATE)
    save(tmp_path / "step_3", 3, STATE, without=missing)
    good, torn = newest(tmp_path)
    assert (good, list(torn)) == ("step_2", ["step_3"])
    assert torn["step_3"].startswith(f"{missing}: missing")


def test_a_file_that_is_left_out_twice_does_not_belong_to_it_any_more(tmp_path: Path) -> None:
    for number in (1, 2):
        save(tmp_path / f"step_{number}", number, {**STATE, "sampler.bin": archive()})
    for number in (3, 4):
        save(tmp_path / f"step_{number}", number, STATE)
    assert newest(tmp_path) == ("step_4", {})


def test_names_with_the_number_in_them_are_the_same_file(tmp_path: Path) -> None:
    for number in (10, 20):
        save(tmp_path / f"step_{number}", number, {f"model-{number}.pt": archive()})
    assert newest(tmp_path) == ("step_20", {})


def test_unfinished_ones_links_and_ours_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "checkpoint-1", 1, STATE)
    save(tmp_path / "tmp-checkpoint-2", 2, STATE)
    (tmp_path / "checkpoint-3").symlink_to(tmp_path / "checkpoint-1")
    commit_step(tmp_path, 4)
    assert newest(tmp_path, tmp_path / "nowhere") == ("checkpoint-1", {})


def test_what_was_there_before_counts_once_it_is_written_anew(tmp_path: Path) -> None:
    for number in (1, 2):
        save(tmp_path / f"step_{number}", number, STATE)
    before = {str(one.path): one.stamp_ns for one in find([tmp_path])}
    assert newest(tmp_path, before=before) == (None, {})
    (tmp_path / "step_1" / "optimizer.bin").write_bytes(archive(b"anew"))  # the directory's own time stays
    assert newest(tmp_path, before=before) == ("step_1", {})


SAMPLES: list[tuple[str, bytes, str]] = [
    ("model.safetensors", STATE["model.safetensors"][:-1], "tensors take 4 bytes, the file has 3"),
    ("optimizer.bin", b"", "empty"),
    ("scheduler.bin", archive()[:200], "a damaged zip archive"),
    ("random_states_0.pkl", b"\x80\x04abc", "a pickle that does not end"),
    ("more.pt", bytes(5000), "zeros"),
    ("more.pt", b"text", "neither a zip archive nor a pickle"),
    ("config.json", b'{"a": ', "not JSON"),
    ("model.safetensors.index.json", b'{"weight_map": {"a": "../x"}}', "'../x' is missing"),
    ("model.safetensors.index.json", b"[]", "names no shards"),
    ("__0_0.distcp", b"x", "the save did not end"),
]


@pytest.mark.parametrize(("name", "data", "said"), SAMPLES)
def test_damage_is_named(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    answer = flaw(save(tmp_path / "step_1", 1, {**STATE, name: data}))
    assert answer is not None
    assert said in answer


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("more.pt", b"\x80\x02l\n old torch"),
        ("list.json", b"[1, 2]"),
        ("log.txt", b""),
        ("model.safetensors.index.json", json.dumps({"weight_map": {"a": "model.safetensors"}}).encode()),
    ],
)
def test_what_is_only_unusual_passes(tmp_path: Path, name: str, data: bytes) -> None:
    assert flaw(save(tmp_path / "step_1", 1, {**STATE, name: data})) is None


def harmed(data: bytes, how: str, at: random.Random) -> bytes:
    made = bytearray(data)
    place = at.randrange(len(made))
    match how:
        case "cut":
            return bytes(made[:place])
        case "flip":
            made[place] ^= 1 << at.randrange(8)
        case "zero":
            made[place : place + 512] = bytes(len(made[place : place + 512]))
    return bytes(made)


@pytest.mark.parametrize("how", ["cut", "zero"])
def test_an_archive_that_lost_bytes_is_never_taken(tmp_path: Path, how: str) -> None:
    whole, at = archive(os.urandom(5000)), random.Random(how)
    for _ in range(100):
        data = harmed(whole, how, at)
        (tmp_path / "a.pt").write_bytes(data)
        assert data == whole or flaw(tmp_path / "a.pt") is not None


def any_bytes(start: bytes) -> Callable[[bytes], bytes]:
    return lambda rest: start + rest


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(["a.pt", "a.pkl", "a.safetensors", "a.index.json", "a.npz", "a.bin", "a.json"]),
    data=st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=100).map(any_bytes(b"PK\3\4")),
        st.binary(max_size=400).map(lambda rest: harmed(archive(rest), "flip", random.Random(len(rest)))),
    ),
)
def test_whatever_the_bytes_are_nothing_else_is_raised(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes
) -> None:
    place = tmp_path_factory.getbasetemp() / "any"
    place.mkdir(exist_ok=True)
    path = place / name
    path.write_bytes(data)
    answer = flaw(path)
    assert answer is None or answer.startswith(f"{name}: ")


@given(st.text(max_size=60))
def test_any_name_is_one_or_none(name: str) -> None:
    told = number_in(name)
    assert told is None or (told[1] >= 0 and str(told[1]) in name)
