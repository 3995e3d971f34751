"""One end of a link as a process of its own: `python link_end.py hub HOST PORT TOKEN`, or `line NODE HOST PORT TOKEN`.

Prints a line for each event, with the time: `ready PORT`, `Joined 1 12.345`, `Lost 1 13.456 silent for 4.0 s`.
"""

from __future__ import annotations

import select
import sys
import time

from supervisor.link.address import Address
from supervisor.link.events import Heard, Joined, Lost, Refused
from supervisor.link.hub import PUMP_S, Hub
from supervisor.link.line import Line
from supervisor.link.wire import Frame

STATE_S = 0.5


def main() -> None:
    what, *given, host, port, token = sys.argv[1:]
    key = bytes.fromhex(token)
    end: Hub | Line
    if what == "hub":
        end = Hub(host, int(port), key, {})
        print("ready", end.address[1], flush=True)
    else:
        end = Line(lambda: Address(host, int(port), key), {"node": int(given[0])})
    said_s = 0.0
    while True:
        now_s = time.monotonic()
        for event in end.pump(now_s):
            match event:
                case Joined(node):
                    print("Joined", node, now_s, flush=True)
                case Lost(node, reason) | Refused(node, reason):
                    print("Lost", node, now_s, reason, flush=True)
                case Heard(node, frame):
                    print("Heard", node, now_s, frame.fields["n"], flush=True)
        if now_s - said_s > STATE_S:
            said_s = now_s
            for node in end.nodes if isinstance(end, Hub) else ():
                end.send(node, Frame("plan", {"n": now_s}))
            if isinstance(end, Line):
                end.send(Frame("state", {"n": now_s, "text": "x" * 300}))
        select.select([end.fd], [], [], PUMP_S)


if __name__ == "__main__":
    main()
