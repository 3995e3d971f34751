"""The door to obstore: the few calls that a mirror is made of, each with an end.

A request has a time limit and is tried a few times. What it does not protect against: a library
that hangs in spite of its limits; so all of this runs in a process of its own.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from obstore.exceptions import (
    AlreadyExistsError,
    NotFoundError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from supervisor.errors import SupervisorError
from supervisor.mirror.refusals import ConditionError, NoConditionsError, StoreError, StoreRefusedError
from supervisor.retry import persistently

T = TypeVar("T")

CONNECT_S = 5.0
#: A request for something small, and for a piece of `layout.PIECE_BYTES`: 140 kB/s will do [s].
SMALL_S = 10.0
LARGE_S = 120.0
#: A request is tried so often, and not again after so long [s].
TRIES = 6
SMALL_WITHIN_S = 20.0
LARGE_WITHIN_S = 240.0
#: So many names are deleted by one request.
DELETED_AT_ONCE = 500

#: What stores say to a caller whom they do not know, or who may not; and of a place that is not there.
_UNWELCOME = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "AuthFailure", "InvalidToken")
_UNWELCOME_TOO = ("ExpiredToken", "AuthenticationFailed", "AuthorizationFailure", "401 Unauthorized", "403 Forbidden")
_NOWHERE = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
#: Whoever names no credentials is sent to these services of the machine.
_OWN_SERVICES = ("169.254.169.254", "169.254.170.2", "metadata.google.internal", "metadata/identity")
_UNCONDITIONAL = ("501 Not Implemented", "NotImplemented")
_LONGEST = 240


@dataclass(frozen=True, slots=True)
class Got:
    """An object as it was read.

    Attributes:
        data: its content.
        tag: by which a later write can name just this version.
    """

    data: bytes
    tag: str | None


class Store:
    """What lies below one prefix.

    Attributes:
        url: of the prefix.
        conditional: whether an object can be replaced only if it is still the same; a directory cannot say.
    """

    def __init__(self, url: str, *, small_s: float = SMALL_S, large_s: float = LARGE_S) -> None:
        """Open the prefix; nothing is asked of it yet.

        Args:
            url: of the prefix.
            small_s: how long a request for something small may take [s].
            large_s: how long one for a piece may take [s].

        Raises:
            StoreRefusedError: this is no address, or its configuration cannot be.
        """
        self.url = url
        self.conditional = not url.startswith("file://")
        try:
            self._small, self._large = _opened(url, small_s), _opened(url, large_s)
        except Exception as error:
            raise StoreRefusedError(f"{url}: {_said(error)}", "correct `checkpoint.mirror`") from error

    def get(self, path: str) -> Got | None:
        """A small object; None if there is none.

        Raises:
            StoreError, StoreRefusedError: it could not be asked for.
        """

        def work() -> Got:
            result = self._small.get(path)
            return Got(bytes(result.bytes()), result.meta["e_tag"])

        try:
            return self._try(work)
        except FileNotFoundError:
            return None

    def fetch(self, path: str) -> bytes | None:
        """A large object; None if there is none. Errors are those of `get`."""
        try:
            return self._try(lambda: bytes(self._large.get(path).bytes()), within_s=LARGE_WITHIN_S)
        except FileNotFoundError:
            return None

    def put(self, path: str, data: bytes) -> None:
        """Write an object, whole or not at all, whatever was there. Errors are those of `get`."""
        self._write(lambda: self._large.put(path, data, use_multipart=False), within_s=LARGE_WITHIN_S)

    def create(self, path: str, data: bytes) -> str | None:
        """Write a small object that was not there.

        Returns:
            Its tag.

        Raises:
            ConditionError: there is one, and it is another.
            NoConditionsError: this store knows none.
            StoreError, StoreRefusedError: it could not be written, as far as is known.
        """
        return self._conditionally(path, data, "create")

    def replace(self, path: str, data: bytes, tag: str | None) -> str | None:
        """Write a small object in place of just the version ``tag``; arguments and errors as of `create`."""
        return self._conditionally(path, data, {"e_tag": tag})

    def names(self, prefix: str) -> dict[str, int]:
        """What there is below a prefix, with the size of each [B]. Errors are those of `get`."""

        def work() -> dict[str, int]:
            listed = self._small.list(prefix)
            return {one["path"]: one["size"] for chunk in listed for one in chunk}

        return self._try(work)

    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects; one that is not there is none the less gone. Errors are those of `get`."""
        left = sorted(paths)
        while left:
            some, left = left[:DELETED_AT_ONCE], left[DELETED_AT_ONCE:]
            self._try(partial(self._delete, some))

    def _delete(self, paths: list[str]) -> None:
        if self.conditional:
            self._small.delete(paths)
            return
        for path in paths:
            try:
                self._small.delete(path)
            except FileNotFoundError:
                continue

    def _conditionally(self, path: str, data: bytes, mode: Any) -> str | None:
        def work() -> str | None:
            tag: str | None = self._small.put(path, data, mode=mode, use_multipart=False)["e_tag"]
            return tag

        try:
            return self._write(work)
        except (AlreadyExistsError, PreconditionError) as error:
            # It may be our own: a write whose answer was lost is tried again, and then refused.
            found = self.get(path)
            if found is not None and found.data == data:
                return found.tag
            raise ConditionError(path) from error
        except (NotSupportedError, NotImplementedError) as error:
            raise NoConditionsError(path) from error
        except StoreError as error:
            if any(mark in error.problem for mark in _UNCONDITIONAL):
                raise NoConditionsError(path) from error
            raise

    def _write(self, work: Callable[[], T], within_s: float = SMALL_WITHIN_S) -> T:
        try:
            return self._try(work, within_s)
        except FileNotFoundError as error:  # a write finds nothing missing but its bucket
            raise _translated(self.url, error) from error

    def _try(self, work: Callable[[], T], within_s: float = SMALL_WITHIN_S) -> T:
        try:
            return persistently(work, flaky=lambda e: _is_flaky(self.url, e), tries=TRIES, within_s=within_s)
        except (AlreadyExistsError, PreconditionError, NotSupportedError, NotImplementedError):
            raise
        except Exception as error:
            translated = _translated(self.url, error)
            if isinstance(error, FileNotFoundError | NotFoundError) and not isinstance(translated, StoreRefusedError):
                raise FileNotFoundError(str(error)) from error
            raise translated from error


