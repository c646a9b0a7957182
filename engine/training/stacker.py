"""ensemble_meta: what the members said, to SELL, HOLD and BUY; and the weights of the vote that stands in for it.

Owns both fits and the card; run by `python -m engine.training` after all members. What must stay true:
it learns from what members said of minutes that they were not fitted on; members are withheld at
random, so that each set of them that may answer was seen; it is judged on the last part alone.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from onnx import TensorProto, helper
from scipy.optimize import minimize
from scipy.special import log_softmax, logit, softmax

from engine.inference.batch import DIRECTION, MODEL, PATTERN, PRICE, ROLES, SUBSTITUTE, Output
from engine.inference.ensemble import UNMOVED
from engine.inference.models.stacker import FIRST_DIRECTION, FIRST_PATTERN, MEMBER_NAMES, MEMBERS, gather_members
from engine.inference.predictor import Predictor
from engine.training import artefacts, cards
from engine.training.data import LABEL_MINUTES, Examples
from engine.training.judging import calibration_table, judge, rule_table, rules, score_table, when_of
from engine.training.members import Said, listen, open_predictor

DATA = Path(__file__).parent.parent.parent / "data" / "fx_m1"
HIDDEN = 8
SEED = 20260104
COPIES = 3  # of each minute: with all who spoke, and with some withheld
WITHHELD = 0.3
PENALTIES = (0.003, 0.03, 0.3, 3.0)  # of squared weights; the one that loses least on the tuning minutes
FIT_SHARE = 0.7  # of the calibration part; the rest chooses the penalty
SMALL = 1e-4
WEIGHT_MIN = 0.02  # of a member that adds nothing: it still decides where the others are missing
BLOCKS = (
    slice(0, FIRST_PATTERN - 1),
    slice(FIRST_PATTERN - 1, FIRST_DIRECTION - 1),
    slice(FIRST_DIRECTION - 1, MEMBERS - 1),
)


class Net(NamedTuple):
    w1: np.ndarray
    b1: np.ndarray
    w2: np.ndarray
    b2: np.ndarray


def rows_of(said: Said) -> np.ndarray:
    out = np.zeros((len(said.minute), MEMBERS), "f4")
    output = Output(1)
    for n in range(len(out)):
        for name in ("who", "move", "rise", "pattern", "direction"):
            getattr(output, name)[0] = getattr(said, name)[n]
        gather_members(output.records[0], said.trend[n], out[n])
    return out


def withhold(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    out = rows.copy()
    for block in BLOCKS:
        gone = rng.random(len(rows)) < WITHHELD
        out[gone, block] = 0.0
    return out


def shape(x: np.ndarray, scale: np.ndarray) -> Net:
    parts = np.split(x, np.cumsum([MEMBERS * HIDDEN, HIDDEN, HIDDEN * 3]))
    return Net(parts[0].reshape(MEMBERS, HIDDEN) / scale[:, None], parts[1], parts[2].reshape(HIDDEN, 3), parts[3])


def margin(net: Net, rows: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits: the direction member's own, or those of the rates where it is silent, and what the others change."""
    hidden = np.tanh(rows @ net.w1 + net.b1)
    spoke = rows[:, [FIRST_DIRECTION - 1]]
    own = np.log(np.maximum(rows[:, FIRST_DIRECTION : FIRST_DIRECTION + 3], SMALL))
    return spoke * own + (1.0 - spoke) * base + hidden @ net.w2 + net.b2, hidden


def fit(rows: np.ndarray, label: np.ndarray, base: np.ndarray, penalty: float) -> Net:
    """L-BFGS on the cross entropy, from small weights of a fixed seed; every weight is held near nil."""
    rng = np.random.default_rng(SEED)
    many = np.concatenate([rows] + [withhold(rows, rng) for _ in range(COPIES - 1)]).astype("f8")
    labels = np.tile(label, COPIES)
    scale = np.maximum(rows.std(axis=0), 1e-3).astype("f8")
    truth = np.eye(3)[labels]

    def cost(x: np.ndarray) -> tuple[float, np.ndarray]:
        net = shape(x, scale)
        logits, hidden = margin(net, many, base)
        chance = softmax(logits, axis=1)
        loss = -np.log(np.maximum(chance[np.arange(len(labels)), labels], 1e-12)).mean()
        d2 = (chance - truth) / len(labels)
        d1 = d2 @ net.w2.T * (1.0 - hidden**2)
        gradient = [(many.T @ d1) / scale[:, None], d1.sum(0), hidden.T @ d2, d2.sum(0)]
        flat = np.concatenate([each.ravel() for each in gradient])
        return loss + penalty * float(x @ x), flat + 2.0 * penalty * x

    size = MEMBERS * HIDDEN + HIDDEN + 3 * HIDDEN + 3
    found = minimize(cost, rng.normal(0.0, 0.1, size), jac=True, method="L-BFGS-B", options={"maxiter": 120})
    return shape(found.x, scale)


