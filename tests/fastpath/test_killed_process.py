"""What a writer, a reader, an observer or the arbiter leaves behind that was killed or stopped at a given step.

The processes run a build of the same sources with failpoints; see conftest.py. The words they leave are
read with the engine's own build.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from shared_file import SharedFile
from streams import standing, stream_table

from fastpath.arbiter import apply, decide, window_gaps
from fastpath.layout import stream_row_dtype, stream_state_dtype
from fastpath.ring import ByteRing, Observer, Ring

Start = Callable[..., "subprocess.Popen[str]"]
Shared = Callable[[int], SharedFile]

CAPACITY = 16
SLOT = np.dtype([("position", "u8"), ("check", "u8", 6)])
MAP = "import mmap, os, signal, sys\nmemory = memoryview(mmap.mmap(int(sys.argv[1]), 0))\n"

WRITER = (
    MAP
    + """
import numpy as np
from fastpath.ring import Ring

ring = Ring(memory, np.dtype([("position", "u8"), ("check", "u8", 6)]), True)
for count in (3, 5, 1, 7, 4, 6, 2, 8, 16):
    first = ring.claim(count)
    for position in range(first, first + count):
        ring.slots["position"][position & ring.mask] = position
        if (position, "payload") == (int(sys.argv[2]), sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        ring.slots["check"][position & ring.mask] = position * np.arange(1, 7)
    ring.publish(first + count)
    ring.release(first + count)
print("not killed")
"""
)


def check_slots(ring: Ring, begin: int, end: int) -> None:
    for position in range(begin, end):
        slot = ring.slots[position & ring.mask]
        assert slot["position"] == position
        assert slot["check"].tolist() == [position * factor for factor in range(1, 7)]


def killed(process: "subprocess.Popen[str]") -> None:
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (-signal.SIGKILL, ""), "the failpoint was not passed"


HEADS = [0, 3, 8, 9, 16, 20, 26, 28, 36, 52]  # after each publish of WRITER
STEPS = ["ring.claim.before", "ring.claim.intended", "ring.publish.before", "ring.publish.after"]
STEPS += ["ring.release.before", "ring.release.after"]


@pytest.mark.parametrize("times", [1, 3, 5, 9])
@pytest.mark.parametrize("step", STEPS)
def test_writer_killed_at_any_step_leaves_whole_slots_and_a_ring_to_go_on_with(
    start: Start, shared: Shared, step: str, times: int
) -> None:
    file = shared(Ring.bytes_needed(CAPACITY, SLOT.itemsize))
    killed(start(WRITER, f"{step}:{times}", file, -1, "none"))
    published = step in STEPS[3:]
    check_successor(file, HEADS[times if published else times - 1])


@pytest.mark.parametrize("position", [0, 4, 19, 51])
def test_writer_killed_within_a_slot_never_publishes_it(start: Start, shared: Shared, position: int) -> None:
    file = shared(Ring.bytes_needed(CAPACITY, SLOT.itemsize))
    killed(start(WRITER, "none:1", file, position, "payload"))
    check_successor(file, max(head for head in HEADS if head <= position))


def check_successor(file: SharedFile, head: int) -> None:
    ring = Ring(file.memory, SLOT, True)
    assert ring.head == head
    tail = ring.tail
    check_slots(ring, tail, head)
    # Observers keep only what no writer, dead or alive, may have touched.
    observer, out, kept = Observer(ring), np.zeros(1, SLOT), 0
    for position in range(max(0, head - CAPACITY), head):
        if observer.copy(position, out):
            kept += 1
            assert out["check"][0].tolist() == [position * factor for factor in range(1, 7)]
    assert kept == max(0, min(head, head + CAPACITY - max(ring.intent + 1, head)))
    # The successor claims the very positions that its predecessor may have left half-written.
    ring.release(head)
    assert ring.claim(CAPACITY) == head
    for position in range(head, head + CAPACITY):
        ring.slots["position"][position & ring.mask] = position
        ring.slots["check"][position & ring.mask] = position * np.arange(1, 7)
    ring.publish(head + CAPACITY)
    check_slots(ring, head, head + CAPACITY)


BYTE_WRITER = (
    MAP
    + """
from fastpath.ring import ByteRing

ring = ByteRing(memory)
for number, count in enumerate((64, 40, 64, 16, 56, 64, 24, 64), start=1):
    position = ring.claim(count)
    area = ring.view(position, count)
    area[:8] = count.to_bytes(8, "little")
    if (number, "payload") == (int(sys.argv[2]), sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    area[8:16] = number.to_bytes(8, "little")
    area[16:] = bytes([number]) * (count - 16)
    ring.publish(position + count)
    ring.release(position if number > 1 else 0)
print("not killed")
"""
)
SIZES = [64, 40, 64, 16, 56, 64, 24, 64]


def places() -> list[int]:
    """Where each record begins, in a ring of 128 bytes."""
    found, head = [], 0
    for size in SIZES:
        left = 128 - head % 128
        found.append(head if size <= left else head + left)
        head = found[-1] + size
    return found


@pytest.mark.parametrize(
    ("step", "times"),
    [(step, times) for step in STEPS[:4] for times in (1, 3, 6, 8)] + [("ring.claim.padded", n) for n in (1, 2, 3)],
)
def test_byte_writer_killed_at_any_step_leaves_whole_records(
    start: Start, shared: Shared, step: str, times: int
) -> None:
    file = shared(ByteRing.bytes_needed(128))
    killed(start(BYTE_WRITER, f"{step}:{times}", file, -1, "none"))
    padded = [index for index in range(1, len(SIZES)) if places()[index] != places()[index - 1] + SIZES[index - 1]]
    published = padded[times - 1] if step == "ring.claim.padded" else times - (step != "ring.publish.after")
    check_byte_successor(file, published)


@pytest.mark.parametrize("number", [1, 3, 5, 8])
def test_byte_writer_killed_within_a_record_never_publishes_it(start: Start, shared: Shared, number: int) -> None:
    file = shared(ByteRing.bytes_needed(128))
    killed(start(BYTE_WRITER, "none:1", file, number, "payload"))
    check_byte_successor(file, number - 1)


def check_byte_successor(file: SharedFile, published: int) -> None:
    ring = ByteRing(file.memory)
    assert ring.head == (places()[published - 1] + SIZES[published - 1] if published else 0)
    records = list(ring.records(ring.tail, ring.head))
    assert records == [(places()[n], SIZES[n]) for n in range(published) if places()[n] >= ring.tail]
    for position, count in records:
        number = places().index(position) + 1
        assert bytes(ring.view(position + 16, count - 16)) == bytes([number]) * (count - 16)
    # A successor may have another record to write than its predecessor had.
    ring.release(ring.head)
    head, position = ring.head, ring.claim(16)
    assert position == (head if head % 128 <= 112 else head + 128 - head % 128)
    ring.view(position, 16)[:] = (16).to_bytes(8, "little") + (99).to_bytes(8, "little")
    ring.publish(position + 16)
    assert list(ring.records(head, ring.head)) == [(position, 16)]


OBSERVER = (
    MAP
    + """
import numpy as np
from fastpath.ring import Observer, Ring

observer = Observer(Ring(memory, np.dtype("u8"), True))
out = np.zeros(4, "u8")
print(observer.copy(2, out), observer.missed, out.tolist())
"""
)


@pytest.mark.parametrize(
    ("claimed", "printed"),
    [
        (2, "True 0 [2, 3, 4, 5]\n"),  # positions 6 and 7 overwrite -2 and -1, in a ring of 8 slots
        (4, "True 0 [2, 3, 4, 5]\n"),  # as far as positions 0 and 1
        (5, "False 4 "),  # position 10 takes the place of position 2
        (8, "False 4 "),
    ],
)
def test_observer_overtaken_within_a_copy_keeps_nothing(
    start: Start, shared: Shared, claimed: int, printed: str
) -> None:
    file = shared(Ring.bytes_needed(8, 8))
    ring = Ring(file.memory, np.dtype("u8"), True)
    ring.claim(6)
    ring.slots[:6] = np.arange(6)
    ring.publish(6)
    ring.release(6)
    process = start(OBSERVER, "ring.observe.copying:1:stop", file)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    first = ring.claim(claimed)
    for position in range(first, first + claimed):
        ring.slots[position & ring.mask] = 1_000_000
    os.kill(process.pid, signal.SIGCONT)
    output, _ = process.communicate(timeout=60)
    assert output.startswith(printed)


def test_the_engines_build_has_no_failpoints(shared: Shared) -> None:
    file = shared(Ring.bytes_needed(CAPACITY, SLOT.itemsize))
    for step in [*STEPS, "ring.claim.padded"]:
        done = subprocess.run(
            [sys.executable, "-c", WRITER, str(file.fd), "-1", "none"],
            env={**os.environ, "TICKPATH_FAILPOINT": f"{step}:1"},
            pass_fds=(file.fd,),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "not killed\n"


# -- arbiter ---------------------------------------------------------------------------------------

ARBITER = (
    MAP
    + """
import json
from fastpath.arbiter import apply

rows = int(sys.argv[2])
for position, (epoch, sequence, minute, heartbeat) in enumerate(json.loads(sys.argv[3]), start=1):
    apply(memory[rows:], memory[:rows], 0, position, epoch, sequence, minute, heartbeat)
print("not killed")
"""
)

INPUTS = [
    (7, 5, 100, False),
    (7, 6, 100, False),
    (7, 10, 101, False),
    (7, 8, 101, False),
    (7, 12, 102, True),
    (9, 3, 103, False),
    (7, 7, 103, False),
    (7, 20, 103, False),
    (9, 1, 104, False),
]


@pytest.mark.parametrize("step", ["before", "copied", "taken", "stamped", "after"])
@pytest.mark.parametrize("times", [1, 2, 4, 6, 8])
def test_arbiter_killed_at_any_step_leaves_the_old_state_or_the_new_one(
    start: Start, shared: Shared, step: str, times: int
) -> None:
    file = shared(stream_row_dtype.itemsize + 2 * stream_state_dtype.itemsize)
    killed(start(ARBITER, f"arbiter.apply.{step}:{times}", file, stream_row_dtype.itemsize, json.dumps(INPUTS)))
    rows = np.frombuffer(file.memory, stream_row_dtype, 1)
    states = np.frombuffer(file.memory, stream_state_dtype, 2, stream_row_dtype.itemsize).reshape(1, 2)
    undisturbed, undisturbed_rows = stream_table()
    for position, each in enumerate(INPUTS[: times if step == "after" else times - 1], start=1):
        apply(undisturbed, undisturbed_rows, 0, position, *each)
    assert standing(states, rows) == standing(undisturbed, undisturbed_rows)
    # The successor applies everything that it finds on record, what was applied included.
    for position, each in enumerate(INPUTS, start=1):
        apply(states, rows, 0, position, *each)
        apply(undisturbed, undisturbed_rows, 0, position, *each)
    assert standing(states, rows) == standing(undisturbed, undisturbed_rows)
    assert decide(states, rows, 0, 9, 4) == decide(undisturbed, undisturbed_rows, 0, 9, 4)
    assert window_gaps(states, rows, 0, 0) == 6
