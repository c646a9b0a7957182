"""Fair shares: who comes next when more is sent than a worker takes.

Owns the messages that wait for one worker's ring. Runs in ingress. What must stay true: a company
waits behind its own messages only, tiers share by weight, and what waits is bounded: beyond the
bound a message leaves its name alone, beyond twice the bound nothing.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from engine.contract.names import Tier
from engine.ingress.admission import Message

# Of a turn, which all others wait for: some tens of small messages.
ORDINARY_BYTES = 16 << 10  # of a message that is counted as one; larger ones fill a queue before their number does
NAME_BYTES = 512  # of a message that left its name alone, about
QUANTUM_BYTES = {Tier.FREE: 4 << 10, Tier.PRO: 8 << 10, Tier.ENTERPRISE: 16 << 10}


class FairQueue:
    """Deficit round robin over companies (Shreedhar and Varghese 1995), by bytes of message.

    Parameters
    ----------
    waiting_max
        Messages of one company that wait whole, if they are of an ordinary size; as many again wait as
        their names alone.
    """

    def __init__(self, waiting_max: int) -> None:
        self.waiting_max = waiting_max
        self.waiting_bytes_max = waiting_max * ORDINARY_BYTES
        self.count = 0
        self._companies: OrderedDict[str, deque[Message]] = OrderedDict()
        self._deficit: dict[str, int] = {}

    def put(self, message: Message) -> bool:
        """False: neither the message nor its name found a place."""
        company = message.envelope.company_id
        queue = self._companies.setdefault(company, deque())
        if len(queue) >= 2 * self.waiting_max:
            return False
        if len(queue) >= self.waiting_max or sum(each.size for each in queue) > self.waiting_bytes_max:
            message.overloaded = True
            message.envelope.ClearField("payload")
            message.size = NAME_BYTES
        queue.append(message)
        self.count += 1
        return True

    def is_full(self, company: str) -> bool:
        return len(self._companies.get(company, ())) >= 2 * self.waiting_max

    def take_while(self, accept: Callable[[Message], bool]) -> None:
        """Offers messages in fair order until all are gone or `accept` refuses one, which stays first."""
        while self._companies:
            company, queue = next(iter(self._companies.items()))
            deficit = self._deficit.get(company, 0)
            if deficit <= 0:
                deficit += QUANTUM_BYTES[Tier(queue[0].tier)]
            while queue and deficit > 0:
                if not accept(queue[0]):
                    self._deficit[company] = deficit
                    return
                deficit -= queue.popleft().size
                self.count -= 1
            if queue:
                self._deficit[company] = deficit
                self._companies.move_to_end(company)
            else:
                del self._companies[company]
                self._deficit.pop(company, None)

    def __iter__(self) -> Iterator[Message]:
        for queue in self._companies.values():
            yield from queue
