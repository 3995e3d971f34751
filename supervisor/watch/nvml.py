"""The door to the NVIDIA driver. Every call here can hang on a sick one.

So whoever must not wait asks through `gpu_health`, which does it in a process of its own. An error of the driver is
an answer as well: it says that a GPU is lost, that it needs a reset, or that this is not known.

What this does not protect against: a driver whose library differs from the kernel's part after an update; then
nothing is known until the machine is rebooted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import pynvml

from supervisor.policy.gpu_health import Holder, Reading

T = TypeVar("T")

#: What the driver is asked to report as it happens.
_EVENTS = (pynvml.nvmlEventTypeXidCriticalError, pynvml.nvmlEventTypeGpuUnavailableError)
_GPU_RESET = 1  # of NVML_FI_DEV_GET_GPU_RECOVERY_ACTION


@contextmanager
def session() -> Iterator[None]:
    """Open the driver's library.

    Raises:
        NvmlRefusedError: there is none, or it does not work.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NvmlRefusedError(words_of(error)) from error
    try:
        yield
    finally:
        try:
            pynvml.nvmlShutdown()
        except pynvml.NVMLError:
            pass  # nothing depends on it


class NvmlRefusedError(Exception):
    """The driver cannot be asked; the text says why, in its own words."""


def words_of(error: Any) -> str:
    """A driver's error in its own words."""
    return f"NVML: {error}"


def count() -> int | None:
    """How many GPUs the driver knows; None where it cannot be asked."""
    try:
        with session():
            return int(pynvml.nvmlDeviceGetCount())
    except (NvmlRefusedError, pynvml.NVMLError):
        return None


def read(name: str) -> Reading:
    """What the driver says of one GPU; within a `session`.

    Args:
        name: a number, or what CUDA_VISIBLE_DEVICES may hold else: a GPU's or a MIG device's identifier.

    The recovery action sums up what the driver knows of a GPU's faults; older drivers do not have it.
    """
    number = int(name) if name.isdigit() else None
    blank = Reading(name=name, index=number)
    try:
        handle = _handle(name)
    except pynvml.NVMLError as error:
        return _with_error(blank, error)
    found = blank
    for ask in (_named, _recovery, _rows, _ecc):
        try:
            found = replace(found, **ask(handle))
        except pynvml.NVMLError as error:
            found = _with_error(found, error)
    return found


def _with_error(reading: Reading, error: Any) -> Reading:
    if error.value == pynvml.NVML_ERROR_GPU_IS_LOST:
        return replace(reading, lost=True)
    if error.value == pynvml.NVML_ERROR_RESET_REQUIRED:
        return replace(reading, recovery=reading.recovery or _GPU_RESET)
    return replace(reading, error=reading.error or words_of(error))


def _handle(name: str) -> Any:
    """Of a GPU; of the one that a MIG device is a part of.

    Source: CUDA_VISIBLE_DEVICES in NVIDIA's CUDA programming guide: a prefix of an identifier will do; the older
    names of MIG devices are MIG-<the GPU's identifier>/<instance>/<instance>.
    """
    if name.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(name))
    if name.startswith("MIG-") and not name.startswith("MIG-GPU-"):
        return pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(pynvml.nvmlDeviceGetHandleByUUID(name))
    prefix = name.removeprefix("MIG-").partition("/")[0]
    for index in range(pynvml.nvmlDeviceGetCount()):
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        if pynvml.nvmlDeviceGetUUID(handle).startswith(prefix):
            return handle
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)


def _named(handle: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"uuid": str(pynvml.nvmlDeviceGetUUID(handle)), "index": pynvml.nvmlDeviceGetIndex(handle)}
    bus = _maybe(lambda: pynvml.nvmlDeviceGetPciInfo(handle).busId)
    return {**found, "bus": str(bus).lower() if bus is not None else None}


def _recovery(handle: Any) -> dict[str, Any]:
    value = pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])[0]
    if value.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(value.nvmlReturn)
    return {"recovery": int(value.value.uiVal)}


def _rows(handle: Any) -> dict[str, Any]:
    rows = _maybe(lambda: pynvml.nvmlDeviceGetRemappedRows(handle))
    return {} if rows is None else {"remap_pending": bool(rows[2]), "remap_failed": bool(rows[3])}


def _ecc(handle: Any) -> dict[str, Any]:
    kind, since_load = pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
    count = _maybe(lambda: pynvml.nvmlDeviceGetTotalEccErrors(handle, kind, since_load))
    return {} if count is None else {"uncorrected": int(count)}


#: What many GPUs do not have at all; it says nothing about this one.
_ABSENT = (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND, pynvml.NVML_ERROR_NO_PERMISSION)


def _maybe(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except pynvml.NVMLError as error:
        if error.value in _ABSENT:
            return None
        raise


def holders(name: str) -> list[Holder]:
    """Processes that hold memory of a GPU; none where the driver does not tell. Within a `session`."""
    try:
        handle = _handle(name)
        index = int(pynvml.nvmlDeviceGetIndex(handle))
        running = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except pynvml.NVMLError:
        return []
    return [Holder(pid=int(one.pid), used_bytes=one.usedGpuMemory, gpu=index) for one in running]


def use_of(gpus: Sequence[str]) -> list[int | None]:
    """How busy each GPU was in the last moments [%]; None where the driver does not tell.

    Args:
        gpus: as `read` takes them.
    """
    try:
        with session():
            return [_use(name) for name in gpus]
    except NvmlRefusedError:
        return [None] * len(gpus)


def _use(name: str) -> int | None:
    try:
        return int(pynvml.nvmlDeviceGetUtilizationRates(_handle(name)).gpu)
    except pynvml.NVMLError:
        return None


class Events:
    """Errors of one GPU, as they happen. Within a `session`.

    Raises:
        NvmlRefusedError: the driver reports none for it.
    """

    def __init__(self, name: str) -> None:
        try:
            handle = _handle(name)
            supported = pynvml.nvmlDeviceGetSupportedEventTypes(handle)
            wanted = sum(kind for kind in _EVENTS if kind & supported)
            if not wanted:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            self._set = pynvml.nvmlEventSetCreate()
            pynvml.nvmlDeviceRegisterEvents(handle, wanted, self._set)
        except pynvml.NVMLError as error:
            raise NvmlRefusedError(words_of(error)) from error

    def wait(self, timeout_s: float) -> dict[str, Any] | None:
        """The next one: ``{"xid": code}`` or ``{"lost": True}``; None if there was none.

        Raises:
            NvmlRefusedError: nothing more will be heard.
        """
        try:
            event = pynvml.nvmlEventSetWait_v2(self._set, int(timeout_s * 1000))
        except pynvml.NVMLError as error:
            if error.value == pynvml.NVML_ERROR_TIMEOUT:
                return None
            if error.value == pynvml.NVML_ERROR_GPU_IS_LOST:
                return {"lost": True}
            raise NvmlRefusedError(words_of(error)) from error
        if event.eventType == pynvml.nvmlEventTypeXidCriticalError:
            return {"xid": int(event.eventData)}
        return {"lost": True}
