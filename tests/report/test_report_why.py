"""`why`: each attempt's cause, its evidence and what was decided, for somebody who is tired."""

import io
import json
from pathlib import Path

import pytest
import run_histories as h

from supervisor.errors import JobError
from supervisor.owner import Life
from supervisor.report.fold import NO_END
from supervisor.report.live import Live, look
from supervisor.report.why import print_why, text, why


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("STARTING", ["interrupted", "no attempt has been made yet", "`supervisor run JOB`"]),
        (
            "RANK_KILLED",
            [
                "finished",
                "a worker crashed (crashed)",
                "rank 1 was killed by SIGKILL",
                "started again",
                "from step 55 (snapshot) to step 100",
                "logs/attempt-1",
                "the adapter is in",
            ],
        ),
        ("TREE_KILLED", ["interrupted", "nobody knows (unknown)", NO_END]),
        (
            "PREEMPTED",
            ["the machine was needed elsewhere (preempted)", "received SIGTERM", "handed back", "the same command"],
        ),
        ("STOPPED", ["stopped by its user (user_stop)", "stopped by SIGINT"]),
        (
            "GAVE_UP",
            [
                "never began",
                "wrong, and would be again (user_error)",
                "NameError: x",
                "a person has to look: the program is wrong",
                "--forgive",
            ],
        ),
        ("SHRUNK", ["out of GPU memory (gpu_oom)", f"started again with other settings: {h.SMALLER}"]),
        ("NEVER_TRAINED_BETWEEN", ["started again after 15 s"]),
    ],
)
def test_each_history_is_explained(tmp_path: Path, name: str, said: list[str]) -> None:
    run_dir = h.write(tmp_path, h.ALL[name])
    live = look(run_dir)
    answer = text(why(run_dir, live), live)
    for part in said:
        assert part in answer


@pytest.mark.parametrize("name", sorted(h.ALL))
def test_the_json_is_json_and_the_text_has_no_none(tmp_path: Path, name: str) -> None:
    run_dir = h.write(tmp_path, h.ALL[name])
    for live in (Live(), Live(life=Life.UNKNOWN)):
        told = why(run_dir, live)
        json.dumps(told, allow_nan=False)
        assert "None" not in text(told, live)


def test_an_attempt_under_way_has_no_cause(tmp_path: Path) -> None:
    run_dir = h.write(tmp_path, h.UNDER_WAY)
    told = why(run_dir, Live(life=Life.UNKNOWN))
    assert told["attempts"][0]["cause"] is None
    assert "is under way" in text(told, Live())


def test_a_straggler_ended_nothing_and_has_no_cause(tmp_path: Path) -> None:
    slow = {"cause": None, "detail": "straggler on n2: rank 1 takes 0.4 s", "decision": "training goes on"}
    run_dir = h.write(tmp_path, [*h.UNDER_WAY, (1060.0, "incident", 1, slow), *h.crashes(1070, 1, 55)])
    live = look(run_dir)
    answer = text(why(run_dir, live), live)
    assert "straggler on n2: rank 1 takes 0.4 s; training goes on" in answer
    assert "None" not in answer


def test_incidents_that_ended_no_attempt_are_told_too(tmp_path: Path) -> None:
    full = {"cause": "disk_full", "detail": "the periodic checkpoint of step 50 failed", "decision": "training goes on"}
    run_dir = h.write(tmp_path, [*h.UNDER_WAY, (1060.0, "incident", 1, full), *h.crashes(1070, 1, 55)])
    answer = text(why(run_dir, Live()), Live())
    assert "also happened" in answer
    assert "the disk was full: the periodic checkpoint of step 50 failed; training goes on" in answer
    assert answer.count("rank 1 was killed by SIGKILL") == 1


def test_evidence_cannot_paint_the_terminal(tmp_path: Path) -> None:
    run_dir = h.write(tmp_path, [*h.UNDER_WAY, *h.crashes(1070, 1, 55, detail="\x1b[2Jgone\nNext line" + "x" * 999)])
    answer = text(why(run_dir, Live()), Live())
    assert "\x1b" not in answer
    assert "gone Next line" in answer
    assert max(map(len, answer.splitlines())) < 400


def test_no_journal_makes_it_fail(tmp_path: Path) -> None:
    run_dir = h.write(tmp_path, h.UNDER_WAY)
    with (run_dir / "journal.jsonl").open("ab") as file:
        file.write(b'{"v":1,"time":1e14,"event":"attempt_started","attempt":[],"world_size":"two"}\n\xff\n{"tor')
    assert "attempt" in text(why(run_dir, Live()), Live())


def test_it_is_printed_as_text_and_as_one_json_document(tmp_path: Path) -> None:
    run_dir = h.write(tmp_path / "demo", h.GAVE_UP)
    out = io.StringIO()
    print_why(run_dir, as_json=True, out=out)
    assert json.loads(out.getvalue())["state"] == "gave_up"
    out = io.StringIO()
    print_why(run_dir, as_json=False, out=out)
    assert out.getvalue().startswith("demo: gave up")
    with pytest.raises(JobError, match="holds no run"):
        print_why(tmp_path, as_json=False)
