"""From what the models said to answers: prices and intervals, patterns, direction, the vote, the trend.

Owns the arithmetic of an answer; run by workers in slot order, after the models. Reads slots, the
microbatch's arrays, the versions' constants; writes answer slots, and into windows what was predicted
in each minute and how wide its intervals are. What must stay true: probabilities lie in [0, 1],
those of the direction sum to one, a price lies within its interval, a member that has not its closed
minutes yet is left out and never guessed.
"""

from typing import NamedTuple

import numpy as np

from engine.contract.names import HORIZON_MINUTES

# isort: off
from engine.inference.batch import (
    DIRECTION, ENSEMBLE, IMAGE_MINUTES, MASKED, MODEL, NOBODY, PASS, PATTERN, PRICE, ROLES, SUBSTITUTE,
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


class Book(NamedTuple):
    """Constants of each version, from its manifest, by row of the version table."""

    q: np.ndarray  # (versions, horizons)
    weight: np.ndarray  # in a vote
    touch: np.ndarray  # that the 15-minute label is not HOLD, as price models take it
    side: np.ndarray  # slope from a price model's logit of a rise in 15 minutes to that of BUY, given a touch
    label_rates: np.ndarray  # (versions, 3, 3): of sell, hold, buy on the label, given the pattern's signal
    rise_rates: np.ndarray  # (versions, 3): chance that the next minute rises, given the pattern's signal
    touch_bias: np.ndarray  # (versions, patterns): added to a random walk's log odds of touching the target
    touch_slope: np.ndarray  # (versions,): by which those are multiplied before
    shap_count: np.ndarray  # features and the bias; 0: none
    vote: int
    baseline: int


class Extras(NamedTuple):
    """What each plan gets, by its row."""

    horizons: np.ndarray
    direction: np.ndarray
    importance: np.ndarray
    stacked: np.ndarray  # 1: an ensemble model is to decide; else the vote is


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
    answer.late = slot.late
    answer.symbol_bytes = slot.symbol_bytes
    answer.symbol[:] = slot.symbol
    answer.status = REJECTED if slot.reason != 0 else 0


@kernel
def _price(i, answer, entry, log_q, book, output, horizons):
    """Medians and intervals; `entry` keeps those of a model, whatever the tier may see of them."""
    nobody = output.who[i, PRICE] == NOBODY or output.who[i, PRICE] == MASKED
    version = output.version[i, PRICE]
    answer.horizon_count = horizons
    for h in range(HORIZONS):
        sd = entry.sigma * ROOTS[h] * 1e-4
        if nobody:
            price, rise, half = entry.mid, 0.5, BASE_Q * sd * entry.mid
            entry.predicted[h], entry.half[h] = np.nan, np.nan
            wide = half * WIDER
        else:
            price = entry.mid * np.exp(min(max(output.move[i, h] * sd, -FAR), FAR))
            rise, half = output.rise[i, h], book.q[version, h] * np.exp(log_q[h]) * sd * entry.mid
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
def _patterns(i, answer, batch, book, output):
    """The shown ones, the likeliest first; it decides the signal."""
    answer.pattern_signal = HOLD
    if output.who[i, PATTERN] == MASKED or output.who[i, PATTERN] == NOBODY:
        return
    answer.has_pattern = 1
    count = 0
    for k in range(PATTERNS):
        if output.pattern[i, k] > PATTERN_SHOWN:
            at = count
            while at > 0 and output.pattern[i, k] > output.pattern[i, answer.pattern_type[at - 1] - 1]:
                answer.pattern_type[at] = answer.pattern_type[at - 1]
                at -= 1
            answer.pattern_type[at] = k + 1
            count += 1
    answer.pattern_count = count
    if count > 0:
        _targets(i, answer, batch, book, output.version[i, PATTERN], output.pattern[i])


@kernel
def _targets(i, answer, batch, book, version, chances):
    """What the shown patterns point to, from each one's own geometry."""
    path, mid, sigma = batch.path[i], batch.entry[i].mid, batch.entry[i].sigma
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
            book.touch_bias[version, k], book.touch_slope[version], height * reach, span, mid, sigma
        )
        answer.pattern_minutes[n] = span
        answer.pattern_target[n] = max(mid + way * height * reach, 0.0)
        if n == 0:
            answer.pattern_signal = BUY if way > 0 else SELL
            answer.pattern_confidence = answer.pattern_chance[0]


