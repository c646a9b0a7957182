"""Reports about messages that became no answer: bad bytes, bad tokens, stale epochs.

Owns the allowance of reports a second. Runs in ingress, writes the `rejections` ring for egress. What
must stay true: a flood of junk costs a bounded number of reports, and the rest is counted and told.
"""

from engine import limits
from engine.contract.names import Reason
from engine.errors import Refused
from engine.ingress.admission import Claimed
from engine.shared import Count
from fastpath.ring import Ring


class Reports:
    """Writes report slots, at most `per_second` in any second.

    Parameters
    ----------
    ring
        Of `report_slot`.
    counters
        `child_row.counters` of this process.
    """

    def __init__(self, ring: Ring, counters: memoryview, per_second: int) -> None:
        self.ring = ring
        self.counters = counters
        self.per_second = per_second
        self._left = per_second
        self._untold = 0

    def report(self, about: Claimed, refused: Refused) -> None:
        self.counters[Count.UNVERIFIED] += 1
        if self._left == 0 or not self._write(about, refused):
            self._untold += 1
            self.counters[Count.UNVERIFIED_UNREPORTED] += 1
            return
        self._left -= 1

    def second_passed(self) -> bool:
        """A new allowance, and one line about what the last one did not cover. True: it waits in the ring."""
        self._left = self.per_second
        if self._untold == 0:
            return False
        sentence = f"{self._untold} further messages were refused in the last second and are not reported one by one"
        if not self._write(Claimed(), Refused(Reason.OVERLOADED, sentence)):
            return False
        self._untold = 0
        return True

    def _write(self, about: Claimed, refused: Refused) -> bool:
        position = self.ring.claim(1)
        if position < 0:
            return False
        slot = self.ring.slots[position & self.ring.mask]
        slot["epoch"], slot["sequence"], slot["reason"] = about.epoch, about.sequence, refused.reason
        slot["company"], slot["stream"] = about.company.encode(), about.stream.encode()
        slot["detail"] = refused.detail.encode()[: limits.DETAIL_BYTES_MAX]
        slot["correlation"] = about.correlation.encode()[: limits.CORRELATION_ID_BYTES_MAX]
        self.ring.publish(position + 1)
        return True
