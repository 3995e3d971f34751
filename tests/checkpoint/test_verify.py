"""Damage is found and named; what is not ours is not judged; what cannot be read is unknown."""

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoint_samples import RUN, commit_step, contents, parts, python, safetensors

from supervisor.checkpoint.manifest import Entry, Manifest, encode, seal
from supervisor.checkpoint.parts import part_from_bytes
from supervisor.checkpoint.verify import Foreign, Intact, Torn, Unreadable, read_manifest, verify

OPTIMIZER = "optimizer.safetensors"
CASES = 2000


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return commit_step(tmp_path, 20).path


def edit(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        (directory / name).write_bytes(change((directory / name).read_bytes()))

    return apply


def swap(a: str, b: str) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        (directory / a).rename(directory / "x")
        (directory / b).rename(directory / a)
        (directory / "x").rename(directory / b)

    return apply


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def apply(directory: Path) -> None:
        (directory / name).unlink()
        make(directory / name)

    return apply


def test_what_was_committed_is_intact(good: Path) -> None:
    verdict = verify(good, RUN)
    assert isinstance(verdict, Intact)
    assert verdict.bytes == sum(len(data) for data in contents(20).values())
    assert verify(good, None) == verdict


def test_a_whole_model_takes_the_place_of_an_adapter(tmp_path: Path) -> None:
    adapter = {"adapter_model.safetensors", "adapter_config.json"}
    made_of = [part for part in parts(20) if part.name not in adapter]
    made_of.append(part_from_bytes("model.safetensors", safetensors(w=b"w")))
    assert isinstance(verify(commit_step(tmp_path, 20, made_of=made_of).path, RUN), Intact)


def test_more_files_than_listed_do_no_harm(good: Path) -> None:
    (good / "README.md").write_text("notes of a person")
    (good / "extra").mkdir()
    assert isinstance(verify(good, RUN), Intact)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (edit("manifest.json", lambda data: data[:-2]), "manifest.json: not JSON"),
        (edit("manifest.json", lambda data: b""), "manifest.json: not JSON"),
        (edit("manifest.json", lambda data: bytes(len(data))), "manifest.json: not JSON"),
        (
            edit("manifest.json", lambda data: data.replace(b'"step": 20', b'"step": 21')),
            "manifest.json: content changed",
        ),
        (edit("manifest.json", lambda data: data + b" " * 2**24), "manifest.json: larger than 16777216 bytes"),
        (lambda d: (d / "manifest.json").unlink(), "no manifest"),
        (instead("manifest.json", Path.mkdir), "manifest.json: a directory, not a file"),
        (instead("manifest.json", lambda path: path.symlink_to("/etc/passwd")), "manifest.json: a link, not a file"),
        (instead("manifest.json", os.mkfifo), "manifest.json: a special file, not a file"),
        (lambda d: (d / OPTIMIZER).unlink(), f"{OPTIMIZER}: missing"),
        (lambda d: (d / "rank-1.safetensors").unlink(), "rank-1.safetensors: missing"),
        (edit(OPTIMIZER, lambda data: data[:-1]), f"{OPTIMIZER}: 205 bytes, 206 committed"),
        (edit(OPTIMIZER, lambda data: data + b"\0"), f"{OPTIMIZER}: 207 bytes, 206 committed"),
        (edit(OPTIMIZER, lambda data: data[:-1] + b"\xff"), f"{OPTIMIZER}: content changed"),
        (edit(OPTIMIZER, lambda data: b"\xff" + data[1:]), f"{OPTIMIZER}: content changed"),
        (edit("state.json", lambda data: data.replace(b"20", b"21")), "state.json: content changed"),
        (instead(OPTIMIZER, Path.mkdir), f"{OPTIMIZER}: a directory, not a file"),
        (instead(OPTIMIZER, os.mkfifo), f"{OPTIMIZER}: a special file, not a file"),
        (instead(OPTIMIZER, lambda path: path.symlink_to("rank-1.safetensors")), f"{OPTIMIZER}: a link, not a file"),
        (instead(OPTIMIZER, lambda path: path.symlink_to("nowhere")), f"{OPTIMIZER}: a link, not a file"),
        (swap(OPTIMIZER, "rank-1.safetensors"), f"{OPTIMIZER}: 80 bytes, 206 committed"),
    ],
)
def test_damage_is_named(good: Path, damage: Callable[[Path], None], reason: str) -> None:
    damage(good)
    assert verify(good, RUN) == Torn(reason)


