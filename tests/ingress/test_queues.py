"""Fair shares: whose turn it is, what a flood costs its sender and nobody else, and what waits at most."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.contract.names import Tier
from engine.ingress.admission import Message
from engine.ingress.queues import QUANTUM_BYTES, FairQueue
from tests.ingress.stand import Sender, message, vector


def made(company: str, sequence: int = 1, tier: Tier = Tier.PRO, size: int = 1000) -> Message:
    return message(Sender(company).batch(vector(), sequence=sequence), tier=tier, size=size)


def name(each: Message) -> tuple[str, int]:
    return each.envelope.company_id, each.envelope.sequence


def taken(queue: FairQueue, most: int) -> list[Message]:
    """The next ones, as far as there is room for `most`."""
    out: list[Message] = []

    def accept(each: Message) -> bool:
        if len(out) == most:
            return False
        out.append(each)
        return True

    queue.take_while(accept)
    return out


def test_the_next_message_of_a_quiet_company_waits_for_one_turn_of_a_flood() -> None:
    queue = FairQueue(100_000)
    for sequence in range(2_000):
        queue.put(made("flood", sequence))
    queue.put(made("quiet"))
    turn = QUANTUM_BYTES[Tier.PRO] // 1000 + 1
    out = [name(each)[0] for each in taken(queue, 2 * turn)]
    assert out.index("quiet") == turn


@pytest.mark.parametrize("size", [500, 5_000, 40_000])
def test_tiers_share_by_weight_whatever_the_messages_sizes(size: int) -> None:
    queue = FairQueue(100_000)
    total = 40 * max(1, 100_000 // size)
    for sequence in range(total):
        for tier in Tier:
            queue.put(made(tier.name, sequence, tier, size))
    shares = Counter(name(each)[0] for each in taken(queue, total // 2))
    assert shares["PRO"] / shares["FREE"] == pytest.approx(2, rel=0.1)
    assert shares["ENTERPRISE"] / shares["FREE"] == pytest.approx(4, rel=0.1)


def test_companies_of_a_tier_share_alike_though_their_messages_differ_in_size() -> None:
    queue = FairQueue(100_000)
    for sequence in range(2_000):
        queue.put(made("small", sequence, size=500))
        queue.put(made("large", sequence, size=5_000))
    out = taken(queue, 1_500)
    sizes = {company: sum(each.size for each in out if name(each)[0] == company) for company in ("small", "large")}
    assert sizes["small"] == pytest.approx(sizes["large"], rel=0.1)


def test_beyond_the_bound_a_name_alone_waits_in_its_turn_and_beyond_twice_the_bound_nothing() -> None:
    queue = FairQueue(3)
    assert [queue.put(made("flood", sequence)) for sequence in range(8)] == [True] * 6 + [False] * 2
    assert queue.is_full("flood")
    assert queue.put(made("quiet"))
    assert not queue.is_full("quiet")
    assert queue.count == 7
    kept = list(queue)
    assert [len(each.envelope.payload) > 0 for each in kept] == [True] * 3 + [False] * 3 + [True]
    out = [each for each in taken(queue, 100) if name(each)[0] == "flood"]
    assert [(name(each)[1], each.overloaded) for each in out] == [(n, n >= 3) for n in range(6)]
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
    assert (queue._companies, queue._deficit) == ({}, {})


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
