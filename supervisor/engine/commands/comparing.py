"""`supervisor compare`: the kept checkpoints beside each other, and how they do on inputs that are new to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from supervisor.checkpoint.contents import ADAPTER, ADAPTER_CONFIG, EXTRA, STATE
from supervisor.checkpoint.evaluations import Measured, measured
from supervisor.checkpoint.inventory import Found, survey
from supervisor.checkpoint.reading import reading
from supervisor.checkpoint.retain import Best, Keep, Standing, best_of, why_kept
from supervisor.checkpoint.verify import Foreign, Intact, Torn
from supervisor.engine.opening import history
from supervisor.engine.state.retention import Stock, keep_of, times_of
from supervisor.errors import JobError
from supervisor.job import Job, is_ours, resolved_job
from supervisor.report.find import check_run
from supervisor.report.words import clock


@dataclass(frozen=True, slots=True)
class Inputs:
    """What checkpoints are to be measured on.

    Attributes:
        data: a file of new inputs.
        text_field: its column; None for that of the run.
        messages_field: the same of chats.
        model: the base model; None for the one that the checkpoint names.
    """

    data: Path
    text_field: str | None = None
    messages_field: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One checkpoint.

    Attributes:
        path: where it is.
        step: of its name.
        state: ``intact``, ``torn``, ``foreign`` or ``unknown``.
        reason: why it is not intact, or why it was not measured; None otherwise.
        lineage: of the run when it was taken.
        time: when it was committed [unix s].
        loss: of the last training step before it.
        metrics: what the program measured, and after which step.
        kept: why it stays.
        new: `loss` and `perplexity` on the new inputs; None where they were not measured.
    """

    path: Path
    step: int
    state: str
    reason: str | None = None
    lineage: int | None = None
    time: float | None = None
    loss: float | None = None
    metrics: Mapping[str, Measured] | None = None
    kept: tuple[str, ...] = ()
    new: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of them, oldest first.

    Attributes:
        entries: the checkpoints.
        best: of those that are measured alike, the best; None where nothing is.
        by: by what.
        base: `loss` and `perplexity` of the base model alone, on the new inputs.
        tokens: what these are means of.
    """

    entries: tuple[Entry, ...]
    best: Path | None
    by: str | None
    base: Mapping[str, float] | None = None
    tokens: int | None = None

    def as_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {
            "checkpoints": [_as_json(one) for one in self.entries],
            "best": None if self.best is None else str(self.best),
            "by": self.by,
            "base": self.base,
            "tokens": self.tokens,
        }

    def as_text(self) -> str:
        """For people: a table, and what to do next."""
        if not self.entries:
            return "no checkpoint"
        names = sorted({name for one in self.entries for name in one.metrics or {}})
        heads = ["", "step", "committed", "state", "loss", *names]
        heads += ["new loss", "perplexity"] if self.base is not None else []
        rows = [heads, *(self._row(one, names) for one in self.entries)]
        if self.base is not None:
            rows.append(["", "none", "", "base model", "", *("" for _ in names), *_new(self.base)])
        widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        notes = ["kept as", *(one.reason or ", ".join(one.kept) for one in self.entries), ""]
        wide = max(map(len, lines))
        lines = [f"{line:<{wide}}  {note}".rstrip() for line, note in zip(lines, notes, strict=False)]
        if self.best is not None:
            lines += ["", f"the best by {self.by} is {self.best.name}; take it with"]
            lines += [f"  supervisor export {self.best} --adapter DIR"]
        return "\n".join(lines)

    def _row(self, one: Entry, names: Sequence[str]) -> list[str]:
        def told(name: str) -> str:
            known = (one.metrics or {}).get(name)
            if known is None:
                return ""
            return f"{known.value:.4g}" if known.step == one.step else f"{known.value:.4g} (of step {known.step})"

        cells = ["*" if one.path == self.best else "", str(one.step), clock(one.time) if one.time is not None else ""]
        cells += [one.state, f"{one.loss:.4g}" if one.loss is not None else "", *map(told, names)]
        return cells + (_new(one.new) if self.base is not None else [])


def compare(run_dir: Path, named: Sequence[str] = (), inputs: Inputs | None = None) -> Comparison:
    """Set the checkpoints of a run beside each other.

    Args:
        run_dir: of the run.
        named: which ones, by step, name or path; all without any.
        inputs: what to measure them on; None for what the program measured alone.

    Raises:
        JobError: there is no such run, checkpoint, file or column, or nothing that can be measured.
        DiskError: the directory could not be listed.
    """
    check_run(run_dir)
    job, ledger = _job_of(run_dir), history(run_dir)
    if inputs is not None and not inputs.data.is_file():
        raise JobError(f"--data: there is no file {inputs.data}", "name a file of JSON lines or Parquet")
    keep = keep_of(job) if job is not None else None
    found = survey(run_dir / "checkpoints", ledger.run_id, [run_dir / path for _, _, path in ledger.committed])
    entries = sorted(_entries(run_dir, ledger.run_id, found, keep), key=lambda one: (one.lineage or 0, one.step))
    chosen = _chosen(entries, named)
    if inputs is None:
        by = keep.best if keep is not None and keep.best is not None else Best("eval_loss")
        return Comparison(tuple(chosen), _best_measured(chosen, by), by.metric)
    return _measure(chosen, job, inputs)


def _job_of(run_dir: Path) -> Job | None:
    try:
        return resolved_job(run_dir / "job.yaml")
    except JobError:
        return None  # lost or damaged; the next start writes it anew


def _entries(run_dir: Path, run_id: str | None, found: Sequence[Found], keep: Keep | None) -> list[Entry]:
    best = keep.best if keep is not None else None
    stock = Stock(run_dir, run_id, times_of(run_dir), best.metric if best is not None else None)
    standing = {one.path: one for one in stock.look()}
    why = why_kept(list(standing.values()), keep) if keep is not None else {}
    entries = []
    for one in found:
        if not isinstance(one.verdict, Intact) or one.path not in standing:
            state = {Torn: "torn", Foreign: "foreign"}.get(type(one.verdict), "unknown")
            entries.append(Entry(one.path, one.step, state, getattr(one.verdict, "reason", "deleted meanwhile")))
            continue
        lineage, health = one.verdict.manifest.lineage, one.verdict.manifest.health
        told, after = stock.told_of(one.path), stock.before(lineage, one.step)
        names = {name for row in told for name in row.metrics}
        known = {name: measured(told, name, step=one.step, after=after) for name in sorted(names)}
        entries.append(
            Entry(
                one.path,
                one.step,
                "intact",
                lineage=lineage,
                time=standing[one.path].time_s,
                loss=health.loss,
                metrics={name: value for name, value in known.items() if value is not None},
                kept=why.get(one.path, ("not any more: it goes after the next commit",) if keep is not None else ()),
            )
        )
    return entries


def _chosen(entries: Sequence[Entry], named: Sequence[str]) -> list[Entry]:
    """Those that are named; all where none is."""
    chosen = []
    for name in named:
        fitting = [one for one in entries if name in (str(one.step), one.path.name) or _same(Path(name), one.path)]
        if not fitting:
            there = ", ".join(str(one.step) for one in entries) or "none"
            raise JobError(f"--checkpoint {name}: this run has no such checkpoint", f"it has those of steps {there}")
        chosen += [one for one in fitting if one not in chosen]
    return chosen or list(entries)


def _same(one: Path, other: Path) -> bool:
    return one.name == other.name and one.resolve() == other.resolve()


def _best_measured(entries: Sequence[Entry], by: Best) -> Path | None:
    known = [
        Standing(one.lineage or 0, one.step, one.path, measured=(one.metrics or {}).get(by.metric))
        for one in entries
        if one.state == "intact"
    ]
    return next((one.path for one in best_of(known, replace(by, count=1))), None)


# -- on new inputs


def _measure(entries: Sequence[Entry], job: Job | None, inputs: Inputs) -> Comparison:
    """Have a process of its own measure all that can be: it needs torch."""
    checked = [_fit(one) for one in entries]
    fit = [one for one in checked if one.state == "intact" and one.reason is None]
    if not fit:
        why = "; ".join(f"{one.path.name}: {one.reason}" for one in checked) or "there is none"
        raise JobError(f"no checkpoint can be measured ({why})", "see `supervisor verify`")
    asked = {**_section(fit[-1].path, job, inputs), "checkpoints": [str(one.path.resolve()) for one in fit]}
    with ExitStack() as stack:
        for one in fit:
            stack.enter_context(reading(one.path))
        answer = _ask(asked, job.env if job is not None else {})
    measured_on: Mapping[str, Mapping[str, float]] = answer["checkpoints"]
    done = [replace(one, new=measured_on.get(str(one.path.resolve()))) for one in checked]
    best = min((one for one in done if one.new is not None), key=lambda one: one.new["loss"] if one.new else 0.0)
    return Comparison(tuple(done), best.path, f"loss on {inputs.data.name}", answer["base"], answer["tokens"])


def _fit(one: Entry) -> Entry:
    """Say why a checkpoint cannot be measured, if it cannot."""
    if one.state != "intact":
        return one
    if not all((one.path / name).is_file() for name in (ADAPTER, ADAPTER_CONFIG)):
        return replace(one, reason="not measured: it holds a whole model and no adapter")
    if (one.path / EXTRA).is_file():
        return replace(one, reason="not measured: it holds trained weights besides its adapter")
    return one


def _section(checkpoint: Path, job: Job | None, inputs: Inputs) -> dict[str, Any]:
    """The section of `jobs.lora` that reads the new inputs as the run read its own.

    Raises:
        JobError: nobody says which base model it is.
    """
    ours = dict(job.args) if job is not None and is_ours(job.program) and isinstance(job.args, dict) else {}
    taken = ("text_field", "messages_field", "max_length", "chat_template", "quantization", "training")
    section = {name: ours[name] for name in taken if ours.get(name) is not None}
    if inputs.text_field is not None or inputs.messages_field is not None:
        section |= {"text_field": inputs.text_field, "messages_field": inputs.messages_field}
    model, revision = (inputs.model, None) if inputs.model is not None else _base_of(checkpoint)
    return {"args": {**section, "model": model, "data": str(inputs.data.resolve())}, "revision": revision}


def _base_of(checkpoint: Path) -> tuple[str, str | None]:
    """The base model that a checkpoint names: its adapter's configuration, else its state."""
    told = json.loads((checkpoint / ADAPTER_CONFIG).read_text())
    base = json.loads((checkpoint / STATE).read_text()).get("base") or {}
    name = told.get("base_model_name_or_path") or base.get("name")
    if not isinstance(name, str) or not name:
        raise JobError(f"{checkpoint.name} does not say which base model it was trained on", "name it with --model")
    return name, told.get("revision") or base.get("revision")


def _ask(asked: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="supervisor-compare-") as place:
        request, answer = Path(place) / "request.json", Path(place) / "answer.json"
        request.write_text(json.dumps({**asked, "answer": str(answer)}))
        command = [sys.executable, "-m", "jobs.lora_compare", str(request)]
        # Its words are talk; stdout is for data.
        done = subprocess.run(command, check=False, env={**os.environ, **environment}, stdout=sys.stderr)
        if done.returncode != 0 or not answer.is_file():
            raise JobError("the checkpoints could not be measured", "see the lines above")
        told: dict[str, Any] = json.loads(answer.read_text())
        return told


def _new(values: Mapping[str, float] | None) -> list[str]:
    return ["", ""] if values is None else [f"{values['loss']:.4f}", f"{values['perplexity']:.4g}"]


def _as_json(one: Entry) -> dict[str, Any]:
    metrics = {name: {"value": known.value, "step": known.step} for name, known in (one.metrics or {}).items()}
    return {
        "path": str(one.path),
        "step": one.step,
        "lineage": one.lineage,
        "time": one.time,
        "state": one.state,
        "reason": one.reason,
        "loss": one.loss,
        "metrics": metrics,
        "kept": list(one.kept),
        "new": one.new,
    }
