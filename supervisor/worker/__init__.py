"""What training programs import; the only room where torch lives.

    from supervisor.worker import SupervisorCallback, resume_point

Importing this package imports neither torch nor transformers; asking it for the names does.
Without a supervisor both do nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supervisor.worker.callback import SupervisorCallback
    from supervisor.worker.resume import resume_point

__all__ = ["SupervisorCallback", "resume_point"]


def __getattr__(name: str) -> Any:
    if name == "SupervisorCallback":
        from supervisor.worker.callback import SupervisorCallback

        return SupervisorCallback
    if name == "resume_point":
        from supervisor.worker.resume import resume_point

        return resume_point
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