@kernel
def _direction(i, answer, book, output, importance):
    if output.who[i, DIRECTION] == MASKED:
        return
    answer.has_direction = 1
    nobody = output.who[i, DIRECTION] == NOBODY
    version = output.version[i, DIRECTION]
    sell, buy = output.direction[i, 0], output.direction[i, 2]
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
        answer.shap_count = book.shap_count[version]
        for n in range(book.shap_count[version]):
            answer.shap[n] = output.shap[i, n]


@kernel
def tempered(chance, slope):
    """The chance whose logit is `slope` times as large."""
    up, down = chance**slope, (1.0 - chance) ** slope
    return up / (up + down)


@kernel
def _opinion(i, role, answer, book, output, chances):
    """A member's sell, hold, buy chances on the 15-minute label, or on the next minute's sign (free tier)."""
    version = output.version[i, role]
    near = answer.tier == 1
    chances[:] = BASE_RATES
    if near:
        chances[0], chances[1], chances[2] = 0.5 - UNMOVED / 2, UNMOVED, 0.5 - UNMOVED / 2
    if output.who[i, role] == NOBODY:
        return HOLD
    if role == PRICE:
        rise = output.rise[i, 0]
        if not near:
            chances[1] = 1.0 - book.touch[version]
            rise = tempered(output.rise[i, 2], book.side[version])
        moves = 1.0 - chances[1]
        chances[0], chances[2] = (1.0 - rise) * moves, rise * moves
    elif role == DIRECTION:
        chances[:] = output.direction[i]
    else:
        signal = answer.pattern_signal
        if near:
            rise = book.rise_rates[version, signal - 1]
            chances[0], chances[2] = (1.0 - rise) * (1.0 - UNMOVED), rise * (1.0 - UNMOVED)
        else:
            chances[:] = book.label_rates[version, signal - 1]
        return signal
    if not near and chances[1] >= max(chances[0], chances[2]):
        return HOLD
    return BUY if chances[2] > chances[0] else SELL


@kernel
def _vote(i, answer, book, output, chances, total):
    """The members' chances, weighted; who is masked or stood in for by the baseline has no weight."""
    total[:] = 0.0
    weights, count, answered = 0.0, 0, 0
    for role in range(ROLES):
        if output.who[i, role] == MASKED or (role == DIRECTION and answer.has_direction == 0):
            continue
        nobody = output.who[i, role] == NOBODY
        signal = _opinion(i, role, answer, book, output, chances)
        version = book.baseline if nobody else output.version[i, role]
        weight = 0.0 if nobody else book.weight[version]
        answer.contribution_version[count] = version
        answer.contribution_signal[count] = signal
        answer.contribution_confidence[count] = chances[signal - 1]
        answer.contribution_fallback[count] = 1 if output.who[i, role] >= SUBSTITUTE else 0
        answer.weight[count] = weight
        weights += weight
        total += weight * chances
        answered += 0 if nobody else 1
        count += 1
    answer.contribution_count = count
    answer.model_count = answered
    if weights == 0.0:
        answer.final_version = book.baseline
        answer.ensemble_signal = HOLD
        answer.ensemble_confidence = UNMOVED if answer.tier == 1 else BASE_RATES[1]
        return
    total /= weights
    for n in range(count):
        answer.weight[n] /= weights
    answer.final_version = book.vote
    signal = BUY if total[2] > total[0] else SELL
    if answer.tier != 1 and total[1] >= max(total[0], total[2]):
        signal = HOLD
    answer.ensemble_signal = signal
    answer.ensemble_confidence = total[signal - 1]
    answer.ensemble_score = total[2] - total[0]


