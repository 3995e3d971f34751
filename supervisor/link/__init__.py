"""Leader and members over TCP: what a frame is, who may speak, and how a loss is noticed.

`wire` says what bytes mean, `handshake` who is who, `stream` moves bytes; `hub` is the leader's
side and `line` a member's. Neither blocks nor starts a thread: both are pumped by the one loop
that owns them, at least every `hub.PUMP_S`, and are quiet in between.

What it does not protect against: somebody who can read the network (nothing is encrypted), or
change packets on it (only the handshake is signed). The token keeps out everybody else.
"""
