"""Whatever happens to the newest checkpoint, it is found and named, and the next intact one is resumed from."""

import json
import os
import random
import time
from pathlib import Path

import pytest
from checkpoint_samples import RUN
from damages import KINDS, NEWEST, OLDER, Scene, damage
from harness import command

from supervisor.checkpoint.verify import Foreign, Intact, Torn, verify
from supervisor.engine.state.resuming import look
from supervisor.policy.ledger import Ledger

COMMITTED = tuple((0, step, f"checkpoints/checkpoint-{step}") for step in (OLDER, NEWEST))
LEDGER = Ledger(run_id=RUN, committed=COMMITTED)
TIMES = 10


@pytest.mark.parametrize("kind", KINDS)
def test_damage_of_every_kind_is_named_and_the_next_intact_one_is_resumed_from(tmp_path: Path, kind: str) -> None:
    scene = Scene(tmp_path / "run", random.Random(kind))
    for _ in range(TIMES):
        named = damage(scene, kind)
        verdict = verify(scene.newest, RUN)
        assert isinstance(verdict, Torn | Foreign)
        assert any(word in verdict.reason for word in named), (verdict.reason, named)
        found = look(scene.run_dir, RUN, LEDGER, time.time)
        assert found.newest is not None
        assert found.newest.step == OLDER
        assert found.rejected == ((scene.newest.name, NEWEST, verdict.reason),)
        assert not os.path.lexists(scene.newest), "nothing may stand in the way of the next commit of this step"
        scene.mend()
    assert isinstance(verify(scene.newest, RUN), Intact)


def test_the_command_names_the_damage_and_what_would_be_resumed_from(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "run", random.Random(7))
    named = damage(scene, "flip_bits")
    told = json.loads(command("verify", str(scene.run_dir), "--json").stdout)
    newest = next(one for one in told["checkpoints"] if one["step"] == NEWEST)
    assert newest["state"] == "torn"
    assert named[0] in newest["reason"]
    assert told["resume_from"].endswith(f"checkpoint-{OLDER}")
