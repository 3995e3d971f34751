"""A program that swallows what training raises, and returns as if all were well."""

from __future__ import annotations

import contextlib

import tiny_trainer


class Quits(tiny_trainer.Trace):
    """Stops training in its third step."""

    def on_step_end(self, args, state, control, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super().on_step_end(args, state, control, **kwargs)
        if state.global_step == 3:
            raise RuntimeError("no more")


if __name__ == "__main__":
    tiny_trainer.Trace = Quits  # type: ignore[misc]
    with contextlib.suppress(RuntimeError):
        tiny_trainer.main()
