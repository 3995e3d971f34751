"""What is done around the runs of the fault matrix: to disks, networks, clouds, nodes and GPUs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.apart import LEADER, net_between
from tests.bench.faults_done import PAIR, SNAPSHOTS, Doing, Done, again, alone, ended, held, met
from tests.fake_driver import build, driver_in
from tests.fake_metadata import serving
from tests.harness import fill, send, until
from tests.nodes import Nodes

CUT_S = 10.0


def nodes(base: Path) -> Nodes:
    """A run of two ranks on two nodes."""
    job = {"launch": {"processes_per_node": 1, "standby": "off"}, "checkpoint": SNAPSHOTS}
    return Nodes(base, args=PAIR, job=job)


# -- disks


@contextmanager
def disk(place: Path, size: str, *options: str) -> Iterator[Path]:
    """A file system of its own."""
    place.mkdir(parents=True, exist_ok=True)
    told = ",".join([f"size={size}", *options])
    subprocess.run(["mount", "-t", "tmpfs", "-o", told, "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def program_fills_disk(base: Path) -> Done:
    with disk(base / "disk", "1m") as place:
        return met("enospc", at=3, times=9, where=str(place / "cache"))(base)


def disk_full_for_a_while(base: Path) -> Done:
    with disk(base / "disk", "6m") as place:
        run = alone(base, job=_on(place))
        run.place("step-8")
        held(run, "step-3")
        run.wait_for_event("checkpoint_committed", 2)
        ballast = fill(place)
        run.let_go("step-3")
        run.wait_at("step-8", ranks=1)
        ballast.unlink()
        run.let_go("step-8")
        return _copied(ended(run), base)


def storage_gone(base: Path) -> Done:
    with disk(base / "storage", "64m") as place:
        run = alone(base, job=_on(place))
        run.place("step-8")
        held(run, "step-3")
        run.wait_for_event("checkpoint_committed", 2)
        with disk(place, "1m", "ro"):  # as when a server is gone: nothing is seen of what was there
            run.let_go("step-3")
            run.wait_at("step-8", ranks=1)
            until(lambda: "checkpoint of step 3 failed" in run.said(), "commit in vain")
        run.let_go("step-8")
        return _copied(ended(run), base)


def _on(place: Path) -> dict[str, Any]:
    return {"run_dir": str(place / "run"), "checkpoint": {**SNAPSHOTS, "every": "1 step"}}


def _copied(done: Done, base: Path) -> Done:
    """Its directory, from a file system that is about to go."""
    shutil.copytree(done.run.run_dir, base / "run")
    del done.run.job["run_dir"]
    return done


def torn(*steps: int) -> Doing:
    """Everything dies, the memory is lost, and a bit of these checkpoints is turned."""

    def does(base: Path) -> Done:
        run = held(alone(base, job={"checkpoint": {**SNAPSHOTS, "every": "2 steps"}}), "step-8")
        run.wait_for_event("checkpoint_committed", 3)
        run.kill_tree()
        shutil.rmtree(run.board())
        run.let_go("step-8")
        for step in steps:
            path = run.run_dir / "checkpoints" / f"checkpoint-{step}" / "optimizer.safetensors"
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data)
        return again(run)

    return does


# -- the network and the cloud


class _Hub(BaseHTTPRequestHandler):
    """As much of a hub as one file needs."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        for name, value in (("Content-Length", "2"), ("X-Repo-Commit", "c" * 40), ("ETag", '"one"')):
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        return


def hub_away(base: Path) -> Done:
    """Until the cache was tried as well, which is empty."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub, bind_and_activate=False)
    server.server_bind()  # bound and deaf: who connects is refused
    run = alone(base, "meets", how="hub", times=9)
    port = server.socket.getsockname()[1]
    run.environment |= {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(base / "hf")}
    run.start().wait_for_event("decision", 2)
    server.server_activate()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        return ended(run)
    finally:
        server.shutdown()
        server.server_close()


def aws_notice(base: Path) -> Done:
    with serving("aws") as fake:
        run = alone(base, sleep=0.5)
        run.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = fake.url
        held(run, "step-3")
        fake.say(action={"action": "terminate", "in_s": 7.0})
        run.wait_for_event("checkpoint_committed")
        run.let_go("step-3")
        code = run.wait()
    run.environment.clear()
    return ended(run.start(), code)


def azure_takes_back(base: Path) -> Done:
    with serving("azure", name="vm-0") as fake:
        run = alone(base)
        run.environment["SUPERVISOR_AZURE_METADATA"] = fake.url
        held(run, "step-3")
        event = {"EventId": "E1", "EventType": "Preempt", "Resources": ["vm-0"], "EventStatus": "Scheduled"}
        fake.say(events=[{**event, "in_s": 30}])
        run.wait_for_event("checkpoint_committed")
        fake.say(events=[])
        run.wait_for_event("notice", 2)
        run.let_go("step-3")
        return ended(run)


# -- nodes and GPUs


def member_killed(base: Path) -> Done:
    run = nodes(base)
    held(run, "substep-7", 2)
    pids = run.processes_of(0)
    run.kill_node(1)
    run.until_gone(pids, 10.0)
    run.let_go("substep-7")
    run.members[1] = run.start_node(1)
    return Done(run, tuple(run.codes()))


def member_stopped(base: Path) -> Done:
    run = nodes(base)
    held(run, "substep-7", 2)
    pids = run.processes_of(0)
    send(run.members[1].pid, signal.SIGSTOP)
    run.until_gone(pids, 15.0)
    run.let_go("substep-7")
    send(run.members[1].pid, signal.SIGCONT)
    return Done(run, tuple(run.codes()))


def network_cut(base: Path) -> Done:
    with net_between(f"matrix{os.getpid()}-{threading.get_ident() % 10**6}") as net:
        run = nodes(base)
        run.host, run.through = LEADER, lambda node: net.there("member" if node else "leader")
        held(run, "substep-7", 2)
        pids = run.processes_of(0) + run.processes_of(1)
        net.cut("packets lost", True)
        cut_s = time.monotonic()
        run.let_go("substep-7")  # into a sum over all ranks that cannot come
        run.until_gone(pids, 15.0)
        until(lambda: time.monotonic() > cut_s + CUT_S, "end of the cut")
        net.cut("packets lost", False)
        return Done(run, tuple(run.codes()))


def gpu_lost(base: Path) -> Done:
    """The driver reports Xid 79 in the middle of training, and the rank that used the GPU dies of it."""
    run = alone(base)
    driver = driver_in(base, build(base))
    named = ("LD_LIBRARY_PATH", "FAKE_NVML")
    run.environment |= {"CUDA_VISIBLE_DEVICES": "0", **{name: driver.environment[name] for name in named}}
    held(run, "step-3")
    driver.does("gpus 2", "xid 0 79")
    run.kill_rank(0)
    return ended(run)
