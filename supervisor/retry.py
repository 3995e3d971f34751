"""The door to tenacity: what is flaky is tried again, but not for ever."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    retry_if_result,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential,
    wait_random_exponential,
)

T = TypeVar("T")

#: The first pause is random below twice this, and each may be twice as long as the one before [s].
PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0


def persistently(work: Callable[[], T], *, flaky: Callable[[BaseException], bool], tries: int, within_s: float) -> T:
    """What ``work`` gives, tried again after a random pause that grows.

    Args:
        work: may be done twice, also where its first try did more than its answer says.
        flaky: whether an error may be another one next time.
        tries: at most so many.
        within_s: none is begun later than this [s].

    Raises:
        BaseException: what the last try raised.

    >>> left = [OSError("once"), None]
    >>> def work() -> str:
    ...     if (error := left.pop(0)) is not None:
    ...         raise error
    ...     return "done"
    >>> persistently(work, flaky=lambda error: isinstance(error, OSError), tries=2, within_s=5.0)
    'done'
    """
    for attempt in Retrying(
        retry=retry_if_exception(flaky),
        stop=stop_after_attempt(tries) | stop_after_delay(within_s),
        wait=wait_random_exponential(PAUSE_S, LONGEST_PAUSE_S),
        reraise=True,
    ):
        with attempt:
            return work()
    raise AssertionError("it either returns or raises")


def until_certain(look: Callable[[], T], *, doubtful: Callable[[T], bool], within_s: float) -> list[T]:
    """All that ``look`` gave, looked again with growing pauses while that was doubtful; what counts is the last.

    Args:
        look: may be done any number of times.
        doubtful: whether another look may show something else.
        within_s: none is begun later than this [s].

    >>> left = [0, 0, 7]
    >>> until_certain(lambda: left.pop(0), doubtful=lambda found: found == 0, within_s=5.0)
    [0, 0, 7]
    """
    looks: list[T] = []

    def again() -> T:
        looks.append(look())
        return looks[-1]

    def last(_state: RetryCallState) -> T:
        return looks[-1]

    Retrying(
        retry=retry_if_result(doubtful),
        stop=stop_after_delay(within_s),
        wait=wait_exponential(PAUSE_S, max=LONGEST_PAUSE_S),
        retry_error_callback=last,
    )(again)
    return looks
