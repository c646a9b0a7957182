"""From slots to answers: the one object that a worker calls for each microbatch.

Owns the loaded models and the microbatch's arrays; run by workers. Reads request slots, the models'
folders (at load alone) and the version table; writes answer slots, windows, and in its child row the
model in hand and how often each version failed. What must stay true: answers are a function of slots
and windows, whatever else is in the microbatch; nothing is compiled, opened or allocated in bulk after
`load`; whatever a model does, every slot is answered.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine import limits
from engine.errors import ModelError
from engine.inference import batch as arrays
from engine.inference import constants
from engine.inference.batch import ENSEMBLE, EXPIRED, MASKED, MODEL, NOBODY, PREDICT, ROLES, SUBSTITUTE
from engine.inference.ensemble import combine
from engine.inference.fallbacks import Breakers, Group, first_loaded, groups, rows_by_id
from engine.inference.models.cnn import PatternModel
from engine.inference.models.cuda import Device
from engine.inference.models.lstm import PriceModel
from engine.inference.opening import Model, opened
from engine.inference.proof import fault, prove
from engine.inference.windows import enter
from engine.registry.manifest import read_manifest
from engine.shared import Breaker, Phase
from engine.tenancy.tiers import BASELINE, VOTE
from fastpath import layout

log = logging.getLogger(__name__)

HEARD = {MODEL, SUBSTITUTE}  # of a member: it said something


class Predictor:
    """`load` once, then `predict` for each microbatch.

    store: folder of the models. versions, plans: the shared tables. child: this process's row, shape
    (1,). max_batch: most slots of a microbatch. device: the GPU for what ONNX Runtime runs; None: there is none.
    """

    def __init__(
        self,
        store: Path,
        versions: np.ndarray,
        plans: np.ndarray,
        child: np.ndarray,
        max_batch: int,
        device: Device | None = None,
    ) -> None:
        self.store = store
        self.versions = versions
        self.plans = plans
        self.child = child
        self.max_batch = max_batch
        self.device = device
        self.models: dict[int, Model] = {}
        self._ran_last: list[tuple[int, Model, list[int]]] = []  # version, and its last slot of the microbatch

    def load(self) -> None:
        """Reads, checks and runs every model, and compiles or loads every kernel by running it."""
        self._rows = rows_by_id(self.versions)
        for built_in in (VOTE, BASELINE):
            if built_in not in self._rows:
                raise ModelError(
                    f"the version table: expected a row for {built_in}, found none; fill it with `fill_versions`"
                )
        self._book = constants.new_book(len(self.versions), self._rows[VOTE][0], self._rows[BASELINE][0])
        self._batch, self._output = arrays.new_batch(self.max_batch), arrays.Output(self.max_batch)
        self.models = {}
        for model_id, rows in self._rows.items():
            for row in rows if model_id not in (VOTE, BASELINE) else ():
                self._open(row, model_id)
        self._groups = groups(self.versions, self.plans)
        self._of_plan = [[each for each in self._groups if plan in each.plans] for plan in range(len(self.plans))]
        self._settle()
        self._extras, self._cross_asset = constants.plan_table(self.plans, self._groups)
        self._bounds = self._bounds_by_plan()
        # It counts for no breaker, and the row goes on saying that this process is loading.
        child = self.child
        self._in_row(np.zeros_like(child))
        self._breakers = Breakers(np.zeros_like(self.versions), self.child)
        self._warm()
        self._settle()  # a model may have been left out
        self._bounds = self._bounds_by_plan()
        self._in_row(child)
        missing = (row for rows in self._rows.values() for row in rows if row not in self.models)
        child["left_out"] = sum(1 << row for row in missing if row not in (self._book.vote, self._book.baseline))
        self._breakers = Breakers(self.versions, self.child)

    def _in_row(self, child: np.ndarray) -> None:
        """From here on this is the row that says what is in hand; its words are looked up once."""
        self.child = child
        self._hand_model, self._phase, self._phase_ns = (
            child[name].data for name in ("hand_model", "phase", "phase_ns")
        )

    def _open(self, row: int, model_id: str) -> None:
        """A version that cannot be used is told and left out; its fallback answers."""
        version = self.versions["version"][row].decode()
        try:
            manifest = read_manifest(self.store / model_id / version)
            if manifest.sha256.encode() != self.versions["sha256"][row]:
                raise ModelError(
                    f"{manifest.folder / 'model.toml'}: artefact.sha256: expected "
                    f"{self.versions['sha256'][row].decode()}, as when the engine started, "
                    f"found {manifest.sha256}; give a changed model a new version"
                )
            model = opened(manifest, self._book, row, self.device)
        except ModelError as error:
            log.error("model %s %s is left out, its fallback answers: %s", model_id, version, error)
            return
        self.models[row] = model

    def _bounds_by_plan(self) -> np.ndarray:
        bounds = constants.no_bounds()
        for group in self._groups:
            best = first_loaded(group.chain, self.models)
            if group.role == arrays.PRICE and best >= 0:
                for plan in group.plans:
                    bounds[plan] = constants.bounds_of(self.models[best].manifest)
        return bounds

    def _warm(self) -> None:
        """A full window of a made-up market through everything, every model included."""
        requests, answers = np.zeros(4, layout.request_slot_dtype), np.zeros(4, layout.answer_slot_dtype)
        windows = np.zeros((1, layout.window), layout.window_entry_dtype)
        requests["mid"], requests["spread"], requests["indicators"] = 1.0, np.nan, np.nan
        requests["extra_count"], requests["correlation_count"] = layout.extra_max, 1  # nils: known numbers
        requests["generation"], requests["step"], requests["minute"], requests["tier"] = (
            1,
            layout.history_max,
            1000,
            [1, 2, 3, 3],
        )
        requests["opens"][0], requests["history_count"][0], requests["depth"] = (
            1,
            layout.history_max,
            layout.history_max,
        )
        requests["history"][0] = 1.0 + 1e-4 * np.sin(np.arange(layout.history_max))
        verdicts = np.array([PREDICT, PREDICT, PREDICT, EXPIRED], "u1")
        now = time.monotonic_ns()
        for first in range(0, 4, min(4, self.max_batch)):
            size = min(4, self.max_batch)
            self.predict(requests, first, size, verdicts[first : first + size].copy(), windows, answers, first, now)
        for row, model in list(self.models.items()):
            try:
                self.models[row] = self._proved(row, model)
            except ModelError as error:
                log.error("model %s is left out, its fallback answers: %s", model.manifest.name, error)
                del self.models[row]

    def _proved(self, row: int, model: Model) -> Model:
        """The same, or where it does not hold what its folder says on a GPU, itself on the processor."""
        try:
            prove(model)
        except ModelError as error:
            if self.device is None:
                raise
            model = opened(model.manifest, self._book, row)
            prove(model)
            self.device.placed -= 1
            log.warning("model %s runs on the processor: %s", model.manifest.name, error)
        return model

    def predict(
        self,
        requests: np.ndarray,
        first: int,
        count: int,
        verdicts: np.ndarray,
        windows: np.ndarray,
        answers: np.ndarray,
        answer_first: int,
        taken_ns: int,
    ) -> None:
        """Answers `count` slots from position `first` on, into the answer slots from `answer_first` on.

        requests, answers: slots of whole rings. verdicts: uint8, what each slot is: 0 passed through,
        1 predicted, 2 expired at its turn. windows: (keys, 256) entries. Everything in an answer but
        `answered_ns` and `inference_ms` is written. taken_ns: CLOCK_MONOTONIC.
        """
        assert 0 < count <= self.max_batch, (count, self.max_batch)
        if requests is not self._requests or answers is not self._answers or windows is not self._windows:
            self._view(requests, answers, windows)
        slots, mask = self._request_view, len(requests) - 1
        enter(
            slots, mask, first, count, verdicts, self._window_view, self._cross_asset, self._bounds, self._batch.records
        )
        self._run_models(count)
        combine(
            slots, mask, first, count, verdicts, self._window_view,
            self._answer_view, self._answer_bytes, len(answers) - 1, answer_first, taken_ns,
            self._batch.records, self._output.records, self._book.records, self._book.vote, self._book.baseline,
            self._extras.records,
        )  # fmt: skip

    def rehearse(self, until: Callable[[], int]) -> None:
        """Runs what ran last once more, on one slot, until there is something to answer, which then finds warm caches.

        No window, counter or breaker hears of it, and nobody reads what comes out; a model that dies of it is to blame.
        """
        for row, model, slots in self._ran_last:
            if until():
                break
            if not self._breakers.is_closed(row):
                continue
            self._in_hand(row + 1, Phase.IN_MODEL)
            try:
                model.run(slots, self._batch, self._output, self._extras.importance)
            except Exception:  # where it answers, it is counted and told
                self._ran_last = []
                break
        self._in_hand(0, Phase.IDLE)

    def catch_up(self) -> bool:
        """A little of what answers put off, changing none; whether there was any."""
        for lanes in self._lanes:
            if lanes.waiting:
                lanes.work(limits.PUT_OFF_UNIT_NS)
                return True
        return False

    def spare(self, version: int) -> None:
        """From here on this version is not asked, -1: each is; a worker died in it over these very slots."""
        self._breakers.spared = version

    def _view(self, requests: np.ndarray, answers: np.ndarray, windows: np.ndarray) -> None:
        """The rings as kernels see them, with text as bytes; made once, because a worker has one of each."""
        self._requests, self._answers, self._windows = requests, answers, windows
        self._ran_last = []
        self._request_view = requests.view(arrays.request_dtype)
        self._answer_view = answers.view(arrays.answer_dtype)
        self._answer_bytes = answers.view("u1").reshape(len(answers), answers.dtype.itemsize)
        self._window_view = windows.view(arrays.entry_dtype)
        for lanes in self._lanes:
            lanes.reset(len(windows))
        for patterns in self._patterns:
            patterns.keep(len(windows))

    def _settle(self) -> None:
        """What each model needs; room for windows in flight, the same for each price model that has them."""
        self._ran_last = []
        self._own = self.versions["own"].tolist()
        self._minutes = {row: model.manifest.closed_minutes for row, model in self.models.items()}
        own = [model for model in self.models.values() if isinstance(model, PriceModel) and not model.unfit]
        self._patterns = [model for model in self.models.values() if isinstance(model, PatternModel)]
        key_bytes = sum(model.lanes_bytes for model in own)
        self._lanes = [model.keep_lanes(limits.LANES_BYTES_MAX // key_bytes) for model in own]
        self._requests = np.empty(0)  # the next microbatch tells them how many keys there are

    def _run_models(self, count: int) -> None:
        batch, output = self._batch, self._output
        output.who[:count] = MASKED
        self._ran_last = []
        by_plan: dict[int, list[int]] = {}
        predicts, depth = batch.predicts[:count].tolist(), batch.depth[:count].tolist()
        for i, plan in enumerate(batch.plan[:count].tolist()):
            if predicts[i]:
                by_plan.setdefault(plan, []).append(i)
        wanted = self._of_plan[next(iter(by_plan))] if len(by_plan) == 1 else self._groups
        for group in wanted:
            slots = [i for plan in group.plans if plan in by_plan for i in by_plan[plan]]
            if slots:
                self._answer(group, slots, depth)
        if by_plan:
            self._in_hand(0, Phase.IDLE)

    def _answer(self, group: Group, slots: list[int], depth: list[int]) -> None:
        """The wanted model, else who stands in for it; slots without its closed minutes wait, masked."""
        needed = self._minutes.get(first_loaded(group.chain, self.models), 0)
        waiting = [i for i in slots if depth[i] >= needed]
        if group.role == ENSEMBLE:  # an ensemble of nobody has nothing to say
            who = self._output.who
            silent = [i for i in waiting if HEARD.isdisjoint(who[i, :ROLES].tolist())]
            self._spoke(silent, ENSEMBLE, self._book.vote, NOBODY)
            waiting = [i for i in waiting if i not in silent] if silent else waiting
        for row in group.chain:
            model = self.models.get(row)
            if model is None or not waiting:
                continue
            minutes = self._minutes[row]
            able = waiting if minutes <= needed else [i for i in waiting if depth[i] >= minutes]
            if self._own[row]:
                able = self._not_barred(row, group.role, able)
            allowed = self._breakers.allow(row, len(able)) if able else 0
            able = able if allowed == len(able) else able[:allowed]
            if able and (answered := self._try(row, model, able)):
                self._spoke(answered, group.role, row, MODEL if row == group.wanted else SUBSTITUTE)
                waiting = [i for i in waiting if i not in answered] if len(answered) < len(waiting) else []
        self._spoke(waiting, group.role, self._book.baseline, NOBODY)

    def _spoke(self, slots: list[int], role: int, version: int, who: int) -> None:
        """One by one, because a microbatch of one is the usual one."""
        output = self._output
        for i in slots:
            output.version[i, role], output.who[i, role] = version, who

    def _not_barred(self, row: int, role: int, slots: list[int]) -> list[int]:
        """Without those whose company does better without its own model."""
        plan, skill = self._batch.plan, self.plans["skill"]
        return [i for i in slots if skill[plan[i], role] != Breaker.OPEN]

    def _try(self, row: int, model: Model, slots: list[int]) -> list[int]:
        """The slots that the model answered. Where it failed, each is asked alone, so that one cannot spoil another."""
        if self._runs(row, model, slots):
            return slots
        return [i for i in slots if self._runs(row, model, [i])] if len(slots) > 1 else []

    def _runs(self, row: int, model: Model, slots: list[int]) -> bool:
        began_ns, began_cpu_ns = self._in_hand(row + 1, Phase.IN_MODEL), self._breakers.began(row)
        sound = True
        try:
            model.run(slots, self._batch, self._output, self._extras.importance)
            sound = model.sound(slots, self._output)
            found = "" if sound else self._fault(model, slots)
        except Exception as error:
            found = f"it raised {type(error).__name__}: {error}"
        took_ns = time.monotonic_ns() - began_ns
        self._breakers.ended(row, len(slots), took_ns, began_cpu_ns)
        if not found:
            self._breakers.succeeded(row)
            if took_ns < limits.REHEARSED_NS:
                self._ran_last.append((row, model, slots[-1:]))
            return True
        times = self._breakers.failed(row, unsound=not sound)
        if times & (times - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
            log.error("model %s failed, the %d. time; its fallback answers: %s", model.manifest.name, times, found)
        return False

    def _fault(self, model: Model, slots: list[int]) -> str:
        """Of the first slot that cannot be used, as `check` says it."""
        return next(found for i in slots if (found := fault(model, self._batch, self._output, i)))

    def _in_hand(self, model: int, phase: Phase) -> int:
        """For the supervisor: what would have been to blame, and since when (CLOCK_MONOTONIC)."""
        now_ns = time.monotonic_ns()
        self._hand_model[0] = model
        self._phase_ns[0] = now_ns
        self._phase[0] = int(phase)
        return now_ns
