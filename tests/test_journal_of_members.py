"""What members write that have lost their leader: shown at once, and taken in by the next leader."""

from __future__ import annotations

from pathlib import Path

from supervisor.journal import JOURNAL, Journal, Record, read, read_run


def write(run_dir: Path, name: str, *events: tuple[float, str]) -> None:
    for time_s, event in events:
        journal = Journal.open(run_dir, lambda time_s=time_s: time_s, "host", name)
        journal.note(event, node=1)
        journal.close()


def told(records: list[Record]) -> list[str]:
    return [record.event for record in records]


def test_what_a_member_wrote_after_its_leader_is_read_with_the_journal_and_taken_in_once(tmp_path: Path) -> None:
    write(tmp_path, JOURNAL, (10.0, "run_started"), (11.0, "attempt_started"))
    write(tmp_path, "journal-1-n2.jsonl", (15.0, "attempt_ended"), (15.1, "decision"))
    everything = ["run_started", "attempt_started", "attempt_ended", "decision"]
    assert told(read_run(tmp_path)) == everything
    assert told(read(tmp_path / JOURNAL)) == everything[:2]

    copy = (tmp_path / "journal-1-n2.jsonl").read_bytes()
    leader = Journal.open(tmp_path, lambda: 20.0, "host")
    assert leader.fold_in(tmp_path) == 2
    assert list(tmp_path.glob("journal-*")) == []
    (tmp_path / "journal-1-n2.jsonl").write_bytes(copy)  # as if it had died before it could remove it
    assert told(read_run(tmp_path)) == everything
    assert leader.fold_in(tmp_path) == 0
    leader.close()
    assert told(read(tmp_path / JOURNAL)) == everything


def test_a_torn_line_of_a_member_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, JOURNAL, (10.0, "run_started"))
    write(tmp_path, "journal-1-n1.jsonl", (15.0, "attempt_ended"))
    with (tmp_path / "journal-1-n1.jsonl").open("ab") as file:
        file.write(b'{"v":1,"time":15.2,"event":"checkpoint_com')
    assert told(read_run(tmp_path)) == ["run_started", "attempt_ended"]
    leader = Journal.open(tmp_path, lambda: 20.0, "host")
    assert leader.fold_in(tmp_path) == 1
    leader.close()


def test_a_leader_that_went_on_after_its_members_has_the_last_word(tmp_path: Path) -> None:
    write(tmp_path, JOURNAL, (10.0, "run_started"), (30.0, "run_finished"))
    write(tmp_path, "journal-1-n1.jsonl", (15.0, "attempt_ended"), (15.1, "decision"))
    assert told(read_run(tmp_path)) == ["run_started", "run_finished"]
