"""From what the models said to answers: prices and intervals, patterns, direction, the vote, the trend.

Owns the arithmetic of an answer; run by workers in slot order, after the models. Reads slots, the
microbatch's arrays, the versions' constants; writes answer slots, and into windows what was predicted
in each minute and how wide its intervals are. What must stay true: probabilities lie in [0, 1],
those of the direction sum to one, a price lies within its interval, a member that has not its closed
minutes yet is left out and never guessed.
"""

from typing import Annotated

import numpy as np

from engine.contract.names import HORIZON_MINUTES

# isort: off
from engine.inference.batch import (
    DIRECTION, ENSEMBLE, IMAGE_MINUTES, MASKED, MODEL, NOBODY, PASS, PATTERN, PRICE, ROLES, SUBSTITUTE, Table,
)  # fmt: skip

# isort: on
from engine.inference.features import MASK
from engine.inference.geometry import scale, shape_of, smoothed, touch_chance, turns
from engine.inference.intervals import begin_offsets, offsets_at
from engine.inference.jit import kernel
from fastpath import layout

HORIZONS = layout.horizons
PATTERNS = layout.patterns_max
MINUTES = np.array(HORIZON_MINUTES, "u2")
ROOTS = np.sqrt(np.array(HORIZON_MINUTES, "f8"))

OK, DEGRADED, WARMING, EXPIRED, REJECTED = range(1, 6)  # names.Status
SELL, HOLD, BUY = range(1, 4)  # names.Signal

# The baseline: what is known without any model.
BASE_Q = 1.47  # of a 90 % interval around the present mid, in sigma sqrt(h)
WIDER = 1.25  # a baseline's interval, because it stands in for a model
BASE_RATES = np.array([0.3, 0.4, 0.3])  # of the 15-minute label: sell, hold, buy
UNMOVED = 0.03  # chance that a mid is the same a minute later
PATTERN_SHOWN = 0.3
FAR = 1.0  # of a predicted log return: only absurd prices come near it, and they stay finite
TREND_FULL = 4.0  # standard deviations of the slope at which a trend's strength is 1


class Book(Table):
    """Constants of each version, from its manifest, by row of the version table; rows of the vote and the baseline."""

    q: Annotated[np.ndarray, "f8", HORIZONS]
    weight: Annotated[np.ndarray, "f8"]  # in a vote
    touch: Annotated[np.ndarray, "f8"]  # that the 15-minute label is not HOLD, as price models take it
    side: Annotated[np.ndarray, "f8"]  # slope from a price model's logit of a rise in 15 minutes to that of BUY
    label_rates: Annotated[np.ndarray, "f8", (3, 3)]  # of sell, hold, buy on the label, given the pattern's signal
    rise_rates: Annotated[np.ndarray, "f8", 3]  # chance that the next minute rises, given the pattern's signal
    touch_bias: Annotated[np.ndarray, "f8", PATTERNS]  # added to a random walk's log odds of touching the target
    touch_slope: Annotated[np.ndarray, "f8"]  # by which those are multiplied before
    shap_count: Annotated[np.ndarray, "i8"]  # features and the bias; 0: none

    def __init__(self, versions: int, vote: int, baseline: int) -> None:
        super().__init__(versions)
        self.vote, self.baseline = vote, baseline


class Extras(Table):
    """What each plan gets, by its row."""

    horizons: Annotated[np.ndarray, "u1"]
    direction: Annotated[np.ndarray, "u1"]
    importance: Annotated[np.ndarray, "u1"]
    stacked: Annotated[np.ndarray, "u1"]  # an ensemble model is to decide, else the vote


@kernel
def _head(slot, answer, position, taken_ns):
    answer.request = position
    answer.input = slot.input
    answer.record = slot.record
    answer.event_ns = slot.event_ns
    answer.taken_ns = taken_ns
    answer.flags = slot.flags
    answer.window_gaps = slot.window_gaps
    answer.index = slot.index
    answer.count = slot.count
    answer.reason = slot.reason
    answer.kind = slot.kind
    answer.tier = slot.tier
    answer.symbol_bytes = slot.symbol_bytes
    answer.symbol[:] = slot.symbol
    answer.status = REJECTED if slot.reason != 0 else 0


@kernel
def _price(answer, entry, log_q, book, said, horizons):
    """Medians and intervals; `entry` keeps those of a model, whatever the tier may see of them."""
    nobody = said.who[PRICE] == NOBODY or said.who[PRICE] == MASKED
    version = said.version[PRICE]
    answer.horizon_count = horizons
    for h in range(HORIZONS):
        sd = entry.sigma * ROOTS[h] * 1e-4
        if nobody:
            price, rise, half = entry.mid, 0.5, BASE_Q * sd * entry.mid
            entry.predicted[h], entry.half[h] = np.nan, np.nan
            wide = half * WIDER
        else:
            price = entry.mid * np.exp(min(max(said.move[h] * sd, -FAR), FAR))
            rise, half = said.rise[h], book[version].q[h] * np.exp(log_q[h]) * sd * entry.mid
            entry.predicted[h], entry.half[h] = price, half
            wide = half
        if h < horizons:
            answer.horizon_minutes[h] = MINUTES[h]
            answer.price[h] = price
            answer.lower[h] = max(price - wide, 0.0)
            answer.upper[h] = price + wide
            answer.horizon_direction[h] = BUY if rise > 0.5 else SELL
            answer.horizon_confidence[h] = max(rise, 1.0 - rise)