@kernel
def _stack(i, answer, book, output):
    """The ensemble model's decision in place of the vote's, or the vote's own, marked as standing in.

    Whoever decides is the last contribution; it has no weight, since it takes no part in the vote.
    """
    count = answer.contribution_count
    answer.contribution_fallback[count] = 1
    if output.who[i, ENSEMBLE] == MODEL or output.who[i, ENSEMBLE] == SUBSTITUTE:
        sell, hold, buy = output.final[i, 0], output.final[i, 1], output.final[i, 2]
        signal = BUY if buy > sell else SELL
        if hold >= max(sell, buy):
            signal = HOLD
        answer.final_version = output.version[i, ENSEMBLE]
        answer.model_count += 1
        answer.ensemble_signal = signal
        answer.ensemble_confidence = output.final[i, signal - 1]
        answer.ensemble_score = buy - sell
        answer.contribution_fallback[count] = 1 if output.who[i, ENSEMBLE] == SUBSTITUTE else 0
    answer.contribution_version[count] = answer.final_version
    answer.contribution_signal[count] = answer.ensemble_signal
    answer.contribution_confidence[count] = answer.ensemble_confidence
    answer.contribution_count = count + 1


@kernel
def _trend(answer, trend):
    answer.trend_signal = HOLD if trend == 0.0 else (BUY if trend > 0.0 else SELL)
    answer.trend_strength = min(abs(trend) / TREND_FULL, 1.0)


@kernel
def _status(i, extras, plan, output):
    status = OK
    for role in range(ROLES + 1):
        if (role == DIRECTION and extras.direction[plan] == 0) or (role == ENSEMBLE and extras.stacked[plan] == 0):
            continue
        if output.who[i, role] == MASKED:
            return WARMING
        if output.who[i, role] >= SUBSTITUTE:
            status = DEGRADED
    return status


@kernel
def combine(requests, mask, first, count, verdicts, windows, answers, raw_answers, answer_mask, answer_first, taken_ns,
            batch, output, book, extras):  # fmt: skip
    """Each slot's answer, in slot order, because a slot's intervals follow from predictions before it."""
    log_q, chances, total = np.zeros(HORIZONS), np.zeros(3), np.zeros(3)
    for i in range(count):
        slot = requests[(first + i) & mask]
        at = (answer_first + i) & answer_mask
        raw_answers[at, :] = 0
        answer = answers[at]
        _head(slot, answer, first + i, taken_ns)
        if verdicts[i] == PASS:
            continue
        entries = windows[slot.key]
        step, depth = batch.step[i], batch.depth[i]
        own = entries[step & MASK]
        if slot.outside:
            offsets_at(entries, step, depth, log_q)
        else:
            if batch.opened[i] != 0:
                begin_offsets(entries, step, depth, np.int64(slot.skipped))
            log_q[:] = own.log_q
        entry = batch.entry[i]
        answer.base_price = entry.mid
        if batch.predicts[i] == 0:
            answer.status = EXPIRED
            entry.predicted[:] = np.nan
            entry.half[:] = np.nan
        else:
            plan = batch.plan[i]
            answer.flags = batch.flags[i]
            answer.status = _status(i, extras, plan, output)
            _price(i, answer, entry, log_q, book, output, extras.horizons[plan])
            _patterns(i, answer, batch, book, output)
            if extras.direction[plan] != 0:
                _direction(i, answer, book, output, extras.importance[plan])
            _vote(i, answer, book, output, chances, total)
            if extras.stacked[plan] != 0 and output.who[i, ENSEMBLE] != MASKED:
                _stack(i, answer, book, output)
            _trend(answer, entry.trend)
        if not slot.outside:
            # An expired vector voids its minute's sample: what was predicted before it depends on when a worker died.
            own.predicted[:] = entry.predicted
            own.half[:] = entry.half
