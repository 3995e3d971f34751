"""What training programs import; the only room where torch lives.

    from supervisor.worker import SupervisorCallback, resume_point
    from supervisor.worker import Session, fitting_batch             # a loop of one's own on accelerate

Importing this package imports neither torch nor transformers; asking it for the names does.
Without a supervisor they change nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supervisor.worker.adapting import fitting_batch
    from supervisor.worker.callback import SupervisorCallback
    from supervisor.worker.resume import resume_point
    from supervisor.worker.session import Session

__all__ = ["Session", "SupervisorCallback", "fitting_batch", "resume_point"]


def __getattr__(name: str) -> Any:
    if name == "SupervisorCallback":
        from supervisor.worker.callback import SupervisorCallback

        return SupervisorCallback
    if name == "resume_point":
        from supervisor.worker.resume import resume_point

        return resume_point
    if name == "fitting_batch":
        from supervisor.worker.adapting import fitting_batch

        return fitting_batch
    if name == "Session":
        from supervisor.worker.session import Session

        return Session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