def test_a_checkpoint_under_another_number_is_torn(good: Path) -> None:
    renamed = good.rename(good.with_name("checkpoint-30"))
    assert verify(renamed, RUN) == Torn("named checkpoint-30, but committed as step 20")


def test_a_copy_under_a_name_of_its_own_is_judged_by_its_content(good: Path) -> None:
    assert isinstance(verify(good.rename(good.with_name("best so far")), RUN), Intact)


def resealed(directory: Path, name: str, data: bytes) -> None:
    """Replace a file and the manifest with it: what a bug of the writer would leave."""
    from xxhash import xxh3_128_hexdigest

    verdict = verify(directory, None)
    assert isinstance(verdict, Intact)
    manifest = verdict.manifest
    files = {**manifest.files, name: Entry(len(data), xxh3_128_hexdigest(data))}
    (directory / name).write_bytes(data)
    whole = Manifest(run_id=RUN, lineage=0, step=manifest.step, world_size=manifest.world_size, files=files)
    (directory / "manifest.json").write_bytes(encode(whole))


def state(**changes: Any) -> bytes:
    return json.dumps({**json.loads(contents(20)["state.json"]), **changes}).encode()


RNG = {"rng": "00"}


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("state.json", state(step=19), "step is 19, 20 committed"),
        ("state.json", state(step=None), "step is None, 20 committed"),
        ("state.json", state(world_size=4), "world_size is 4, 2 committed"),
        ("state.json", state(ranks=[]), "ranks: not an object"),
        ("state.json", state(ranks={"0": RNG}), "ranks: rank 1 is missing"),
        ("state.json", state(ranks={"0": RNG, "1": {}}), "ranks: rank 1 has no rng"),
        ("state.json", state(ranks={"0": RNG, "1": RNG, "2": RNG}), "ranks: 3 of them, 2 committed"),
        ("state.json", b"[]", "not a JSON object"),
        ("state.json", b"", "not JSON"),
        ("adapter_config.json", b"[]", "not a JSON object"),
        ("trainer_state.json", b"\xff", "not JSON"),
        (OPTIMIZER, b"short", "too short for a safetensors file"),
        (OPTIMIZER, b"\xff" * 9, "the safetensors header cannot be 18446744073709551615 bytes long"),
        (OPTIMIZER, safetensors(a=b"x") + b"y", "tensors take 1 bytes, the file has 2 for them"),
    ],
)
def test_committed_nonsense_is_named(good: Path, name: str, data: bytes, reason: str) -> None:
    resealed(good, name, data)
    assert verify(good, RUN) == Torn(f"{name}: {reason}")


@pytest.mark.parametrize("name", ["state.json", "trainer_state.json", OPTIMIZER, "adapter_config.json"])
def test_a_part_that_a_resume_needs_has_to_be_listed(good: Path, name: str) -> None:
    body = json.loads((good / "manifest.json").read_bytes())
    del body["seal"], body["files"][name]
    (good / "manifest.json").write_bytes(seal(body))
    assert verify(good, RUN) == Torn(f"{name}: not listed; a resume needs it")


def test_another_runs_checkpoint_is_foreign(good: Path) -> None:
    assert verify(good, "run-b") == Foreign("of another run (run-a)")


def test_a_newer_versions_checkpoint_is_not_judged(good: Path) -> None:
    (good / "manifest.json").write_bytes(seal({"format": 2}))
    verdict = verify(good, RUN)
    assert verdict == Unreadable("manifest.json: format 2, written by a newer version; this one knows 1")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "empty"),
        (["trainer_state.json", "optimizer.pt", "adapter_model.safetensors"], "a checkpoint of the stock Trainer"),
        (["training_args.bin"], "a checkpoint of the stock Trainer"),
        (["notes.txt"], "no checkpoint"),
    ],
)
def test_what_is_not_ours_is_foreign(tmp_path: Path, names: list[str], reason: str) -> None:
    directory = tmp_path / "checkpoint-20"
    directory.mkdir()
    for name in names:
        (directory / name).write_bytes(b"x")
    assert verify(directory, RUN) == Foreign(reason)