@kernel
def _patterns(answer, own, book, said):
    """The shown ones, the likeliest first; it decides the signal."""
    answer.pattern_signal = HOLD
    if said.who[PATTERN] == MASKED or said.who[PATTERN] == NOBODY:
        return
    answer.has_pattern = 1
    count = 0
    for k in range(PATTERNS):
        if said.pattern[k] > PATTERN_SHOWN:
            at = count
            while at > 0 and said.pattern[k] > said.pattern[answer.pattern_type[at - 1] - 1]:
                answer.pattern_type[at] = answer.pattern_type[at - 1]
                at -= 1
            answer.pattern_type[at] = k + 1
            count += 1
    answer.pattern_count = count
    if count > 0:
        _targets(answer, own, book[said.version[PATTERN]], said.pattern)


@kernel
def _targets(answer, own, version, chances):
    """What the shown patterns point to, from each one's own geometry."""
    path, mid, sigma = own.path, own.entry.mid, own.entry.sigma
    level, smooth, places = np.empty(IMAGE_MINUTES), np.empty(IMAGE_MINUTES), np.empty(IMAGE_MINUTES, np.int64)
    scale(path, level)
    smoothed(level, smooth)
    turned = turns(smooth, places)
    reach = path.max() - path.min()
    for n in range(answer.pattern_count):
        k = answer.pattern_type[n] - 1
        way, height, span = shape_of(k, level, smooth, places, turned)
        answer.pattern_probability[n] = chances[k]
        answer.pattern_chance[n] = touch_chance(
            version.touch_bias[k], version.touch_slope, height * reach, span, mid, sigma
        )
        answer.pattern_minutes[n] = span
        answer.pattern_target[n] = max(mid + way * height * reach, 0.0)
        if n == 0:
            answer.pattern_signal = BUY if way > 0 else SELL
            answer.pattern_confidence = answer.pattern_chance[0]


@kernel
def _direction(answer, book, said, importance):
    if said.who[DIRECTION] == MASKED:
        return
    answer.has_direction = 1
    nobody = said.who[DIRECTION] == NOBODY
    version = said.version[DIRECTION]
    sell, buy = said.direction[0], said.direction[2]
    if nobody:
        sell, buy = BASE_RATES[0], BASE_RATES[2]
    hold = max(1.0 - sell - buy, 0.0)
    answer.sell, answer.hold, answer.buy = sell, hold, buy
    answer.primary = HOLD
    if not nobody and max(sell, buy) > hold:
        answer.primary = BUY if buy > sell else SELL
    answer.direction_confidence = max(sell, hold, buy)
    answer.direction_version = version
    if importance != 0 and not nobody:
        answer.shap_count = book[version].shap_count
        for n in range(book[version].shap_count):
            answer.shap[n] = said.shap[n]


@kernel
def tempered(chance, slope):
    """The chance whose logit is `slope` times as large."""
    up, down = chance**slope, (1.0 - chance) ** slope
    return up / (up + down)


@kernel
def _opinion(role, answer, version, said, chances):
    """A member's sell, hold, buy chances on the 15-minute label, or on the next minute's sign (free tier)."""
    near = answer.tier == 1
    chances[:] = BASE_RATES
    if near:
        chances[0], chances[1], chances[2] = 0.5 - UNMOVED / 2, UNMOVED, 0.5 - UNMOVED / 2
    if said.who[role] == NOBODY:
        return HOLD
    if role == PRICE:
        rise = said.rise[0]
        if not near:
            chances[1] = 1.0 - version.touch
            rise = tempered(said.rise[2], version.side)
        moves = 1.0 - chances[1]
        chances[0], chances[2] = (1.0 - rise) * moves, rise * moves
    elif role == DIRECTION:
        chances[:] = said.direction
    else:
        signal = answer.pattern_signal
        if near:
            rise = version.rise_rates[signal - 1]
            chances[0], chances[2] = (1.0 - rise) * (1.0 - UNMOVED), rise * (1.0 - UNMOVED)
        else:
            chances[:] = version.label_rates[signal - 1]
        return signal
    if not near and chances[1] >= max(chances[0], chances[2]):
        return HOLD
    return BUY if chances[2] > chances[0] else SELL


