"""The state of a drained engine comes back as it was, or not at all and with the reason."""

import os

import numpy as np
import pytest

from engine.errors import StateError
from engine.supervision import statefile
from tests.control import engines


@pytest.fixture
def shared():
    made = engines.make_shared()
    yield made
    engines.close(made)


def fill(shared) -> None:
    """Two streams and three keys in rows that do not begin at 0."""
    random = np.random.default_rng(5)
    for row, company in ((1, b"acme"), (3, b"zeta")):
        shared.streams[row]["company"], shared.streams[row]["stream"] = company, b"feed"
        shared.streams[row]["taken"], shared.streams[row]["generation"] = 1, 4
        shared.stream_states[row]["applied"] = 40 + row
    for row, stream in ((2, 1), (5, 3), (9, 3)):
        shared.keys[row]["symbol"], shared.keys[row]["stream"], shared.keys[row]["taken"] = b"EURUSD", stream, 1
        shared.windows[row]["mid"] = random.normal(size=shared.windows.shape[1])
    shared.ingress[0]["applied"] = 77


def test_what_was_kept_comes_back_to_the_bit_and_positions_go_on(shared, tmp_path):
    fill(shared)
    path = tmp_path / "engine.state"
    assert statefile.save(shared, path) == 3
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["engine.state"]
    other = engines.make_shared()
    try:
        assert statefile.restore(other, path) == 3
        assert int(other.ingress[0]["applied"]) == 77
        for name in ("streams", "keys"):
            assert (getattr(other, name)["used_ns"][getattr(other, name)["taken"] == 1] > 0).all()
            getattr(other, name)["used_ns"] = 0
        for name in ("streams", "stream_states", "keys", "windows"):
            assert getattr(other, name).tobytes() == getattr(shared, name).tobytes(), name
    finally:
        engines.close(other)


def test_without_a_file_an_engine_starts_cold(shared, tmp_path):
    assert statefile.restore(shared, tmp_path / "none") == 0


SPOILED = {
    "another build": (lambda state: state.update(build=np.array("0")), "expected the state of this build"),
    "a member is missing": (lambda state: state.pop("keys"), "found 'keys'"),
    "a row beyond the table": (lambda state: state["stream_rows"].put(1, 4), "expected at most 4 streams"),
    "a row before it": (lambda state: state["key_rows"].put(0, -1), "key_rows that are no rows"),
    "one row twice": (lambda state: state["key_rows"].put(0, 5), "key_rows that are no rows"),
    "windows too short": (lambda state: state.update(windows=state["windows"][:, :8]), "windows of another shape"),
    "another type": (lambda state: state.update(keys=state["keys"]["step"]), "keys of another shape"),
    "a key of no stream": (lambda state: state["keys"]["stream"].put(1, 4), "a key of no stream"),
    "no name": (lambda state: state["streams"]["company"].put(0, b"a.b\xff"), "names that are none"),
    "no symbol": (lambda state: state["keys"]["symbol"].put(0, b""), "names that are none"),
    "a third state": (lambda state: state["streams"]["active"].put(0, 2), "a third state of a stream"),
    "no position": (lambda state: state.update(applied=np.int64(-1)), "no position"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(shared, tmp_path, case):
    spoil, why = SPOILED[case]
    fill(shared)
    path = tmp_path / "engine.state"
    statefile.save(shared, path)
    with np.load(path) as file:
        state = {name: file[name] for name in file.files}
    spoil(state)
    with path.open("wb") as file:
        np.savez(file, **state)
    other = engines.make_shared()
    try:
        with pytest.raises(StateError, match=f"^{path}: .*{why}.*windows begin empty"):
            statefile.restore(other, path)
        assert not any(
            getattr(other, name).tobytes().strip(b"\0") for name in ("streams", "keys", "windows", "ingress")
        )
    finally:
        engines.close(other)


@pytest.mark.parametrize("end", [0, 3, 100, -1, -30])
def test_a_torn_or_a_changed_file_is_refused(shared, tmp_path, end):
    fill(shared)
    path = tmp_path / "engine.state"
    statefile.save(shared, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:end])
    with pytest.raises(StateError, match="expected the state of a drained engine, found"):
        statefile.restore(shared, path)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(StateError, match="expected the state of a drained engine, found"):
        statefile.restore(shared, path)
