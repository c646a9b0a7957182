"""The kafka process: Kafka to and from the two rings beside the way of a vector.

Owns its client's connections, the head of `kafka_in`, the tail of `kafka_out`, and what it knows of the
partitions. Reads answers from egress, writes records for ingress. What must stay true: its threads and the
waits of its library stay here, so that Kafka never delays a vector of another bus; a record leaves
`kafka_out` once Kafka confirmed it, so that a successor sends again what may be lost.
"""

import threading

from engine.child import Child
from engine.contract.names import Bus
from engine.kafka.intake import Intake
from engine.kafka.outlet import Outlet
from engine.shared import KAFKA, Phase

WAIT_MS = 10
WAIT_UNCONFIRMED_MS = 1  # delivery reports come through the library's queue, which rings no bell of ours


def run(child: Child) -> int:
    """Until the supervisor asks for the end: the outlet in this thread, the intake in one of its own."""
    bell = child.shared.bells[KAFKA.row]
    ending = threading.Event()
    intake, outlet = Intake(child, ending), Outlet(child)
    reading = threading.Thread(target=intake.run, name="intake", daemon=True)
    outlet.open()
    reading.start()
    child.ready()
    try:
        while not child.stopping():
            child.pulse(Phase.IDLE)
            child.bus_state(Bus.KAFKA, intake.up and outlet.up)
            if intake.broken is not None:
                raise intake.broken
            outlet.turn()
            wait_ms = WAIT_UNCONFIRMED_MS if outlet.unconfirmed else WAIT_MS
            bell.wait([outlet.ring], [outlet.position], "block", 0, wait_ms)
        return 0
    finally:
        ending.set()
        reading.join(2.0)
        outlet.close()
