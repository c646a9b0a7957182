"""Fair shares: whose turn it is, what a flood costs its sender and nobody else, and what waits at most."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.contract.names import Tier
from engine.ingress.admission import Message
from engine.ingress.queues import QUANTUM, FairQueue
from tests.ingress.stand import Sender, message, vector


def made(company: str, sequence: int = 1, tier: Tier = Tier.PRO, size: int = 1000) -> Message:
    return message(Sender(company).batch(vector(), sequence=sequence), tier=tier, size=size)


def name(each: Message) -> tuple[str, int]:
    return each.envelope.company_id, each.envelope.sequence


def taken(queue: FairQueue, most: int, vectors: int = 1) -> list[Message]:
    """The next ones, as far as there is room for `most`; each was found to hold so many vectors."""
    out: list[Message] = []

    def accept(each: Message) -> bool:
        if len(out) == most:
            return False
        out.append(each)
        queue.charge(each.envelope.company_id, each.vectors or vectors)
        return True

    queue.take_while(accept)
    return out


def test_the_next_message_of_a_quiet_company_waits_for_one_turn_of_a_flood() -> None:
    queue = FairQueue(100_000)
    for sequence in range(2_000):
        queue.put(made("flood", sequence))
    queue.put(made("quiet"))
    turn = QUANTUM[Tier.PRO] // 2  # a message and its vector cost 1 each
    out = [name(each)[0] for each in taken(queue, 2 * turn)]
    assert out.index("quiet") == turn


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from("abc"), st.sampled_from(list(Tier)), st.integers(1, 64)),
            st.just("quiet"),
            st.integers(1, 30),
        ),
        max_size=150,
    )
)
def test_whatever_others_send_a_quiet_companys_next_vector_is_taken_after_a_turn_of_each(moves: list) -> None:
    """Turns end in debt by one message at most, and what one owes it pays before its next."""
    queue, tiers = FairQueue(200), {}
    before: dict[str, int] = {}  # vectors of each other company taken since the quiet one's vector came
    waiting = 0

    def look(out: list[Message]) -> None:
        nonlocal waiting
        for each in out:
            if each.envelope.company_id == "quiet":
                bound = {company: QUANTUM[tiers[company]] + 64 for company in before}
                assert all(before[company] <= bound[company] for company in before), (before, bound)
                waiting -= 1
                before.clear()
            elif waiting:
                before[each.envelope.company_id] = before.get(each.envelope.company_id, 0) + each.vectors

    for sequence, move in enumerate(moves):
        if isinstance(move, int):
            look(taken(queue, move))
        elif move == "quiet":
            if waiting == 0:  # one that sends more than its share waits for itself
                assert queue.put(made("quiet", sequence))
                waiting = 1
        else:
            company, tier, vectors = move
            each = made(company, sequence, tiers.setdefault(company, tier))
            each.vectors = vectors
            queue.put(each)
    look(taken(queue, 10_000))
    assert (queue.count, waiting) == (0, 0)


@pytest.mark.parametrize("vectors", [1, 7, 64])
def test_tiers_share_by_weight_whatever_the_messages_hold(vectors: int) -> None:
    queue = FairQueue(100_000)
    for sequence in range(2_000):
        for tier in Tier:
            queue.put(made(tier.name, sequence, tier))
    shares = Counter(name(each)[0] for each in taken(queue, 3_000, vectors))
    assert shares["PRO"] / shares["FREE"] == pytest.approx(2, rel=0.1)
    assert shares["ENTERPRISE"] / shares["FREE"] == pytest.approx(4, rel=0.1)


def test_companies_of_a_tier_share_vectors_alike_though_their_messages_differ() -> None:
    queue = FairQueue(100_000)
    for sequence in range(3_000):
        for company, vectors in (("ones", 1), ("tens", 10)):
            each = made(company, sequence)
            each.vectors = vectors
            queue.put(each)
    out = taken(queue, 3_000)
    cost = {company: sum(1 + each.vectors for each in out if name(each)[0] == company) for company in ("ones", "tens")}
    assert cost["ones"] == pytest.approx(cost["tens"], rel=0.1)


def test_a_debt_is_paid_before_the_next_turn_though_the_queue_was_empty_meanwhile() -> None:
    queue = FairQueue(100_000)
    for sequence in range(1_000):
        queue.put(made("ones", sequence))
    out: list[Message] = []
    for sequence in range(20):  # whose queue is empty after each of its messages
        large = made("large", sequence)
        large.vectors = 64
        queue.put(large)
        out += taken(queue, 10)
    cost = {
        company: sum(1 + (each.vectors or 1) for each in out if name(each)[0] == company)
        for company in ("ones", "large")
    }
    assert cost["large"] <= cost["ones"] + 65
    assert cost["ones"] > 65


def test_who_can_be_asked_to_wait_is_asked_when_half_of_the_bound_is_taken() -> None:
    queue = FairQueue(4)
    assert queue.has_room("acme")
    queue.put(made("acme", 1))
    assert queue.has_room("acme")
    queue.put(made("acme", 2))
    assert (queue.has_room("acme"), queue.has_room("other")) == (False, True)
    taken(queue, 1)
    assert queue.has_room("acme")


def test_beyond_the_bound_a_name_alone_waits_in_its_turn_and_beyond_twice_the_bound_nothing() -> None:
    queue = FairQueue(3)
    assert [queue.put(made("flood", sequence)) for sequence in range(8)] == [True] * 6 + [False] * 2
    assert queue.is_full("flood")
    assert queue.put(made("quiet"))
    assert not queue.is_full("quiet")
    assert queue.count == 7
    everyone = taken(queue, 100)
    out = [each for each in everyone if name(each)[0] == "flood"]
    assert [(name(each)[1], each.overloaded) for each in out] == [(n, n >= 3) for n in range(6)]
    assert [len(each.envelope.payload) > 0 for each in out] == [True] * 3 + [False] * 3
    assert [len(each.envelope.payload) > 0 for each in everyone if name(each)[0] == "quiet"] == [True]
    assert queue.count == 0
    assert queue.put(made("flood"))


def test_a_message_that_finds_no_room_stays_first() -> None:
    queue = FairQueue(10)
    queue.put(made("a", 1))
    queue.put(made("a", 2))
    queue.put(made("b", 1))
    assert taken(queue, 0) == []
    assert [name(each) for each in taken(queue, 1)] == [("a", 1)]
    assert queue.count == 2
    assert [name(each) for each in taken(queue, 9)] == [("a", 2), ("b", 1)]


def test_what_a_company_owes_ends_with_its_queue_and_leaves_nothing_behind() -> None:
    queue = FairQueue(10)
    for number in range(1000):
        queue.put(made(f"company-{number}", size=250_000))
    assert len(taken(queue, 1000)) == 1000
    assert queue._companies == {}


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from("abc"), st.sampled_from(list(Tier)), st.sampled_from([1, 500, 20_000, 262_144])),
            st.integers(0, 6),
        ),
        max_size=80,
    )
)
def test_everything_put_comes_out_exactly_once_in_its_companys_order(moves: list) -> None:
    queue, put, out = FairQueue(5), [], []
    for sequence, move in enumerate(moves):
        if isinstance(move, int):
            out += taken(queue, move)
            continue
        each = made(move[0], sequence, move[1], move[2])
        if queue.put(each):
            put.append(name(each))
        assert queue.count == len(put) - len(out) <= 3 * 10
    out += taken(queue, 1000)
    assert queue.count == 0
    for company in "abc":
        assert [name(each) for each in out if name(each)[0] == company] == [each for each in put if each[0] == company]


def test_large_messages_fill_a_companys_queue_before_their_number_does() -> None:
    queue = FairQueue(8)
    large = queue.waiting_bytes_max // 2 + 1
    messages = [made("acme", sequence, size=large) for sequence in range(1, 4)]
    assert all(queue.put(each) for each in messages)
    assert [each.overloaded for each in messages] == [False, False, True]
    assert messages[2].size < 1000