def _opened(url: str, timeout_s: float) -> Any:
    if url.startswith("file://"):
        return from_url(url, mkdir=True)
    # Encryption is left out only for an address that the user has named that way.
    plain = any(value.startswith("http://") for name, value in os.environ.items() if "ENDPOINT" in name)
    options: dict[str, Any] = {
        "timeout": timedelta(seconds=timeout_s),
        "connect_timeout": timedelta(seconds=CONNECT_S),
        "allow_http": plain,
    }
    # The store compares what it has received with this; what it gives back is compared with the manifest.
    config: Any = {"checksum_algorithm": "SHA256"} if url.startswith("s3") else None
    # Tries are counted at this door; a second count within would multiply them.
    none: Any = {"max_retries": 0, "retry_timeout": timedelta(seconds=timeout_s)}
    return from_url(url, config=config, client_options=options, retry_config=none)  # type: ignore[call-overload]


def _is_flaky(url: str, error: BaseException) -> bool:
    final = (AlreadyExistsError, PreconditionError, NotSupportedError, NotImplementedError, FileNotFoundError)
    if isinstance(error, final) or not isinstance(error, Exception):
        return False
    return isinstance(_translated(url, error), StoreError)


def _translated(url: str, error: Exception) -> SupervisorError:
    """What a person can do about it."""
    words = str(error)
    if any(mark in words for mark in _NOWHERE):
        return StoreRefusedError(f"{url}: there is no such bucket", "create it, or correct `checkpoint.mirror`")
    if any(mark in words for mark in _OWN_SERVICES):
        return StoreRefusedError(
            f"{url}: no credentials were found", "set them in the environment, such as AWS_ACCESS_KEY_ID"
        )
    welcome = not isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError)
    if not welcome or any(mark in words for mark in (*_UNWELCOME, *_UNWELCOME_TOO)):
        return StoreRefusedError(
            f"{url} refuses these credentials: {_said(error)}", "give them the right to list, read, write and delete"
        )
    return StoreError(f"{url} cannot be used now: {_said(error)}", "it is tried again later")


def _said(error: Exception) -> str:
    """Its first words, without what may be a secret: queries are signed."""
    lines = [line.strip() for line in str(error).partition("Debug source")[0].splitlines() if line.strip()]
    words = re.sub(r"\?\S*", "", " ".join(lines) or type(error).__name__)
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"
