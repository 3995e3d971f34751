"""A cloud gives notice: what was trained is committed at once, training goes on, and the run leaves just in time."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from fake_metadata import iso, serving
from harness import BUSY_S, Run
from nodes import Nodes
from undisturbed import ALONE, TOGETHER, assert_nothing_repeated, assert_same

from supervisor.watch.clouds.reading import moment_s

JOB = {"launch": {"processes_per_node": 1}, "checkpoint": {"snapshot": "1 step", "every": "1000 steps"}}
#: Long enough for a busy machine: for the last ten seconds nobody trains.
LEAD_S = 15.0


def test_an_interruption_of_aws_is_committed_for_at_once_and_left_for_before_its_deadline(
    tmp_path: Path, alone: Run
) -> None:
    with serving("aws") as fake:
        run = Run(tmp_path, args={**ALONE, "sleep": 0.8}, job=JOB)
        run.environment["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = fake.url
        run.place("step-3")
        run.start().wait_at("step-3", ranks=1)
        fake.say(action={"action": "terminate", "in_s": LEAD_S})
        copy = run.wait_for_event("checkpoint_committed")[0]
        run.let_go("step-3")
        assert run.wait(LEAD_S + BUSY_S) == 75, run.said()
        left_s = time.time()

    [notice] = run.journal("notice")
    deadline_s = float(str(notice.fields["deadline"]))
    assert notice.fields["kind"] == "aws: spot instance-action terminate"
    assert iso(deadline_s) == fake.facts["action"]["time"]
    assert (copy.fields["step"], copy.fields["reason"]) == (2, "emergency")
    assert copy.time - notice.time < 4.0
    ended = run.journal("attempt_ended")[-1]
    assert ended.fields["cause"] == "preempted"
    assert '{"action":"terminate","time":"' in str(ended.fields["evidence"])
    newest = run.journal("checkpoint_committed")[-1]
    assert (newest.count("step") or 0) > 3  # it trained on
    assert newest.count("step") == ended.count("step") == max(line["step"] for line in run.trace())
    assert notice.time + 1.0 < left_s < deadline_s

    run.environment.clear()
    assert run.run() == 0, run.said()
    assert_same(run, alone)
    assert_nothing_repeated(run)


def test_an_eviction_that_azure_takes_back_ends_nothing(tmp_path: Path, alone: Run) -> None:
    with serving("azure", name="vm-0") as fake:
        run = Run(tmp_path, args=ALONE, job=JOB)
        run.environment["SUPERVISOR_AZURE_METADATA"] = fake.url
        run.place("step-3")
        run.start().wait_at("step-3", ranks=1)
        event = {"EventId": "E1", "EventType": "Preempt", "Resources": ["vm-0"], "EventStatus": "Scheduled"}
        fake.say(events=[{**event, "in_s": 120}])
        run.wait_for_event("checkpoint_committed")
        fake.say(events=[])
        run.wait_for_event("notice", 2)
        run.let_go("step-3")
        assert run.wait() == 0, run.said()
    assert [n.fields.get("withdrawn") for n in run.journal("notice")] == [None, True]
    assert run.journal("notice")[1].fields["kind"] == "azure: Preempt"
    assert fake.started == {}
    assert len(run.journal("attempt_started")) == 1
    assert_same(run, alone)


def test_a_members_machine_is_to_go_and_all_nodes_commit_train_on_and_leave_in_time(tmp_path: Path) -> None:
    with serving("aws") as fake:
        told = f"AWS_EC2_METADATA_SERVICE_ENDPOINT={fake.url}"
        run = Nodes(tmp_path, args={**TOGETHER, "sleep": 0.5}, job=JOB, through=lambda node: ["env", told] * node)
        run.place("step-3")
        run.start().wait_at("step-3")
        fake.say(action={"action": "stop", "in_s": LEAD_S})
        notice = run.wait_for_event("notice")[0]
        run.let_go("step-3")
        copy = run.wait_for_event("checkpoint_committed")[0]
        assert run.codes(LEAD_S + BUSY_S) == [75, 75], run.words()
        left_s = time.time()
    deadline_s = float(str(notice.fields["deadline"]))
    assert notice.fields["kind"] == f"aws: spot instance-action stop on node 1 ({os.uname().nodename})"
    assert abs(deadline_s - moment_s(fake.facts["action"]["time"])) < 4.0
    assert (copy.fields["reason"], copy.fields.get("stood_in")) == ("emergency", None)
    ended = run.journal("attempt_ended")[-1]
    newest = run.journal("checkpoint_committed")[-1]
    assert ended.fields["cause"] == "preempted"
    assert newest.count("step") == ended.count("step")
    assert (newest.count("step") or 0) > (copy.count("step") or 0)
    assert left_s < deadline_s


def test_a_machine_that_is_being_evicted_is_left_at_once_and_azure_is_told_to_go_ahead_last_of_all(
    tmp_path: Path,
) -> None:
    event = {"EventId": "E1", "EventType": "Preempt", "Resources": ["VM-0"], "EventStatus": "Started", "NotBefore": ""}
    with serving("azure", name="vm-0", events=[event]) as fake:
        run = Run(tmp_path, args=ALONE, job=JOB)
        run.environment["SUPERVISOR_AZURE_METADATA"] = fake.url
        assert run.run() == 75, run.said()
    assert list(fake.started) == ["E1"]
    assert run.journal("decision")[-1].fields["reason"] == (
        "received azure: Preempt (EventType Preempt, EventStatus Started)"
    )
    lease = run.run_dir / "lease"
    assert json.loads(lease.read_text())["owner"] is None
    assert max(run.journal()[-1].time, lease.stat().st_mtime) < fake.started["E1"]
