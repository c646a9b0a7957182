"""Windows in flight: an LSTM over a sliding window in the time of its last step.

Owns a bounded number of blocks, each the lanes of one key: lane t is the state of the window that ends with step t,
after as many of its closed rows as it has run. When a minute closes, all of them have one row more to run; that is
put off (`work`), and an answer finds the lane of its own step with all but the last row behind it. Runs in the
worker, which has them for itself; reads the microbatch's arrays, writes the models' outputs.

What must stay true: an answer is a function of the rows of its window. A lane is used only where the rows that it ran
are those of the window, to the bit; what it lacks is run there and then; where there is no lane the whole window runs.
So what was put off, lost, evicted or guessed costs time and never changes a number.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.string cimport memcmp, memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from fastpath.lstm cimport Network, answer_row, input_halves, look_ahead, network, run_rows, run_three

import numpy as np

from fastpath.lstm import aligned

cdef int64_t _now_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t> now.tv_sec * 1_000_000_000 + <int64_t> now.tv_nsec


def block_bytes(Network network not None):
    """Memory of one key's lanes."""
    cdef long floats = _block_floats(&network.net)
    return 4 * floats + 8 * network.net.span + <long> sizeof(block)


cdef long _block_floats(const network *net) noexcept nogil:
    cdef long rows = (net.span + 1) * net.inputs
    return ((net.span + 1) * net.state_floats + 2 * net.ahead_floats + rows + 15) & ~15


