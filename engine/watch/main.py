"""The watch process: looks at what was accepted and answered, and records it.

Owns the tape, or the flight recorder where there is none. Reads the arena from beside, as an observer of its
rings; no process waits for it or rings it. What must stay true: it holds nobody up and changes no answer;
that it is slow, stopped, or out of disk costs nothing but its own record.
"""

import os
import signal
import time

from engine import limits
from engine.child import Child
from engine.shared import Count, Phase
from engine.watch.recording import Recording
from engine.watch.sinks import Folder, Memory, last_settled

LOOK_S = 0.02  # between two looks: many messages at once cost less than one by one, and verdicts are kept for longer
NICE = 5  # processes on the way of a vector come first
END_S = 0.5  # for what is confirmed after the last look


def run(child: Child) -> int:
    os.umask(0o077)
    os.nice(NICE)
    asked: list[int] = []
    signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
    child.pulse(Phase.LOADING)
    recorder = None
    recording = None
    settings = child.settings.tape
    counters = child.counters
    if settings.path:
        folder = Folder(settings, child.log)
        recording = Recording(child.shared, child.settings, folder, counters, child.log)
        epoch = int(child.shared.supervisor[0]["epoch"])
        try:
            folder.open()
            recording.open(*last_settled(folder.path, epoch, child.log))
        except OSError as error:
            child.log.error("the tape cannot be written: %s; predictions go on, and it is tried again", error)
            recording.open()
    elif settings.recorder_mb:
        recorder = Memory(settings)
        recording = Recording(child.shared, child.settings, recorder, counters, child.log)
        recording.open()
    child.ready()
    while not child.stopping():
        child.pulse(Phase.WRITING)
        if recording is not None:
            recording.look()
        if asked:
            asked.clear()
            dump(child, recorder)
        time.sleep(LOOK_S if recording is not None else limits.PULSE_EVERY_MS / 1000)
    if recording is not None:
        end(recording)
    return 0


def dump(child: Child, recorder: Memory | None) -> None:
    """The flight recorder to disk; a tape is there already."""
    if recorder is None:
        child.log.info("no flight recorder runs; nothing to write")
        return
    try:
        folder = recorder.dump(child.log)
    except OSError as error:
        child.counters[Count.TAPE_FAILURES] += 1
        child.log.error("the flight recorder cannot be written: %s", error)
        return
    child.counters[Count.TAPE_DUMPS] += 1
    child.log.info("the flight recorder is written to %s: %d segments", folder, len(recorder.segments))


def end(recording: Recording) -> None:
    """The last looks: what is confirmed within a moment is still taken."""
    until_s = time.monotonic() + END_S
    while (recording.look() or recording.pending) and time.monotonic() < until_s:
        time.sleep(LOOK_S)
    recording.close()
