"""Metrics as a real Prometheus client reads them: only what is known, whatever the names."""

import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import run_histories as h
from endpoints import hole
from harness import until
from prometheus_client.parser import text_string_to_metric_families

from supervisor.owner import Life, this_process
from supervisor.report.fold import ENDED, fold
from supervisor.report.live import Live, Progress
from supervisor.report.metering import EVERY_S, Meter
from supervisor.report.metrics import STATES, metrics
from supervisor.report.port import MOST, MetricsPort
from supervisor.report.settings import Settings
from supervisor.report.status import summary

ME = this_process()
WORD = Progress(
    time=1100.0, state="running", attempt=1, step=80, max_steps=100, loss=2.5, steps_per_s=0.5, pid=ME.pid, host=ME.host
)
ALIVE = Live(progress=WORD, owner=ME, life=Life.ALIVE)


def figures(text: str) -> dict[str, float]:
    """Every sample without the labels that say whose it is."""
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            assert sample.labels.pop("run") == "demo"
            sample.labels.pop("run_id", None)
            more = "".join(f"{{{value}}}" for value in sample.labels.values())
            found[sample.name.removeprefix("supervisor_") + more] = sample.value
    return found


def text(lines: list[h.Line], live: Live, now: float = 1100.0, *, up: bool = True) -> str:
    history = fold(h.records(lines))
    told = summary(history, Path("/runs/demo"), now, live)
    return metrics(told, run_id=history.run_id, attempts=len(history.counted), up=up)


def test_a_running_run_has_every_figure() -> None:
    found = figures(text(h.UNDER_WAY, ALIVE))
    states = {name: found.pop(name) for name in list(found) if name.startswith("state{")}
    assert states == {f"state{{{state}}}": float(state == "running") for state in STATES}
    assert found.pop("goodput_ratio") == pytest.approx(0.9, abs=0.1)
    assert found == {
        "up": 1,
        "step": 80,
        "max_steps": 100,
        "steps_per_second": 0.5,
        "loss": 2.5,
        "attempts_total": 1,
        "steps_redone_total": 0,
        "checkpoint_step": 40,
        "checkpoint_age_seconds": 50,
    }


@pytest.mark.parametrize("name", sorted(h.ALL))
def test_every_history_is_read_and_incidents_are_counted_by_cause(name: str) -> None:
    history = fold(h.records(h.ALL[name]))
    found = figures(text(h.ALL[name], Live(), 9000.0, up=False))
    assert found["up"] == 0
    assert sum(found[f"state{{{state}}}"] for state in STATES) == 1
    counted = {name: count for name, count in found.items() if name.startswith("incidents_total")}
    assert sum(counted.values()) == len(history.incidents)
    assert {f"incidents_total{{{one.cause}}}" for one in history.incidents} == set(counted)


def test_what_is_not_known_has_no_line() -> None:
    found = figures(text(h.started(0.0), Live()))
    assert {name.partition("{")[0] for name in found} == {"up", "state", "attempts_total"}
    assert "None" not in text(h.started(0.0), Live())


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "a\\\nb\\", "ü{}, x=", ""])
def test_any_name_is_read_back_as_it_is(name: str) -> None:
    told = {**summary(fold(h.records(h.started(0.0))), Path("/r"), 1.0, Live()), "name": name}
    told["incidents"] = [{"cause": name}]
    samples = [
        s for f in text_string_to_metric_families(metrics(told, run_id=None, attempts=0, up=True)) for s in f.samples
    ]
    assert {s.labels["run"] for s in samples} == {name}
    assert [s.labels["cause"] for s in samples if s.name == "supervisor_incidents_total"] == [name or "unknown"]


def test_the_states_are_those_that_a_run_can_be_in() -> None:
    assert set(STATES) > ENDED
    assert {fold(h.records(lines)).state for lines in h.ALL.values()} <= set(STATES)


def settings(run_dir: Path, *, files: tuple[Path, ...] = (), ports: tuple[tuple[str, int], ...] = ()) -> Settings:
    return Settings("demo", run_dir, "here", (), (), files, ports)


def write(meter: Meter, **more: Any) -> None:
    meter.write(fold(h.records(h.UNDER_WAY)), ALIVE, 1100.0, 0.0, **{"up": True, "state": None, **more})


def test_the_file_is_whole_and_another_user_may_read_it(tmp_path: Path) -> None:
    said: list[tuple[str, bool]] = []
    file = tmp_path / "demo.prom"
    meter = Meter(settings(tmp_path, files=(file,)), lambda label, works: said.append((label, works)))
    write(meter)
    assert figures(file.read_text())["step"] == 80
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["demo.prom"]
    assert not meter.due(EVERY_S - 0.1)
    assert meter.due(EVERY_S)
    write(meter, up=False, state="interrupted")
    found = figures(file.read_text())
    assert (found["up"], found["state{interrupted}"], found["state{running}"]) == (0, 1, 0)
    assert "steps_per_second" not in found
    assert said == [(str(file), True)] * 2


def test_a_file_that_cannot_be_written_is_said_and_no_more(tmp_path: Path) -> None:
    said: list[tuple[str, bool]] = []
    file = tmp_path / "gone" / "demo.prom"
    write(Meter(settings(tmp_path, files=(file,)), lambda label, works: said.append((label, works))))
    assert said == [(str(file), False)]


def test_a_port_that_is_taken_is_said_and_served_when_it_is_free(tmp_path: Path) -> None:
    said: list[bool] = []
    with hole() as taken:
        meter = Meter(settings(tmp_path, ports=(("127.0.0.1", taken.port),)), lambda _, works: said.append(works))
        write(meter)
        assert said == [False]
    write(meter)
    assert said == [False, True]
    with urllib.request.urlopen(f"http://127.0.0.1:{taken.port}/metrics", timeout=60) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert figures(answer.read().decode())["step"] == 80


def test_those_who_only_hold_a_connection_are_let_go_and_hold_up_nobody() -> None:
    port = MetricsPort("127.0.0.1", 0)
    port.text = "x 1\n"
    held = [socket.create_connection(("127.0.0.1", port.port)) for _ in range(3 * MOST)]

    def answered() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port.port}/metrics", timeout=60) as answer:
                return bool(answer.read() == b"x 1\n")
        except (urllib.error.URLError, ConnectionError):
            return False

    until(answered, "answer")
    for one in held:
        one.close()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{port.port}/etc/passwd", timeout=60)
