"""Where members find their leader."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from supervisor.engine.members.meeting import Over, announce, find, own_host
from supervisor.errors import ExitCode
from supervisor.link.address import Address, new_token

ADDRESS = Address("10.0.0.7", 4711, new_token())


@pytest.mark.parametrize("allocation", ["", "12.0", "12_3.0"])
def test_an_address_is_found_by_its_own_allocation_and_read_by_its_owner_only(tmp_path: Path, allocation: str) -> None:
    assert find(tmp_path, allocation) is None
    announce(tmp_path, allocation, ADDRESS)
    assert find(tmp_path, allocation) == ADDRESS
    assert find(tmp_path, "13.0") is None
    assert [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "control").iterdir()] == [0o600]


def test_one_that_finds_the_run_led_elsewhere_takes_nothing_from_the_leaders_members(tmp_path: Path) -> None:
    announce(tmp_path, "12.0", ADDRESS)
    announce(tmp_path, "13.0", Over(ExitCode.USAGE))
    assert find(tmp_path, "12.0") == ADDRESS
    assert find(tmp_path, "13.0") == Over(ExitCode.USAGE)


def test_what_allocations_of_last_month_left_goes(tmp_path: Path) -> None:
    announce(tmp_path, "12.0", ADDRESS)
    announce(tmp_path, "13.0", ADDRESS)
    os.utime(tmp_path / "control" / "leader-12.0.json", (0, 0))
    announce(tmp_path, "14.0", ADDRESS)
    assert [find(tmp_path, allocation) for allocation in ("12.0", "13.0", "14.0")] == [None, ADDRESS, ADDRESS]


@pytest.mark.parametrize(
    "torn",
    [
        b"",
        b'{"allocation": "12.0", "addr',
        b"[1]",
        b"\xff\xfe",
        b'{"allocation": "12.0"}',
        b'{"allocation": "12.0", "over": 99}',
        b'{"allocation": "12.0", "over": "0"}',
        b'{"allocation": "12.0", "address": {"host": "10.0.0.7", "port": 0, "token": ""}}',
        b'{"allocation": "11.0", "over": 0}',
        b"[" * 100_000,
    ],
)
def test_what_is_torn_or_odd_tells_nothing(tmp_path: Path, torn: bytes) -> None:
    announce(tmp_path, "12.0", ADDRESS)
    [path] = (tmp_path / "control").iterdir()
    path.write_bytes(torn)
    assert find(tmp_path, "12.0") is None


def test_this_machines_address_is_the_one_on_the_way_to_the_peer() -> None:
    assert own_host("127.0.0.1") == "127.0.0.1"
    for name in ("a..b", "x" * 70, "no-such-host.invalid"):
        with pytest.raises(OSError, match=r".+"):
            own_host(name)