def loss_of(net: Net, rows: np.ndarray, label: np.ndarray, base: np.ndarray) -> float:
    logits = margin(net, rows.astype("f8"), base)[0]
    return float(-log_softmax(logits, axis=1)[np.arange(len(label)), label].mean())


def onnx_bytes(net: Net, base: np.ndarray) -> bytes:
    tensor = artefacts.tensor
    first, last = FIRST_DIRECTION - 1, FIRST_DIRECTION + 3
    tensors = [
        tensor("w1", net.w1.astype("f4")), tensor("b1", net.b1.astype("f4")),
        tensor("w2", net.w2.astype("f4")), tensor("b2", net.b2.astype("f4")),
        tensor("axis", np.array([1], "i8")), tensor("mask_begin", np.array([first], "i8")),
        tensor("begin", np.array([first + 1], "i8")), tensor("end", np.array([last], "i8")),
        tensor("small", np.array(SMALL, "f4")), tensor("one", np.array(1.0, "f4")),
        tensor("base", base.astype("f4")[None]),
    ]  # fmt: skip
    nodes = [
        helper.make_node("Gemm", ["members", "w1", "b1"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["hidden"]),
        helper.make_node("Gemm", ["hidden", "w2", "b2"], ["change"]),
        helper.make_node("Slice", ["members", "mask_begin", "begin", "axis"], ["spoke"]),
        helper.make_node("Slice", ["members", "begin", "end", "axis"], ["chances"]),
        helper.make_node("Max", ["chances", "small"], ["clipped"]),
        helper.make_node("Log", ["clipped"], ["logs"]),
        helper.make_node("Mul", ["logs", "spoke"], ["own"]),
        helper.make_node("Sub", ["one", "spoke"], ["silent"]),
        helper.make_node("Mul", ["silent", "base"], ["known"]),
        helper.make_node("Add", ["own", "known"], ["start"]),
        helper.make_node("Add", ["start", "change"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["direction"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("members", TensorProto.FLOAT, [1, MEMBERS])]
    outputs = [helper.make_tensor_value_info("direction", TensorProto.FLOAT, [1, 3])]
    return artefacts.model_bytes(nodes, "stacker", inputs, outputs, tensors)


# -- the vote --------------------------------------------------------------------------------------


def side_slope(rise: np.ndarray, up: np.ndarray) -> float:
    """From the logit of a rise in 15 minutes to that of BUY given a touch; from 0 to 1."""
    z = logit(np.clip(rise, SMALL, 1.0 - SMALL))
    slopes = np.linspace(0.0, 1.0, 101)
    return float(slopes[int(np.argmin([np.logaddexp(0.0, np.where(up, -s * z, s * z)).mean() for s in slopes]))])


def weights(chances: Sequence[np.ndarray], label: np.ndarray) -> np.ndarray:
    """Of members' chances, (n, classes) each, such that the weighted mean loses least; they sum to one."""
    given = np.stack([each[np.arange(len(label)), label] for each in chances])

    def cost(x: np.ndarray) -> float:
        return float(-np.log(np.maximum(softmax(x) @ given, 1e-12)).mean())

    found = minimize(cost, np.zeros(len(given)), method="Nelder-Mead", options={"maxiter": 2000})
    return softmax(found.x)


def member_chances(predictor: Predictor, said: Said, touch: float, slope: float) -> list[np.ndarray]:
    """Price, pattern and direction, on the 15-minute label, as the engine's vote takes them."""
    rise = np.clip(said.rise[:, 2], SMALL, 1.0 - SMALL)
    side = 1.0 / (1.0 + np.exp(-slope * logit(rise)))
    price = np.stack([(1.0 - side) * touch, np.full(len(side), 1.0 - touch), side * touch], axis=1)
    pattern = predictor._book.label_rates[said.version[:, PATTERN], said.pattern_signal - 1]
    return [price, pattern, said.direction]


def near_chances(predictor: Predictor, said: Said) -> list[np.ndarray]:
    """Price and pattern of the free tier, on the sign of the next minute."""
    rises = [said.rise[:, 0], predictor._book.rise_rates[said.version[:, PATTERN], said.pattern_signal - 1]]
    return [np.stack([1.0 - rise, rise], axis=1) * (1.0 - UNMOVED) for rise in rises]


def note(file: Path, weight: float, label: tuple[float, float] | None = None) -> None:
    """Into a manifest that stands: its weight, and how a price model's chance of a rise is taken on the label."""
    text = re.sub(r"(?m)^weight = .*$", f"weight = {round(weight, 4)}", file.read_text())
    if label is not None:
        text = re.sub(r"(?m)^label = .*\n", "", text)
        text = text.replace("[calibration]\n", f"[calibration]\nlabel = [{label[0]:.4f}, {label[1]:.4f}]\n")
    file.write_text(text)


class Labels(NamedTuple):
    row: np.ndarray  # among the examples
    label: np.ndarray
    move: np.ndarray  # of one minute


def labels_of(examples: Examples, said: Said) -> Labels:
    """Matched by symbol and minute."""
    at = {key: n for n, key in enumerate(zip(examples.symbol.tolist(), examples.minute.tolist(), strict=True))}
    rows = np.array([at[key] for key in zip(said.symbol.tolist(), said.minute.tolist(), strict=True)])
    return Labels(rows, examples.label[rows], examples.move[rows, 0])


def complete(said: Said, roles: int) -> np.ndarray:
    return np.asarray(np.isin(said.who[:, :roles], (MODEL, SUBSTITUTE)).all(axis=1))


def early(said: Said) -> np.ndarray:
    """The first share of each symbol's calibration part, by time."""
    out = np.zeros(len(said.minute), bool)
    for symbol in np.unique(said.symbol):
        own = (said.symbol == symbol) & (said.part == "calibration")
        out |= own & (said.minute < np.quantile(said.minute[own], FIT_SHARE))
    return out


def fit_weights(
    store: Path, predictor: Predictor, said: Said, free: Said, true: Labels, near: Labels
) -> list[np.ndarray]:
    """Writes them into the members' manifests; returns the members' chances on all of `said`."""
    use = complete(said, ROLES) & (said.part == "calibration") & (true.label >= 0)
    touched = use & (true.label != 1)
    touch, slope = float((true.label[use] != 1).mean()), side_slope(said.rise[touched, 2], true.label[touched] == 2)
    chances = member_chances(predictor, said, touch, slope)
    # Price and pattern among themselves first: where the direction is missing, theirs alone count.
    pair = weights([each[use] for each in chances[:2]], true.label[use])
    both = sum(weight * each for weight, each in zip(pair, chances[:2], strict=True))
    rest, last = np.maximum(weights([np.asarray(both)[use], chances[2][use]], true.label[use]), WEIGHT_MIN)
    found = np.array([*(rest * np.maximum(pair, WEIGHT_MIN)), last])
    found /= found.sum()
    moved = complete(free, PATTERN + 1) & (free.part == "calibration") & np.isfinite(near.move) & (near.move != 0.0)
    found_near = weights([each[moved] for each in near_chances(predictor, free)], (near.move[moved] > 0).astype(int))
    found_near = np.maximum(found_near, WEIGHT_MIN)
    rows = {role: int(said.version[use, role][0]) for role in (PRICE, PATTERN, DIRECTION)}
    near_rows = {role: int(free.version[moved, role][0]) for role in (PRICE, PATTERN)}
    # In the share of the larger price model, for which the smaller one may have to stand in.
    noted = {near_rows[role]: float(found[PRICE] * found_near[role]) for role in near_rows}
    noted |= {rows[role]: float(found[role]) for role in rows}
    for row, weight in noted.items():
        manifest = predictor.models[row].manifest
        note(manifest.folder / "model.toml", weight, (touch, slope) if row == rows[PRICE] else None)
    total = sum(weight * each for weight, each in zip(found, chances, strict=True))
    return [*chances, np.asarray(total)]


# -- all together ----------------------------------------------------------------------------------


def train(examples: Examples, store: Path, report: Callable[[str], None]) -> None:
    predictor = open_predictor(store)
    said = listen(predictor, DATA, 3, report)
    free = listen(predictor, DATA, 1, report)
    true, near = labels_of(examples, said), labels_of(examples, free)
    chances = fit_weights(store, predictor, said, free, true, near)
    rows = rows_of(said)
    known, first = true.label >= 0, early(said)
    learn, tune = known & first, known & (said.part == "calibration") & ~first
    test = known & (said.part == "test") & complete(said, ROLES)
    # What is known of the rates comes from the longer training part: one week's touches are not the next one's.
    taught = np.flatnonzero((examples.part == "train") & (examples.label >= 0))
    rates = np.bincount(examples.label[taught], minlength=3) / len(taught)
    base = np.log(rates)
    nets = {penalty: fit(rows[learn], true.label[learn], base, penalty) for penalty in PENALTIES}
    losses = {penalty: loss_of(each, rows[tune], true.label[tune], base) for penalty, each in nets.items()}
    penalty = min(losses, key=losses.__getitem__)
    net = nets[penalty]
    report(f"penalties and what is lost on the tuning minutes: {losses}")
    when = when_of(said, np.flatnonzero(test))

    def of(chance: np.ndarray) -> dict[str, list[float]]:
        return judge(chance[test], true.label[test], rates, when)

    stacked = softmax(margin(net, rows.astype("f8"), base)[0], axis=1)
    simple = rules(examples, taught, true.row[test])
    quality = judge(stacked[test], true.label[test], rates, when, simple)
    beside = {"the vote": of(chances[3]), "direction alone": of(chances[2])}
    for block, name in zip(BLOCKS, ("price", "pattern", "direction"), strict=True):
        masked = rows.astype("f8").copy()
        masked[:, block] = 0.0
        beside[f"without {name}"] = of(softmax(margin(net, masked, base)[0], axis=1))
    shuffled = fit(rows[learn], np.random.default_rng(SEED).permutation(true.label[learn]), base, penalty)
    blind = rows.astype("f8").copy()
    blind[:, BLOCKS[2]] = 0.0
    control = of(softmax(margin(shuffled, blind, base)[0], axis=1))["log_loss"]
    report(f"log loss {quality['log_loss']}, vote {beside['the vote']['log_loss']}, shuffled {control}")
    manifest = {
        "id": "ensemble_meta", "version": "1.5", "kind": "ensemble", "role": "ensemble",
        "features": list(MEMBER_NAMES), "closed_minutes": 0, "outputs": ["direction"], "horizons": [LABEL_MINUTES],
        "weight": 0.0, "calibration": {"penalty": [penalty]},
        "training": {
            "data": "data/fx_m1, the calibration part of each file's minutes, on which no member was fitted",
            "seed": SEED, "examples": int(learn.sum()),
        },
        "quality": {**quality, "shuffled": control},
    }  # fmt: skip
    text = card(quality, beside, control, rates, penalty, int(learn.sum()), int(test.sum()))
    artefacts.write(store, onnx_bytes(net, base), "model.onnx", manifest, text)


def card(
    quality: Mapping[str, Sequence[float]], beside: Mapping[str, Mapping[str, Sequence[float]]],
    control: Sequence[float], rates: np.ndarray, penalty: float, learned: int, count: int,
) -> str:  # fmt: skip
    sell, hold, buy = rates
    rows = [["ensemble_meta", *map(float, quality["log_loss"]), *quality["signal_right"]]]
    rows += [[name, *map(float, each["log_loss"]), *each["signal_right"]] for name, each in beside.items()]
    head = ("who decides", "log loss", "of the rates", "difference", "its standard error", "signal right")
    return cards.page(
        "ensemble_meta 1.5",
        f"""A stacker: {MEMBERS} numbers that say what the price, pattern and direction members answered, the trend, and
        who did not answer, through {HIDDEN} hidden units to SELL, HOLD and BUY on the 15-minute label. It begins with
        the direction member's own chances and learns what the others change about them. Fitted on {learned:,}
        minutes of the calibration part, which no member's weights were fitted on, with members withheld at random
        ({100 * WITHHELD:.0f} % each); the end of that part chose the penalty ({penalty:g}) on its
        weights. The larger it is, the more it leaves to the direction member, or to the rates where that is silent.""",
        f"""Measured on {count:,} minutes of the last 22 % (as many as {count // LABEL_MINUTES:,} independent
        ones), beside the training part's rates (sell {sell:.3f}, hold {hold:.3f}, buy
        {buy:.3f}); standard errors come from resampled blocks of time:""",
        score_table(quality),
        rule_table(quality),
        calibration_table(quality),
        "With members missing, and beside others who might decide:",
        cards.table(head, rows),
        f"""Fitted on shuffled labels, and without the direction member's own chances, its log loss is
        {control[2]:+.4f} (standard error {control[3]:.4f}) beside the rates'. The ensemble knows little that the
        direction member does not: mostly whether anything will happen, hardly which side.""",
    )
