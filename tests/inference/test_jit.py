"""Compiled kernels: kept in a folder of our own, found again, never compiled on the way."""

import mmap
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ModelError
from engine.inference import jit, microbatch, warm
from fastpath import layout
from fastpath.ring import Ring
from tests.inference.conftest import answer
from tests.inference.test_repeats import busy_market

ROOT = Path(__file__).parents[2]
START = """
import numpy as np
from engine.inference import jit
from tests.inference.conftest import STORE, make_predictor
make_predictor(STORE)
stats = [each.stats for each in jit.kernels]
print(sum(sum(each.cache_misses.values()) for each in stats), sum(sum(each.cache_hits.values()) for each in stats))
"""


def test_second_start_of_a_worker_compiles_nothing():
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", START], cwd=ROOT, capture_output=True, text=True, timeout=240, check=True
        )
    misses, hits = (int(each) for each in done.stdout.split())
    assert misses == 0
    assert hits > 5


def test_no_kernel_is_compiled_on_the_way(predictor):
    """Over real rings and a window region in shared memory, in every state of a slot."""
    size = Ring.bytes_needed(512)
    requests, answers = (
        Ring(memoryview(mmap.mmap(-1, size)), dtype, observed=True)
        for dtype in (layout.request_slot_dtype, layout.answer_slot_dtype)
    )
    entries = np.frombuffer(mmap.mmap(-1, 3 * 256 * 256), layout.window_entry_dtype).reshape(3, 256)
    slots = busy_market(np.random.default_rng(61), 400).slots()
    requests.slots[:] = slots
    microbatch.warm(requests.slots, answers.slots)
    before = [(each.py_func.__qualname__, len(each.signatures)) for each in jit.kernels]
    verdicts = np.random.default_rng(62).integers(0, 3, 400).astype("u1")
    answer(predictor, requests.slots, 400, entries, verdicts=verdicts, answers=answers.slots)
    assert [(each.py_func.__qualname__, len(each.signatures)) for each in jit.kernels] == before


def test_warming_up_says_which_kernels_it_compiled_and_then_none(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["warm"])
    assert warm.main() == 0
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(rf"0 kernels compiled, {len(jit.kernels)} ready in {re.escape(str(jit.FOLDER))}", line)


def test_folder_is_made_for_its_owner_alone(tmp_path):
    folder = jit.secure(tmp_path / "kernels")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / ".gitignore").read_text() == "*\n"


def test_folder_that_others_can_write_is_refused(tmp_path):
    folder = tmp_path / "kernels"
    folder.mkdir()
    folder.chmod(0o722)
    with pytest.raises(ModelError) as refused:
        jit.secure(folder)
    assert str(refused.value) == (
        f"{folder}: expected mode 0700, found 0722, so others could change what the engine runs; "
        f"run `chmod 0700 {folder}` if nobody did"
    )


def test_folder_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "kernels").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError) as refused:
        jit.secure(tmp_path / "kernels")
    assert str(refused.value) == (
        f"{tmp_path / 'kernels'}: expected a folder for compiled kernels, found something else; "
        "remove it and run `make setup`"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_folder_of_another_user_is_refused(tmp_path):
    folder = tmp_path / "kernels"
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, -1)
    with pytest.raises(ModelError) as refused:
        jit.secure(folder)
    assert str(refused.value) == (
        f"{folder}: expected a folder of user 0 or of root, found owner 12345; "
        "compiled kernels are code, so remove it and run `make setup` as the engine's user"
    )


def test_installation_that_cannot_be_written_still_runs(monkeypatch, caplog):
    monkeypatch.setattr(jit, "FOLDER", Path("/proc/self/kernels"))
    kernels = list(jit.kernels)

    @jit.kernel
    def double(x):
        return 2 * x

    try:
        assert double(21) == 42
    finally:
        jit.kernels[:] = kernels
    assert "a compiled kernel could not be kept in /proc/self/kernels" in caplog.messages[0]


def test_a_change_in_any_kernels_source_voids_them_all(tmp_path, monkeypatch):
    """They are compiled into each other, so a file's own time or hash says too little."""
    sources = tmp_path / "inference"
    sources.mkdir()
    (tmp_path / "contract").mkdir()
    (tmp_path / "contract" / "names.py").write_text("A = 1")
    (tmp_path / "shared.py").write_text("B = 1")
    (sources / "one.py").write_text("from engine.inference.jit import kernel")
    (sources / "other.py").write_text("nothing compiled")
    monkeypatch.setattr(jit, "SOURCES", sources)
    stamps = []
    for file, text in (
        ("one.py", None),
        ("other.py", "more"),
        ("one.py", "from engine.inference.jit import kernel\n1"),
        ("../shared.py", "B = 2"),
    ):
        if text is not None:
            (sources / file).write_text(text)
        jit._source_stamp.cache_clear()
        stamps.append(jit._source_stamp())
    jit._source_stamp.cache_clear()
    assert stamps[0] == stamps[1] != stamps[2] != stamps[3]