@kernel
def _vote(answer, book, vote, baseline, said, chances, total):
    """The members' chances, weighted; who is masked or stood in for by the baseline has no weight."""
    total[:] = 0.0
    weights, count, answered = 0.0, 0, 0
    for role in range(ROLES):
        if said.who[role] == MASKED or (role == DIRECTION and answer.has_direction == 0):
            continue
        nobody = said.who[role] == NOBODY
        signal = _opinion(role, answer, book[said.version[role]], said, chances)
        version = baseline if nobody else said.version[role]
        weight = 0.0 if nobody else book[version].weight
        answer.contribution_version[count] = version
        answer.contribution_signal[count] = signal
        answer.contribution_confidence[count] = chances[signal - 1]
        answer.contribution_fallback[count] = 1 if said.who[role] >= SUBSTITUTE else 0
        answer.weight[count] = weight
        weights += weight
        total += weight * chances
        answered += 0 if nobody else 1
        count += 1
    answer.contribution_count = count
    answer.model_count = answered
    if weights == 0.0:
        answer.final_version = baseline
        answer.ensemble_signal = HOLD
        answer.ensemble_confidence = UNMOVED if answer.tier == 1 else BASE_RATES[1]
        return
    total /= weights
    for n in range(count):
        answer.weight[n] /= weights
    answer.final_version = vote
    signal = BUY if total[2] > total[0] else SELL
    if answer.tier != 1 and total[1] >= max(total[0], total[2]):
        signal = HOLD
    answer.ensemble_signal = signal
    answer.ensemble_confidence = total[signal - 1]
    answer.ensemble_score = total[2] - total[0]


@kernel
def _stack(answer, said):
    """The ensemble model's decision in place of the vote's, or the vote's own, marked as standing in.

    Whoever decides is the last contribution; it has no weight, since it takes no part in the vote.
    """
    count = answer.contribution_count
    answer.contribution_fallback[count] = 1
    if said.who[ENSEMBLE] == MODEL or said.who[ENSEMBLE] == SUBSTITUTE:
        sell, hold, buy = said.final[0], said.final[1], said.final[2]
        signal = BUY if buy > sell else SELL
        if hold >= max(sell, buy):
            signal = HOLD
        answer.final_version = said.version[ENSEMBLE]
        answer.model_count += 1
        answer.ensemble_signal = signal
        answer.ensemble_confidence = said.final[signal - 1]
        answer.ensemble_score = buy - sell
        answer.contribution_fallback[count] = 1 if said.who[ENSEMBLE] == SUBSTITUTE else 0
    answer.contribution_version[count] = answer.final_version
    answer.contribution_signal[count] = answer.ensemble_signal
    answer.contribution_confidence[count] = answer.ensemble_confidence
    answer.contribution_count = count + 1


@kernel
def _trend(answer, trend):
    answer.trend_signal = HOLD if trend == 0.0 else (BUY if trend > 0.0 else SELL)
    answer.trend_strength = min(abs(trend) / TREND_FULL, 1.0)


@kernel
def _status(gets, said):
    status = OK
    for role in range(ROLES + 1):
        if (role == DIRECTION and gets.direction == 0) or (role == ENSEMBLE and gets.stacked == 0):
            continue
        if said.who[role] == MASKED:
            return WARMING
        if said.who[role] >= SUBSTITUTE:
            status = DEGRADED
    return status


@kernel
def combine(requests, mask, first, count, verdicts, windows, answers, raw_answers, answer_mask, answer_first, taken_ns,
            batch, output, book, vote, baseline, extras):  # fmt: skip
    """Each slot's answer, in slot order, because a slot's intervals follow from predictions before it."""
    log_q, chances, total = np.zeros(HORIZONS), np.zeros(3), np.zeros(3)
    for i in range(count):
        slot, own, said = requests[(first + i) & mask], batch[i], output[i]
        at = (answer_first + i) & answer_mask
        raw_answers[at, :] = 0
        answer = answers[at]
        _head(slot, answer, first + i, taken_ns)
        if verdicts[i] == PASS:
            continue
        entries = windows[slot.key]
        step, depth = own.step, own.depth
        kept, entry = entries[step & MASK], own.entry
        if slot.outside:
            offsets_at(entries, step, depth, log_q)
        else:
            if own.opened != 0:
                begin_offsets(entries, step, depth, np.int64(slot.skipped))
            log_q[:] = kept.log_q
        answer.base_price = entry.mid
        if own.predicts == 0:
            answer.status = EXPIRED
            entry.predicted[:] = np.nan
            entry.half[:] = np.nan
        else:
            gets = extras[own.plan]
            answer.flags = own.flags
            answer.status = _status(gets, said)
            _price(answer, entry, log_q, book, said, gets.horizons)
            _patterns(answer, own, book, said)
            if gets.direction != 0:
                _direction(answer, book, said, gets.importance)
            _vote(answer, book, vote, baseline, said, chances, total)
            if gets.stacked != 0 and said.who[ENSEMBLE] != MASKED:
                _stack(answer, said)
            _trend(answer, entry.trend)
        if not slot.outside:
            # An expired vector voids its minute's sample: what was predicted before it depends on when a worker died.
            kept.predicted[:] = entry.predicted
            kept.half[:] = entry.half
