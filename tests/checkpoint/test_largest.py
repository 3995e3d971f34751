"""The largest weights are named by the headers alone."""

from pathlib import Path

from checkpoint_samples import safetensors

from supervisor.checkpoint.largest import largest_tensors


def test_the_largest_of_all_files_come_first(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(safetensors(small=bytes(3), large=bytes(300)))
    (tmp_path / "b.safetensors").write_bytes(safetensors(middle=bytes(30), empty=b""))
    named = largest_tensors(tmp_path, ["a.safetensors", "b.safetensors"], count=3)
    assert named == [("large", 300), ("middle", 30), ("small", 3)]
