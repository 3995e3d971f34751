"""The process that asks the NVIDIA driver, so that nobody else hangs where the driver does.

    python -m supervisor.watch.gpu_sentinel NAME…

It writes a JSON object a line: `{"hello": …}` when it has been started; errors of a GPU as they happen; and for each
line that it reads, one `reading` and the `holders` of each GPU, then `{"over": …}`. A GPU on which it hangs is the one
whose reading does not come. It ends when its standard input does.

What this does not protect against: a driver that keeps this process from being killed. Then it stays until the
driver comes back or the machine is rebooted, and whoever started it goes on without.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import asdict
from typing import Any

#: Nobody waits for this to end: it is how often the driver is asked to wait again [s].
_WAIT_S = 60.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(names: list[str]) -> None:
    """Serve until standard input ends."""
    for signum in _SIGNALS:
        signal.signal(signum, signal.SIG_IGN)  # schedulers send them to every process; we end with our parent
    voice = _Voice()
    voice.say(hello=True)
    from supervisor.watch import nvml

    for request in sys.stdin:
        try:
            with nvml.session():
                asking = [threading.Thread(target=voice.tell, args=(name,), daemon=True) for name in names]
                for thread in asking:
                    thread.start()
                for thread in asking:
                    thread.join()
        except nvml.NvmlRefusedError as error:
            voice.say(refused=str(error))
        voice.say(over=request.strip())


class _Voice:
    """Standard output, for several threads: one of each GPU, since one that hangs must not silence the others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: set[str] = set()

    def say(self, **fields: Any) -> None:
        """One line; whole, whoever else speaks."""
        line = json.dumps(fields) + "\n"
        with self._lock:
            sys.stdout.write(line)
            sys.stdout.flush()

    def tell(self, name: str) -> None:
        """What the driver says of a GPU; from then on its errors are listened for."""
        from supervisor.watch import nvml

        listening = threading.Event()
        if name in self._heard:
            listening.set()
        else:
            self._heard.add(name)
            threading.Thread(target=self._listen, args=(name, listening), daemon=True).start()
        self.say(name=name, reading=asdict(nvml.read(name)))
        self.say(name=name, holders=[asdict(holder) for holder in nvml.holders(name)])
        listening.wait()  # whatever happens after the answer is heard

    def _listen(self, name: str, listening: threading.Event) -> None:
        from supervisor.watch import nvml

        try:
            with nvml.session():
                events = nvml.Events(name)
                listening.set()
                while True:
                    if (event := events.wait(_WAIT_S)) is not None:
                        self.say(name=name, event=event)
                        if "lost" in event:
                            return  # it would be said again at once, for ever
        except nvml.NvmlRefusedError as error:
            self.say(name=name, deaf=str(error))
        finally:
            listening.set()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BrokenPipeError:
        pass  # nobody listens any more
    os._exit(0)  # the library's own clean-up may wait for a thread that hangs in the driver
