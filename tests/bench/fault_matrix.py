"""Every kind of fault, done for real, several times: the right cause, the right decision, the right end.

Measured: the runs of fault_kinds.py. Processes get real signals, memory runs out in a real control group, disks are
full that are small file systems, the network between two nodes is cut in namespaces, metadata services and a GPU's
driver are fake ones that answer as the real ones do. Of each run the journal's causes, decisions and incidents,
the exit codes, and what processes are left are held against what is promised; settled steps that were done again are
counted; a run that finishes has to give the result of an undisturbed one, bit for bit (within rounding after the
micro-batch was halved; after a NaN, of a run that leaves that step out).

Not shown: real GPUs, real clouds, more than two nodes; what a scheduler does (slurm_endings.py). What the machine does
not allow is left out, with the reason.

Run it as root (exit 1 if anything was not as it should be):
    python -m tests.bench.fault_matrix --repeats 5 --at-once 2 --write
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from supervisor.board.store import PREFIX
from supervisor.journal import JOURNAL, read
from tests.bench.fault_kinds import KINDS, REFERENCES, Kind, unlike
from tests.harness import SHM, Run, send

README = Path(__file__).parents[2] / "README.md"
MARKS = ("<!-- fault matrix -->\n", "<!-- end of the fault matrix -->")
HEAD = "| what was done | cause | what follows | runs | right |\n|---|---|---|---|---|\n"


@dataclass(frozen=True)
class Outcome:
    """What came of one run."""

    kind: str
    wrong: list[str]
    took_s: float


def main() -> None:
    arguments = argparse.ArgumentParser(description="every kind of fault, done for real")
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    arguments.add_argument("--at-once", type=int, default=2, help="runs beside each other")
    arguments.add_argument("--minutes", type=float, default=600.0, help="begin no further run after so many")
    arguments.add_argument("--write", action="store_true", help="put the lines of these kinds into README.md")
    arguments.add_argument("--keep", type=Path, help="leave the runs here, to look at")
    given = arguments.parse_args()
    base = given.keep or Path(tempfile.mkdtemp(prefix="bench-faults-"))
    missing = {name: KINDS[name].needs() for name in given.kinds}
    there = [name for name in given.kinds if not missing[name]]
    last_s = time.monotonic() + 60.0 * given.minutes

    def one(number: int, name: str) -> Outcome | None:
        if time.monotonic() > last_s:
            return None
        return once(name, base / f"{name.replace(' ', '-')}-{number}", references)

    with ThreadPoolExecutor(given.at_once) as pool:
        wanted = list(dict.fromkeys(same for name in there if (same := KINDS[name].same) is not None))
        made = pool.map(lambda name: reference(name, base / f"undisturbed-{name.replace(' ', '-')}"), wanted)
        references = dict(zip(wanted, made, strict=True))
        planned = [(number, name) for number in range(given.repeats) for name in there]
        outcomes = [done for done in pool.map(lambda plan: one(*plan), planned) if done is not None]
    lines = {name: line(KINDS[name], [o for o in outcomes if o.kind == name], missing[name]) for name in given.kinds}
    print("\n" + HEAD + "".join(lines.values()))
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    print(f"{len(outcomes)} runs, {len(wrong)} not as they should be")
    for outcome in wrong:
        print(f"  {outcome.kind}: {'; '.join(outcome.wrong)}")
    if given.write:
        README.write_text(written(README.read_text(), lines))
    if not wrong and not given.keep:
        shutil.rmtree(base)
    sys.exit(bool(wrong))


def reference(name: str, base: Path) -> Run:
    """An undisturbed run."""
    done = REFERENCES[name](base)
    assert done.codes == (0,), done.run.said()
    return done.run


def once(name: str, base: Path, references: dict[str, Run]) -> Outcome:
    """One run that is hurt so; a fault that could not be done, or a run that does not end, is wrong as well."""
    began_s = time.monotonic()
    try:
        wrong = unlike(KINDS[name], KINDS[name].does(base), references)
    except Exception as error:  # whatever it is: the other runs are to be made, and this one is told of
        wrong = [f"{type(error).__name__}: {error}"]
    finally:
        sweep(base)
    took_s = time.monotonic() - began_s
    print(f"{name:24} {took_s:5.1f} s  {'; '.join(wrong) if wrong else 'right'}", flush=True)
    if not wrong:
        shutil.rmtree(base)
    return Outcome(name, wrong, took_s)


def sweep(base: Path) -> None:
    """End what a run left that went wrong, and take its memory away."""
    for process in psutil.process_iter(["cmdline"]):
        if any(f"{base}/" in word for word in process.info["cmdline"] or ()):
            send(process.pid, signal.SIGKILL)
    for journal in base.rglob(JOURNAL):
        for record in read(journal):
            if record.event == "run_started":
                for board in SHM.glob(f"{PREFIX}{record.text('run_id')}*"):
                    shutil.rmtree(board, ignore_errors=True)


def line(kind: Kind, outcomes: Iterable[Outcome], missing: str) -> str:
    """A row of the table."""
    right = [not outcome.wrong for outcome in outcomes]
    told = sorted(kind.faults) or list(dict.fromkeys(kind.causes[:1]))
    causes = ", ".join(f"`{cause}`" for cause in told)
    ends = f"; exit {', '.join(map(str, dict.fromkeys(code for code in kind.codes if code >= 0)))}"
    count = f"not here: {missing}" if missing else str(sum(right))
    return f"| {kind.said} | {causes} | {kind.follows}{ends} | {len(right)} | {count} |\n"


def written(text: str, lines: dict[str, str]) -> str:
    """A document with these rows in its table; rows of other kinds stay as they are.

    Raises:
        ValueError: the marks of the table are not there.
    """
    before, found, rest = text.partition(MARKS[0])
    table, closed, after = rest.partition(MARKS[1])
    if not found or not closed:
        raise ValueError(f"no place for the table: write {MARKS[0].strip()} and {MARKS[1]} into it")
    rows = {row.split(" | ")[0]: row for row in re.findall(r"^\| .*\n", table, re.MULTILINE)}
    rows |= {row.split(" | ")[0]: row for row in lines.values()}
    ordered = [rows[key] for kind in KINDS.values() if (key := f"| {kind.said}") in rows]
    return before + found + HEAD + "".join(ordered) + closed + after


if __name__ == "__main__":
    main()
