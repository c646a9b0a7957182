"""Fair shares: who comes next when more is sent than a worker takes.

Owns the messages that wait for one worker's ring. Runs in ingress. What must stay true: a company
waits behind its own messages only, tiers share by weight, and what waits is bounded: beyond the
bound a message leaves its name alone, beyond twice the bound nothing.
"""

from collections import OrderedDict, deque
from collections.abc import Callable

from engine.contract.names import Tier
from engine.ingress.admission import Message

ORDINARY_BYTES = 4 << 10  # of a message that is counted as one; larger ones fill a queue before their number does
NAME_BYTES = 512  # of a message that left its name alone, about
# Of a turn, which all others wait for. A message costs 1 and each of its vectors 1, as it about does in the worker.
QUANTUM = {Tier.FREE: 2, Tier.PRO: 4, Tier.ENTERPRISE: 8}


class Waiting:
    """One company's."""

    __slots__ = ("bytes", "deficit", "messages", "quantum", "whole")

    def __init__(self, tier: int) -> None:
        self.messages: deque[Message] = deque()
        self.whole = 0  # of the messages, those that are more than their names
        self.bytes = 0
        self.quantum = QUANTUM[Tier(tier)]
        self.deficit = 0  # what is left of its turn, or what it owes


class FairQueue:
    """Deficit round robin over companies (Shreedhar and Varghese 1995). What a message costs is known once it
    was taken, so a turn may end in debt, which the next turns pay, with or without messages.

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
        self._companies: OrderedDict[str, Waiting] = OrderedDict()

    def put(self, message: Message) -> bool:
        """False: neither the message nor its name found a place."""
        company = message.envelope.company_id
        waiting = self._companies.get(company)
        if waiting is None:
            waiting = self._companies[company] = Waiting(message.tier)
        if self.is_full(company):
            return False
        if waiting.whole >= self.waiting_max or waiting.bytes > self.waiting_bytes_max:
            message.overloaded = True
            message.envelope.leave_name()
            message.size = NAME_BYTES
        waiting.messages.append(message)
        waiting.whole += not message.overloaded
        waiting.bytes += message.size
        self.count += 1
        return True

    def is_full(self, company: str) -> bool:
        waiting = self._companies.get(company)
        return waiting is not None and len(waiting.messages) >= 2 * self.waiting_max

    def has_room(self, company: str) -> bool:
        """Whether who can be asked to wait may send more of it: half of the bound is for who cannot."""
        waiting = self._companies.get(company)
        return waiting is None or (
            2 * len(waiting.messages) < self.waiting_max and 2 * waiting.bytes < self.waiting_bytes_max
        )

    def charge(self, company: str, vectors: int) -> None:
        """What a message was found to hold when it was taken."""
        waiting = self._companies.get(company)
        if waiting is not None:
            waiting.deficit -= vectors

    def take_while(self, accept: Callable[[Message], bool]) -> None:
        """Offers messages in fair order until all are gone or `accept` refuses one, which stays first."""
        while self._companies:
            company, waiting = next(iter(self._companies.items()))
            messages = waiting.messages
            if waiting.deficit <= 0:
                waiting.deficit += waiting.quantum
            while messages and waiting.deficit > 0:
                if not accept(messages[0]):
                    return
                waiting.deficit -= 1
                message = messages.popleft()
                waiting.whole -= not message.overloaded
                waiting.bytes -= message.size
                self.count -= 1
            if messages or waiting.deficit < 0:
                self._companies.move_to_end(company)
            else:
                del self._companies[company]