cdef class Lanes:
    """The windows of many keys over one network; `reset`, `bind`, then `run` and, when there is time, `work`.

    Parameters
    ----------
    network : whose windows these are
    blocks : keys that may have lanes at a time. One that was not used for long makes room for another; of more keys in
        turn some have lanes always, where the oldest's going first would leave none with any
    """

    def __init__(self, Network network not None, long blocks):
        cdef float[::1] memory
        cdef int64_t[::1] done
        cdef int32_t[::1] queue
        cdef unsigned char[::1] of
        if blocks < 0:
            raise ValueError(f"blocks: expected 0 or more, found {blocks}")
        self.network, self.blocks, self.net = network, blocks, &network.net
        self.span, self.inputs = self.net.span, self.net.inputs
        self.floats = _block_floats(self.net)
        memory, done = aligned(max(blocks, 1) * self.floats), np.zeros(max(blocks, 1) * self.span, np.int64)
        of, queue = np.zeros(max(blocks, 1) * sizeof(block), np.uint8), np.zeros(max(blocks, 1), np.int32)
        self.memory, self.done, self.queue, self.of = &memory[0], &done[0], &queue[0], <block *> &of[0]
        self.kept = [memory, done, queue, of]
        self.half = self._floats(self.net.ahead_floats)
        self.spare = self._floats(self.net.state_floats)
        self.window = self._floats((self.span + 1) * self.inputs)
        self.out = self._floats(self.net.outputs)
        self.reset(0)

    cdef float *_floats(self, long count):
        cdef float[::1] array = aligned(count)
        self.kept.append(array)
        return &array[0]

    def reset(self, long keys):
        """No lanes at all, for windows of so many keys."""
        cdef long b
        self.of_key = np.full(keys, NOBODY, np.int32)
        for b in range(self.blocks):
            self.of[b].key, self.of[b].used, self.of[b].queued = NOBODY, 0, False
        self.queue_first = self.waiting = 0
        self.half_block, self.taken_until = NOBODY, 0

    def bind(self, rows, columns, closing, key, generation, step, plain, chances):
        """The arrays of a microbatch, whose n-th entries are those of its n-th slot, at any distance.

        rows: (slots, window, features) float32. columns: int64, which features are the network's inputs. closing:
        (slots, features), the last row as the next minute would see it. key: int64, negative where the window is to
        run whole and leave no lane. generation: uint32. step: int64. plain, chances: float64, the outputs.
        """
        features, columns = np.shape(rows)[2], np.ascontiguousarray(columns, np.int64)
        expected = (len(rows), self.span + 1, features), (len(rows), features), self.inputs
        found = np.shape(rows), np.shape(closing), len(columns)
        if found != expected or not all(0 <= each < features for each in columns):
            raise ValueError(f"bind: expected rows, closing rows and columns of {expected}, found {found}")
        linear, outputs = self.network.linear, self.network.outputs
        if np.shape(plain)[1:] != (linear,) or np.shape(chances)[1:] != (outputs - linear,):
            raise ValueError(f"bind: expected {linear} plain outputs and {outputs - linear} chances, "
                             f"found {np.shape(plain)[1:]} and {np.shape(chances)[1:]}")
        if {len(each) for each in (key, generation, step, plain, chances)} != {len(rows)}:
            raise ValueError(f"bind: expected {len(rows)} slots in every array")
        for each in (rows, closing):
            if not np.asarray(each)[:1].flags.c_contiguous:
                raise ValueError("bind: expected what belongs to a slot in one piece, found strides within it")
        self.bound = False
        self.picked = columns.tolist() != list(range(features))
        self.rows, self.columns, self.closing, self.key = rows, columns, closing, key
        self.generation, self.step, self.plain, self.chances = generation, step, plain, chances
        self.bound = True

    def run(self, list slots not None):
        """Answers these slots of the bound arrays."""
        cdef long i
        if not self.bound:
            raise ValueError("run: expected bound arrays, found none; call bind")
        for i in slots:
            if not 0 <= i < self.rows.shape[0]:
                raise IndexError(f"run: expected slots from 0 to {self.rows.shape[0] - 1}, found {i}")
            self._answer(i)

    def work(self, int64_t budget_ns):
        """What was put off, a little at a time, until the budget is spent. Whether something is left."""
        cdef int64_t begin, now, before
        with nogil:
            begin = now = _now_ns()
            while self.waiting > 0:
                if not self._unit(self.queue[self.queue_first]):
                    self.of[self.queue[self.queue_first]].queued = False
                    self.queue_first = (self.queue_first + 1) % self.blocks
                    self.waiting -= 1
                    continue
                before, now = now, _now_ns()
                if (now - begin) + (now - before) > budget_ns:  # the next takes as long as the last
                    break
        return self.waiting > 0

    cdef void _answer(self, long i) noexcept nogil:
        cdef const float *rows = self._picked_rows(&self.rows[i, 0, 0], self.span + 1, self.window)
        cdef long n, b = self._block_of(self.key[i], self.generation[i], self.step[i], rows)
        if b == NOBODY:
            self.made_up += self.span
            self.network.whole(rows, self.out)
        else:
            self._last(b, self.step[i], rows + self.span * self.inputs)
            self._want(b, self._picked_rows(&self.closing[i, 0], 1, self.window))
        for n in range(self.net.linear):
            self.plain[i, n] = self.out[n]
        for n in range(self.net.linear, self.net.outputs):
            self.chances[i, n - self.net.linear] = self.out[n]

    cdef const float *_picked_rows(self, const float *rows, long count, float *to) noexcept nogil:
        cdef long n, k, features = self.rows.shape[2]
        if not self.picked:
            return rows
        for n in range(count):
            for k in range(self.inputs):
                to[n * self.inputs + k] = rows[n * features + self.columns[k]]
        return to

    # -- where things are in a block: lanes and rows by their step, the guess's lane, two recurrent halves ------------

    cdef float *_lane(self, long b, int64_t step) noexcept nogil:
        return self.memory + b * self.floats + (step % self.span) * self.net.state_floats

    cdef int64_t *_done(self, long b, int64_t step) noexcept nogil:
        return self.done + b * self.span + step % self.span

    cdef float *_guess(self, long b) noexcept nogil:
        return self.memory + b * self.floats + self.span * self.net.state_floats

    cdef float *_ahead(self, long b, long turn) noexcept nogil:
        return self._guess(b) + self.net.state_floats + turn * self.net.ahead_floats

    cdef float *_row(self, long b, int64_t step) noexcept nogil:
        return self._ahead(b, 2) + (step % self.span) * self.inputs

    cdef float *_guessed_row(self, long b) noexcept nogil:
        return self._ahead(b, 2) + self.span * self.inputs

    # -- which block ---------------------------------------------------------------------------------------------------

    cdef long _block_of(self, int64_t key, uint32_t generation, int64_t step, const float *rows) noexcept nogil:
        """The key's block, which has this window's closed rows from here on; NOBODY: the window has no lanes."""
        cdef long b
        if key < 0 or key >= self.of_key.shape[0] or step < self.span or self.blocks == 0:
            return NOBODY
        self.answers += 1
        b = self.of_key[key]
        if b == NOBODY:
            if self.answers < self.taken_until:
                return NOBODY
            b = self._oldest()
            if self.of[b].key != NOBODY:
                self.taken_until = self.of[b].used + KEPT_TURNS * self.blocks
                if self.answers < self.taken_until:
                    return NOBODY
                self.of_key[self.of[b].key] = NOBODY
            self.of_key[key] = <int32_t> b
            self._begin(b, key, generation, step, rows)
        elif self.of[b].generation != generation or not self._slide(b, step, rows):
            self._begin(b, key, generation, step, rows)
        self.of[b].used = self.answers
        return b

    cdef long _oldest(self) noexcept nogil:
        """A free block, else the one that was not used for longest."""
        cdef long b, oldest = 0
        for b in range(1, self.blocks):
            if self.of[b].used < self.of[oldest].used:
                oldest = b
        return oldest

    cdef void _begin(self, long b, int64_t key, uint32_t generation, int64_t step, const float *rows) noexcept nogil:
        """Lanes of this window and of those after it, none of which has run a row."""
        cdef block *own = &self.of[b]
        cdef int64_t each
        own.key, own.generation, own.open, own.ready, own.guessed = key, generation, step, NOBODY, NOBODY
        for each in range(step - self.span, step):
            memcpy(self._row(b, each), rows + (each - step + self.span) * self.inputs, 4 * self.inputs)
            self._done(b, each)[0] = each  # lane `each + span` begins with row `each`
        if self.half_block == b:
            self.half_block = NOBODY

    cdef bint _slide(self, long b, int64_t step, const float *rows) noexcept nogil:
        """On to this window, if the rows that both have are the same."""
        cdef block *own = &self.of[b]
        cdef int64_t each, steps = step - own.open
        cdef long size = 4 * self.inputs, first = (step - self.span) % self.span, count, part
        if steps < 0 or steps >= self.span:
            return False
        count = self.span - steps
        part = min(count, self.span - first)
        if memcmp(self._row(b, first), rows, part * size) != 0:
            return False
        if part < count and memcmp(self._row(b, 0), rows + part * self.inputs, (count - part) * size) != 0:
            return False
        for each in range(own.open, step):
            memcpy(self._row(b, each), rows + (each - step + self.span) * self.inputs, size)
            self._done(b, each)[0] = each
        if steps == 1:
            self._take_guess(b, step)
        if steps > 0:
            own.open, own.guessed = step, NOBODY
        return True

    cdef void _take_guess(self, long b, int64_t step) noexcept nogil:
        cdef block *own = &self.of[b]
        if own.guessed != step or own.wanted or memcmp(self._row(b, own.open), self._guessed_row(b), 4 * self.inputs) != 0:
            return
        memcpy(self._lane(b, step), self._guess(b), 4 * self.net.state_floats)
        own.turn, own.ready = 1 - own.turn, step
        self._done(b, step)[0] = step

    # -- answers, and what they put off --------------------------------------------------------------------------------

    cdef void _last(self, long b, int64_t step, const float *row) noexcept nogil:
        """The answer for the block's window with this last row."""
        cdef block *own = &self.of[b]
        cdef int64_t *done = self._done(b, step)
        cdef float *lane = self._lane(b, step)
        cdef float *ahead
        if done[0] < step:
            self._run_rows(b, step)
            own.ready = NOBODY
        ahead = self._ahead(b, own.turn)
        if own.ready != step:
            look_ahead(self.net, lane, ahead)
            own.ready = step
        answer_row(self.net, lane, ahead, row, &self.network.scratch[0], self.out)

    cdef void _run_rows(self, long b, int64_t step) noexcept nogil:
        """All that the lane of `step` lacks."""
        cdef int64_t *done = self._done(b, step)
        cdef float *lane = self._lane(b, step)
        cdef long first, count, left = step - done[0]
        self.made_up += left
        if done[0] == step - self.span:
            memset(lane, 0, 4 * self.net.state_floats)
        while left > 0:
            first = done[0] % self.span  # rows lie in a ring
            count = min(left, self.span - first)
            run_rows(self.net, lane, self._row(b, first), count, &self.network.scratch[0])
            done[0] += count
            left -= count

    cdef void _want(self, long b, const float *closing) noexcept nogil:
        """Lanes that lack a row, and the next window's, if its newest row stays as it is."""
        cdef block *own = &self.of[b]
        cdef float *row = self._guessed_row(b)
        if own.guessed != own.open + 1 or memcmp(row, closing, 4 * self.inputs) != 0:
            memcpy(row, closing, 4 * self.inputs)
            own.guessed, own.wanted = own.open + 1, True
        if not own.queued:
            self.queue[(self.queue_first + self.waiting) % self.blocks] = <int32_t> b
            self.waiting += 1
            own.queued = True

    cdef bint _unit(self, long b) noexcept nogil:
        """A few lanes of the block by one row: the next window's, then the guess, then those that are furthest behind."""
        cdef block *own = &self.of[b]
        cdef int64_t open = own.open, each, row = self._done(b, open + 1)[0] if self.span > 1 else open
        if row >= open:
            if own.guessed == open + 1 and own.wanted:
                self._make_guess(b)
                return True
            for each in range(open + 1, open + self.span):
                row = min(row, self._done(b, each)[0])
        if row >= open:
            return False
        self._advance(b, row)
        return True

    cdef void _make_guess(self, long b) noexcept nogil:
        cdef block *own = &self.of[b]
        cdef float *state = self._guess(b)
        if self.span > 1:
            memcpy(state, self._lane(b, own.open + 1), 4 * self.net.state_floats)
        else:
            memset(state, 0, 4 * self.net.state_floats)
        run_rows(self.net, state, self._guessed_row(b), 1, &self.network.scratch[0])
        look_ahead(self.net, state, self._ahead(b, 1 - own.turn))
        own.wanted = False

    cdef void _advance(self, long b, int64_t row) noexcept nogil:
        """Up to three lanes that lack this row."""
        cdef float *lanes[TOGETHER]
        cdef int64_t each, open = self.of[b].open
        cdef long count = 0
        for each in range(open + 1, open + self.span):
            if self._done(b, each)[0] == row:
                lanes[count] = self._lane(b, each)
                if row == each - self.span:
                    memset(lanes[count], 0, 4 * self.net.state_floats)
                self._done(b, each)[0] += 1
                count += 1
                if count == TOGETHER:
                    break
        if count == 1:
            run_rows(self.net, lanes[0], self._row(b, row), 1, &self.network.scratch[0])
            return
        if self.half_block != b or self.half_step != row:
            input_halves(self.net, &self.net.layer[0], self._row(b, row), self.inputs, 1, self.half)
            self.half_block, self.half_step = b, row
        if count < TOGETHER:
            lanes[2] = self.spare
        run_three(self.net, lanes, self.half, &self.network.scratch[0])
