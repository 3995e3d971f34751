r"""A run's figures in Prometheus' text format, for node_exporter's textfile collector and for a port.

Only what is known is written: a figure that nobody knows has no line, and is never 0.

Source: prometheus.io/docs/instrumenting/exposition_formats: `\`, `"` and line feeds are escaped in a label's
value, lines of one metric stand together, the last line ends with a line feed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

#: The contract's states.
STATES = (
    "pending", "starting", "running", "draining", "waiting", "interrupted", "finished", "requeued", "gave_up", "stopped"
)  # fmt: skip
#: What a server of this text says it is.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Sample = tuple[Mapping[str, str], float | int | None]


def metrics(told: Mapping[str, Any], *, run_id: str | None, attempts: int, up: bool) -> str:
    """Write down a run's figures.

    Args:
        told: `supervisor.report.status.summary`.
        run_id: of the run; its name need not be the only one on a machine.
        attempts: how many there were since the last fresh start.
        up: whether a supervisor lives.
    """
    run = {"run": str(told["name"]), **({"run_id": run_id} if run_id is not None else {})}
    checkpoint = told["last_checkpoint"] or {}
    causes = Counter(str(one["cause"] or "unknown") for one in told["incidents"])

    def one(value: float | None) -> list[_Sample]:
        return [(run, value)]

    families = [
        _family("supervisor_up", "gauge", "Whether the run's supervisor lives.", one(int(up))),
        _family(
            "supervisor_state",
            "gauge",
            "The run's state: 1 for the one that it is in.",
            [({**run, "state": state}, int(state == told["state"])) for state in STATES],
        ),
        _family("supervisor_step", "gauge", "Newest settled optimizer step.", one(told["step"])),
        _family("supervisor_max_steps", "gauge", "Step at which training ends.", one(told["max_steps"])),
        _family("supervisor_steps_per_second", "gauge", "How fast training goes.", one(told["steps_per_s"])),
        _family("supervisor_loss", "gauge", "Loss of the newest step, on the first rank.", one(told["loss"])),
        _family("supervisor_attempts_total", "counter", "Launches of the workers.", one(attempts)),
        _family(
            "supervisor_incidents_total",
            "counter",
            "What went wrong, by its cause.",
            [({**run, "cause": cause}, count) for cause, count in sorted(causes.items())],
        ),
        _family(
            "supervisor_steps_redone_total", "counter", "Settled steps that were made again.", one(told["steps_redone"])
        ),
        _family("supervisor_checkpoint_step", "gauge", "Step of the newest checkpoint.", one(checkpoint.get("step"))),
        _family(
            "supervisor_checkpoint_age_seconds", "gauge", "Age of the newest checkpoint.", one(checkpoint.get("age_s"))
        ),
        _family(
            "supervisor_goodput_ratio",
            "gauge",
            "Share of the time that went into steps that count.",
            one(told["goodput"]),
        ),
    ]
    return "".join(families)


def _family(name: str, kind: str, words: str, samples: Iterable[_Sample]) -> str:
    lines = [f"{name}{_labels(labels)} {value}\n" for labels, value in samples if value is not None]
    return f"# HELP {name} {words}\n# TYPE {name} {kind}\n{''.join(lines)}" if lines else ""


def _labels(labels: Mapping[str, str]) -> str:
    r"""Labels with their values escaped.

    >>> _labels({"run": 'a"b\\c\nd'})
    '{run="a\\"b\\\\c\\nd"}'
    """
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
