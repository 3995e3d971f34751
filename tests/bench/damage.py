"""Ten thousand random damages to the newest checkpoint of a run: none may be believed, none may crash the reader.

The kinds are those of tests/checkpoint/damages.py: bits, blocks, lengths, names, links, files of other
steps and of other runs, whole directories of either. Each case damages the newest of two checkpoints in
memory, and asks what a start asks (`resuming.look`, which sets aside what is wrong): the newest must not be
taken, its reason must name what was hurt, and the older one must be what is resumed from. One case in fifty
is also put to the real `supervisor verify --json`, in a process of its own.

Not shown: damage that changes a file and its digest in the manifest and the seal alike (that is forgery, not damage).

Run it (exit 1 if anything was accepted, crashed, was not named, or not gone back from):
    python -m tests.bench.damage --cases 10000 --seed 5
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.harness import command

sys.path.insert(0, str(Path(__file__).parents[1] / "checkpoint"))
from checkpoint_samples import RUN
from damages import KINDS, NEWEST, OLDER, Scene, damage

from supervisor.checkpoint.verify import Intact, verify
from supervisor.engine.state.resuming import look
from supervisor.policy.ledger import Ledger

LEDGER = Ledger(run_id=RUN, committed=tuple((0, s, f"checkpoints/checkpoint-{s}") for s in (OLDER, NEWEST)))
COMMAND_EVERY = 50


def main() -> None:
    arguments = argparse.ArgumentParser(description="random damage to the newest checkpoint")
    arguments.add_argument("--cases", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=5)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-damage-", dir="/dev/shm") as place:
        sys.exit(measure(Scene(Path(place) / "run", random.Random(given.seed)), given.cases))


def measure(scene: Scene, cases: int) -> int:
    faults: list[str] = []
    count: Counter[str] = Counter()
    took_s, commands = [], 0
    for case in range(cases):
        kind = list(KINDS)[case % len(KINDS)]
        named = damage(scene, kind)
        told = f"case {case}, {kind}"
        try:
            if case % COMMAND_EVERY == 0:
                commands += 1
                faults += [f"{told}: {problem}" for problem in ask_command(scene, named)]
            began = time.perf_counter()
            problems = ask(scene, named)
            took_s.append(time.perf_counter() - began)
            faults += [f"{told}: {problem}" for problem in problems]
        except Exception:
            faults.append(f"{told}: crashed\n{traceback.format_exc()}")
        count[kind] += 1
        scene.mend()
    whole = isinstance(verify(scene.newest, RUN), Intact)
    print(*faults, sep="\n", end="\n" if faults else "")
    print(", ".join(f"{kind} {n}" for kind, n in count.items()))
    print(f"{cases} cases, {commands} of them also through the command: {len(faults)} wrong")
    print(f"a look took {statistics.median(took_s) * 1e3:.1f} ms, at most {max(took_s) * 1e3:.0f} ms")
    print(f"undamaged again: {'intact' if whole else 'NOT INTACT'}")
    return int(bool(faults) or not whole)


def ask(scene: Scene, named: list[str]) -> list[str]:
    """What is wrong with the answers to one damage."""
    verdict = verify(scene.newest, RUN)
    if isinstance(verdict, Intact):
        return ["accepted"]
    problems = [] if any(word in verdict.reason for word in named) else [f"{verdict.reason!r} names none of {named}"]
    found = look(scene.run_dir, RUN, LEDGER, time.time)
    if found.newest is None or found.newest.step != OLDER:
        problems.append(f"would go on from {found.newest}")
    if found.rejected != ((scene.newest.name, NEWEST, verdict.reason),) or os.path.lexists(scene.newest):
        problems.append(f"was not set aside: {found.rejected}")
    return problems


def ask_command(scene: Scene, named: list[str]) -> list[str]:
    done = command("verify", str(scene.run_dir), "--json")
    if done.returncode != 0:
        return [f"verify left with {done.returncode}: {done.stderr}"]
    told = json.loads(done.stdout)
    newest = next(one for one in told["checkpoints"] if one["step"] == NEWEST)
    problems = []
    if newest["state"] not in ("torn", "foreign") or not any(word in newest["reason"] for word in named):
        problems.append(f"the command says {newest}, which names none of {named}")
    if not str(told["resume_from"]).endswith(f"checkpoint-{OLDER}"):
        problems.append(f"the command would resume from {told['resume_from']}")
    return problems


if __name__ == "__main__":
    main()
