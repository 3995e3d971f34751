"""How long a start waits for its file system: every error, and every second of the wait."""

import errno

import pytest

from supervisor.policy.storage import GONE, PATIENCE_S, RETRY_S, wait_for_storage_s


@pytest.mark.parametrize("number", [None, 0, *errno.errorcode])
def test_only_a_file_system_that_is_gone_is_waited_for(number: int | None) -> None:
    assert (wait_for_storage_s(number, 0.0) is not None) == (number in GONE)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENOMEM])
def test_what_a_person_has_to_mend_is_not(number: int) -> None:
    assert wait_for_storage_s(number, 0.0) is None


@pytest.mark.parametrize("first_s", [0.0, 0.1, 4.9])
def test_the_wait_ends_and_ends_on_time(first_s: float) -> None:
    gone_s, tries = first_s, 0
    while (delay_s := wait_for_storage_s(errno.ESTALE, gone_s)) is not None:
        assert 0.0 < delay_s <= RETRY_S
        gone_s += delay_s
        tries += 1
    assert gone_s == pytest.approx(PATIENCE_S)
    assert tries >= PATIENCE_S / RETRY_S - 1


def test_half_a_minute_is_survived() -> None:
    assert wait_for_storage_s(errno.EIO, 30.0) is not None