def test_a_link_or_a_file_is_no_checkpoint(good: Path) -> None:
    link = good.with_name("checkpoint-21")
    link.symlink_to(good)
    file = good.with_name("checkpoint-22")
    file.write_bytes(b"x")
    assert verify(link, RUN) == verify(file, RUN) == Foreign("not a directory of its own")


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    assert verify(tmp_path / "checkpoint-20", RUN) == Torn("missing")


def test_the_manifest_alone_shows_what_it_can(good: Path) -> None:
    edit(OPTIMIZER, lambda data: data[:-1])(good)
    assert isinstance(read_manifest(good, RUN), Intact)
    assert isinstance(verify(good, RUN), Torn)


@pytest.fixture
def open_to_all(good: Path) -> Iterator[Path]:
    """The checkpoint in a place that another user may reach."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        copy = Path(shutil.copytree(good, Path(place) / good.name))
        copy.chmod(0o755)
        yield copy


DENIED = """
import os, sys
from pathlib import Path
from supervisor.checkpoint.verify import verify

verify(Path("/"), None)
if os.getuid() == 0:
    os.setuid(65534)
print(verify(Path(sys.argv[1]), None))
"""


@pytest.mark.parametrize(
    ("name", "said"), [(".", "checkpoint-20"), ("manifest.json", "manifest.json"), (OPTIMIZER, OPTIMIZER)]
)
def test_what_may_not_be_read_is_unknown(open_to_all: Path, name: str, said: str) -> None:
    for path in open_to_all.iterdir():
        path.chmod(0o644)
    (open_to_all / name).chmod(0)
    verdict = python(DENIED, open_to_all).stdout
    assert verdict.startswith("Unreadable(reason='")
    assert f"{said}: permission denied" in verdict


DELETED_MEANWHILE = """
import os, sys
from pathlib import Path
from supervisor.checkpoint.verify import verify

def away(event, arguments):
    if event == "open" and arguments[0] == "manifest.json":
        os.rename(sys.argv[1], sys.argv[2])
        os.unlink(sys.argv[2] + "/state.json")

sys.addaudithook(away)
print(verify(Path(sys.argv[1]), None))
"""


def test_one_deleted_while_it_is_read_is_not_called_torn(good: Path, tmp_path: Path) -> None:
    """A reader has opened it when retention renames and empties it."""
    child = python(DELETED_MEANWHILE, good, tmp_path / "trash")
    assert child.stdout == "Unreadable(reason='moved or deleted while it was being read')\n", child.stderr


def test_random_damage_is_never_accepted(tmp_path: Path) -> None:
    good = commit_step(tmp_path, 20).path
    whole = {path.name: path.read_bytes() for path in good.iterdir()}
    other = {path.name: path.read_bytes() for path in commit_step(tmp_path / "b", 20, run_id="run-b").path.iterdir()}
    chance = random.Random(20)
    for case in range(CASES):
        name = chance.choice(sorted(whole))
        data = bytearray(whole[name])
        at, kind = chance.randrange(len(data)), chance.choice(["flip", "cut", "zero", "swap", "gone", "other"])
        match kind:
            case "flip":
                data[at] ^= 1 << chance.randrange(8)
            case "cut":
                del data[at:]
            case "zero":
                data[at : at + 64] = bytes(len(data[at : at + 64]))
            case "swap":
                data = bytearray(whole[chance.choice([other for other in sorted(whole) if other != name])])
            case "other":
                data = bytearray(other[name] if name == "manifest.json" else data[::-1])
        if kind == "gone":
            (good / name).unlink()
        else:
            (good / name).write_bytes(data)
        verdict = verify(good, RUN)
        if data == whole[name] and kind != "gone":
            assert isinstance(verdict, Intact)
        else:
            assert isinstance(verdict, (Torn, Foreign)), (case, name, kind, verdict)
            assert verdict.reason
        (good / name).write_bytes(whole[name])
    assert isinstance(verify(good, RUN), Intact)
