"""A member that dies while the leader ends the attempt, since a rank of its was seen to die first."""

from __future__ import annotations

import time

from harness import until

from supervisor.engine.attempt import AttemptOrder, Start
from supervisor.engine.members.crew import Crew
from supervisor.engine.members.messages import Wanted
from supervisor.launch.command import Rendezvous
from supervisor.link.address import Address, new_token
from supervisor.link.hub import Hub
from supervisor.link.line import Line
from supervisor.policy.crew import together
from supervisor.policy.lifecycle import Gang

ORDERS = {"period": 1, "due_every": 0, "due_at": 0, "drain": 0, "taken": 0}


def test_a_node_that_is_lost_while_its_attempt_is_ended_is_lost_in_it_and_not_waited_for() -> None:
    token = new_token()
    hub = Hub("127.0.0.1", 0, token, {})
    crew = Crew(hub, 2, Wanted(run_id="r", epoch=1, token="t"), lambda theirs: None)
    line = Line(lambda: Address(*hub.address, token), {"node": 1, "host": "second"})

    def look() -> None:
        crew.look(time.monotonic())
        line.pump(time.monotonic())

    try:
        until(lambda: look() or line.joined, "member")
        order = AttemptOrder(number=1, lineage=0, rendezvous=Rendezvous("127.0.0.1", 1, 2), processes=1, start=Start())
        crew.begin(order, **ORDERS)
        crew.want(kill=True)
        line.close()
        until(lambda: crew.look(time.monotonic()) and crew.losses, "loss")
        assert [loss.host for loss in crew.losses] == ["second"]
        assert together([Gang.GONE, *crew.gangs()], lost=True, killing=True) is Gang.GONE
        crew.close_attempt()
        assert crew.losses == []
    finally:
        hub.close()
