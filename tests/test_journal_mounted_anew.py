"""A journal whose file system was mounted anew: what is open of the old one is dead, and the name leads on."""

from __future__ import annotations

import pytest
from disks import Ext4

from supervisor.errors import DiskError
from supervisor.journal import JOURNAL, Journal, read


def test_what_a_read_only_disk_refused_is_written_when_it_is_mounted_anew_and_to_no_other_journal(disk: Ext4) -> None:
    clock = iter(range(100, 200))
    journal = Journal.open(disk.place, lambda: float(next(clock)), "here")
    before = journal.append("run_started", run_id="r")
    disk.err()
    refused = [journal.note("incident", detail="one"), journal.note("incident", detail="two")]
    with pytest.raises(DiskError, match=r"(?i)read-only file system"):
        journal.append("incident", detail="three")
    assert journal.unwritten == 2
    disk.go()
    other = disk.place / JOURNAL
    for foreign in (None, '{"event": "run_started", "time": 1.0}\n'):
        if foreign is not None:
            other.write_text(foreign)
        journal.write_kept()
        assert journal.unwritten == 2
        assert (other.read_text() if other.exists() else None) == foreign
    other.unlink()
    disk.come_back()
    last = journal.note("run_stopped")
    assert journal.unwritten == 0
    assert read(disk.place / JOURNAL) == [before, *refused, last]
    journal.close()
