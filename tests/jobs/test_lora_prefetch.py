"""What was brought once is enough: afterwards the job trains without a hub, and loads no file that nobody reads."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from jobs_samples import chat, write_lines

ROOT = Path(__file__).parents[2]
COMMIT = "c0ffee" + "0" * 34


class Hub(ThreadingHTTPServer):
    """A hub with one model, `org/tiny`; counts what it hands out."""

    def __init__(self, files: Path) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.files = files
        self.given: list[str] = []


class Page(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer(send=False)

    def do_GET(self) -> None:
        self.answer(send=True)

    def answer(self, *, send: bool) -> None:
        path, files = self.path.partition("?")[0], self.server.files
        names = sorted(str(file.relative_to(files)) for file in files.rglob("*") if file.is_file())
        if path in (
            "/api/models/org/tiny",
            "/api/models/org/tiny/revision/main",
            f"/api/models/org/tiny/revision/{COMMIT}",
        ):
            told = {
                "id": "org/tiny",
                "sha": COMMIT,
                "siblings": [{"rfilename": name} for name in names],
                "private": False,
            }
            return self.tell(200, json.dumps(told).encode(), send=send)
        if path == f"/api/models/org/tiny/tree/{COMMIT}":
            rows = [{"type": "file", "path": n, "size": (files / n).stat().st_size, "oid": "0" * 40} for n in names]
            return self.tell(200, json.dumps(rows).encode(), send=send)
        name = path.removeprefix(f"/org/tiny/resolve/{COMMIT}/")
        if name not in names:
            return self.tell(404, b"", send=send, error="EntryNotFound")
        if send:
            self.server.given.append(name)
        return self.tell(200, (files / name).read_bytes(), send=send)

    def tell(self, code: int, data: bytes, *, send: bool, error: str | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        if error is not None:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if send:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def hub(tiny_base: Path, tmp_path: Path) -> Iterator[Hub]:
    files = tmp_path / "on-the-hub"
    (files / "original").mkdir(parents=True)
    for file in tiny_base.iterdir():
        (files / file.name).symlink_to(file)
    for more in ("pytorch_model.bin", "tiny.gguf", "original/consolidated.safetensors", "README.md"):
        (files / more).write_bytes(b"not for us")
    server = Hub(files)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def write_job(directory: Path, model: str, **more: object) -> Path:
    write_lines(directory / "chat.jsonl", [chat(f"How are you, {i}?", f"I am fine {'!' * i}") for i in range(12)])
    training = {"max_steps": 1, "per_device_train_batch_size": 2}
    args = {"model": model, "data": "chat.jsonl", "lora": {"r": 2}, "training": training, **more}
    path = directory / "job.yaml"
    path.write_text(yaml.safe_dump({"program": "jobs.lora", "run_dir": str(directory / "run"), "args": args}))
    return path


def call(directory: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("SUPERVISOR_", "HF_"))}
    environ |= {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **environment}
    environ["HF_HOME"] = str(directory / "hf-home")
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, env=environ, timeout=180)


def test_a_hub_model_is_brought_without_what_nobody_reads_and_then_trained_without_a_hub(
    hub: Hub, tmp_path: Path
) -> None:
    write_job(tmp_path, "org/tiny")
    endpoint = f"http://127.0.0.1:{hub.server_port}"
    brought = call(tmp_path, "supervisor", "prefetch", "job.yaml", HF_ENDPOINT=endpoint)
    assert brought.returncode == 0, brought.stderr
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(hub.given)
    assert not {"pytorch_model.bin", "tiny.gguf", "original/consolidated.safetensors", "README.md"} & set(hub.given)
    assert json.loads((tmp_path / "run" / "pins.json").read_text())["pins"]["model"]["revision"] == COMMIT

    given = len(hub.given)
    assert "\noffline=1\n" in call(tmp_path, "supervisor", "submit", "job.yaml", "--dry-run").stdout
    trained = call(tmp_path, "jobs.lora", "job.yaml", HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="1")
    assert trained.returncode == 0, trained.stderr
    assert "data: tokens from the cache" in trained.stderr
    assert len(hub.given) == given


def test_a_local_model_needs_no_hub_and_another_model_is_not_taken_for_it(tiny_base: Path, tmp_path: Path) -> None:
    write_job(tmp_path, str(tiny_base))
    brought = call(tmp_path, "supervisor", "prefetch", "job.yaml", HF_HUB_OFFLINE="1")
    assert brought.returncode == 0, brought.stderr
    assert brought.stdout == ""
    marker = tmp_path / "run" / "control" / "prefetched.json"
    assert json.loads(marker.read_text())["model"] == str(tiny_base)
    assert marker.stat().st_mode & 0o777 == 0o600
    assert len(list((tmp_path / "run" / "cache").glob("tokens-*.arrow"))) == 1
    assert "\noffline=1\n" in call(tmp_path, "supervisor", "submit", "job.yaml", "--dry-run").stdout
    other = call(tmp_path, "supervisor", "submit", "job.yaml", "--dry-run", "--set", "args.max_length=32")
    assert "\noffline=\n" in other.stdout
    assert "prefetched is for another model or other data" in other.stderr


def test_a_sweep_is_offline_once_each_of_its_runs_was_brought_what_it_needs(tiny_base: Path, tmp_path: Path) -> None:
    write_job(tmp_path, str(tiny_base))
    sweep = ["job.yaml", "--sweep", "args.max_length=48,64"]
    assert "\noffline=\n" in call(tmp_path, "supervisor", "submit", "--dry-run", *sweep).stdout
    brought = call(tmp_path, "supervisor", "prefetch", *sweep, HF_HUB_OFFLINE="1")
    assert brought.returncode == 0, brought.stderr
    assert len(list((tmp_path / "run").glob("job-*/cache/tokens-*.arrow"))) == 2
    assert "\noffline=1\n" in call(tmp_path, "supervisor", "submit", "--dry-run", *sweep).stdout


def test_what_cannot_be_had_leaves_no_marker(tmp_path: Path) -> None:
    write_job(tmp_path, "org/nothing")
    failed = call(tmp_path, "supervisor", "prefetch", "job.yaml", HF_HUB_OFFLINE="1")
    assert failed.returncode == 2
    assert "the hub cannot be reached, and the model org/nothing is not in the local cache" in failed.stderr
    assert "not everything was brought" in failed.stderr
    assert not (tmp_path / "run" / "control" / "prefetched.json").exists()


def test_of_another_program_nobody_here_knows_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("")
    (tmp_path / "job.yaml").write_text("program: train.py\n")
    refused = call(tmp_path, "supervisor", "prefetch", "job.yaml")
    assert refused.returncode == 2
    assert "what train.py downloads cannot be known from here" in refused.stderr
