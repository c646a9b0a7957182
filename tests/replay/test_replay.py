"""A tape replays to the answers that were given live, to the bit, however it is run."""

import json
import shutil
import struct
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import pytest

from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.ml_predictions_pb2 import MLPredictionBatch
from engine.errors import TapeError
from engine.replay.diff import compare, inputs_of
from engine.replay.digest import plain as values_of
from engine.replay.reading import Hole, Tape
from engine.replay.running import Result, results
from engine.watch import tape as format
from engine.watch.tape import Part, Reader
from tests.replay.conftest import choice_of, digest_of, replayed
from tests.replay.recorded import Live
from tests.system.servers import ROOT


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "engine", *words], cwd=ROOT, capture_output=True, text=True)


def statuses(found: list[Result]) -> Counter[int]:
    told: Counter[int] = Counter()
    for each in found:
        envelope = MLProcessingEnvelope.FromString(each.values)
        if envelope.message_type == "ml_inference":
            told.update(each.status for each in MLPredictionBatch.FromString(envelope.payload).predictions)
    return told


def test_the_replay_says_what_readers_got_for_every_name(live: Live, plain: list[Result]) -> None:
    told = {}
    for each in plain:
        envelope = MLProcessingEnvelope.FromString(each.values)
        told[envelope.company_id, envelope.sequence] = each.values
    assert told.keys() == live.answers.keys()
    got = {name: values_of(envelope.SerializeToString()) for name, envelope in live.answers.items()}
    assert [name for name in told if told[name] != got[name]] == []
    assert digest_of(plain) == digest_of(plain, live=True)
    assert set(statuses(plain)) == {1, 3, 4, 5} | (set(statuses(plain)) & {2}), "the tape holds every kind of answer"


@pytest.mark.parametrize(("max_batch", "workers"), [(1, 1), (7, 1), (7, 2), (32, 2)])
def test_microbatch_and_processes_change_no_answer(
    tape: Path, plain: list[Result], max_batch: int, workers: int
) -> None:
    again = replayed(tape, max_batch, workers)
    assert [each.position for each in again] == [each.position for each in plain]
    assert digest_of(again) == digest_of(plain)


def next_first(source: Tape, path: Path) -> int:
    """Position that the segment behind this one begins at."""
    firsts = {each: head["first"] for each, head in source.segments}
    behind = [each for each in firsts if each > path]
    return firsts[behind[0]] if behind else sys.maxsize


def test_every_segment_can_be_begun_at(tape: Path, plain: list[Result]) -> None:
    """Windows were copied while the engine ran; what follows is answered as from the beginning."""
    source = Tape(tape).open()
    assert sum(head["whole"] for _, head in source.segments) >= 3
    expected = {each.position: each.values for each in plain}
    for path, head in source.segments:
        if not head["whole"]:
            continue  # the first of a watch that was started again may be that; the next one is whole
        # The next segment begins with those whose answers are not in this one: one of them may have expired.
        end = next_first(source, path)
        found = replayed(path)
        rest = [each for each in found if each.live is not None]
        assert [each.position for each in found if each.live is None and each.position < end] == []
        assert [each.position for each in rest if each.values != expected[each.position]] == [], path


def test_a_part_is_chosen_by_position_and_stream_and_keeps_its_state(tape: Path, plain: list[Result]) -> None:
    middle = plain[len(plain) // 2].position
    part = replayed(tape, from_position=middle, to_position=middle + 200, stream=("large", "feed-0"))
    expected = [
        each
        for each in plain
        if middle <= each.position <= middle + 200
        and MLProcessingEnvelope.FromString(each.values).company_id == "large"
    ]
    assert len(expected) > 30
    assert [each.values for each in part] == [each.values for each in expected]


def changed_price(tape: Path, folder: Path, position: int) -> Path:
    """A copy of the tape in which the input's first bid is otherwise, checksums right."""
    folder.mkdir()
    for path in format.segments(tape):
        content = bytearray(format.MAGIC + format.FORMAT.to_bytes(4, "little"))
        for frame in Reader(path):
            body = frame.body
            if frame.part == Part.INPUT and int.from_bytes(body[8:16], "little") == position:
                bid = float(inputs_of(body)[0].split("bid: ")[1].split()[0])
                assert body.count(struct.pack("<d", bid)) == 1
                body = body.replace(struct.pack("<d", bid), struct.pack("<d", bid * (1 - 1e-6)))
            content += format.frame(frame.part, body, frame.worker)
        (folder / path.name).write_bytes(content)
    return folder


def test_one_changed_price_changes_the_digest_and_is_named(tape: Path, plain: list[Result], tmp_path: Path) -> None:
    ok = [each for each in plain if b"large" in each.values and each.vectors == 1 and statuses([each]) == {1: 1}]
    position = ok[len(ok) // 2].position
    other = changed_price(tape, tmp_path / "other", position)
    again = replayed(other)
    assert digest_of(again) != digest_of(plain)
    difference = compare(results(choice_of(tape), 1, print), results(choice_of(other), 1, print))
    assert difference is not None
    assert difference.position == position
    assert difference.name.startswith("large/feed-0/")
    assert "predictions[0].price.base_price" in difference.fields
    assert "bid: " in difference.inputs[0]
    against_live = compare(results(choice_of(other), 1, print), None)
    assert against_live is not None
    assert against_live.position == position


def test_a_torn_tail_is_cut_and_what_was_whole_is_answered(tape: Path, plain: list[Result], tmp_path: Path) -> None:
    last = format.segments(tape)[-1]
    for cut in (1, 30, 5000):
        copy = tmp_path / f"cut-{cut}"
        shutil.copytree(tape, copy)
        whole = (copy / last.name).read_bytes()
        (copy / last.name).write_bytes(whole[:-cut])
        notes: list[str] = []
        found = list(results(choice_of(copy), 1, notes.append))
        assert [each.values for each in found] == [each.values for each in plain[: len(found)]]
        assert len(found) >= len(plain) - 20
        reader = Reader(copy / last.name)
        list(reader)
        assert notes == [f"{copy / last.name}: its end is torn and left out, from byte {reader.torn_at} on"]


@pytest.mark.parametrize("where", ["head", "body"])
def test_a_flipped_bit_is_found_by_its_checksum(tape: Path, plain: list[Result], tmp_path: Path, where: str) -> None:
    source = Tape(tape).open()
    # One whose second half no other segment repeats.
    middle = max(
        format.segments(tape)[:-1], key=lambda path: next_first(source, path) - format.read_head(path)["first"]
    )
    frames = [frame for frame in Reader(middle) if frame.part == Part.INPUT]
    frame = frames[(next_first(source, middle) - format.read_head(middle)["first"]) // 2]
    copy = tmp_path / "copy"
    shutil.copytree(tape, copy)
    damaged = bytearray((copy / middle.name).read_bytes())
    damaged[frame.at + (2 if where == "head" else 16 + len(frame.body) // 2)] ^= 4
    (copy / middle.name).write_bytes(damaged)
    why = (
        f"{copy / middle.name}: the frame at byte {frame.at} is damaged: its checksum does not fit; "
        "take a copy of the file, or go on behind this segment with --skip-holes"
    )
    before: list[Result] = []
    with pytest.raises(TapeError) as raised:
        before.extend(results(choice_of(copy), 1, print))
    assert str(raised.value) == why
    notes: list[str] = []
    found = list(results(choice_of(copy, skip_holes=True), 1, notes.append))
    assert notes[0] == why
    assert notes[1].startswith(f"{copy}/")  # and more, where the next segment cannot be begun at
    assert " inputs are missing behind position " in notes[1]
    assert 0 < len(found) < len(plain)
    expected = {each.position: each.values for each in plain}
    assert [each.position for each in found if each.values != expected[each.position]] == []


def test_replay_stops_at_a_hole_unless_it_is_told_to_skip(tape: Path, plain: list[Result], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tape, copy)
    paths = format.segments(copy)[:1] + [each for each in format.segments(copy)[1:] if format.read_head(each)["whole"]]
    behind, told_till = format.read_head(paths[2])["first"], next_first(Tape(copy).open(), paths[0])
    for each in format.segments(copy):
        if paths[0] < each < paths[2]:
            each.unlink()
    found: list[Result] = []
    with pytest.raises(Hole) as raised:
        found.extend(results(choice_of(copy), 1, print))
    newest = max(int.from_bytes(frame.body[8:16], "little") for frame in Reader(paths[0]) if frame.part == Part.INPUT)
    missing = f"{paths[2]}: {behind - newest - 1} inputs are missing behind position {newest}"
    assert str(raised.value) == f"{missing}; --skip-holes goes on behind them"
    assert found[-1].position <= newest
    notes: list[str] = []
    found = list(results(choice_of(copy, skip_holes=True), 1, notes.append))
    assert notes == [missing]
    kept = [each for each in plain if each.position <= newest or each.position >= behind]
    assert [each.position for each in found] == [each.position for each in kept]
    # What became of the last ones before the hole is not on the tape any more: one of them may have expired.
    known = [(each, whole) for each, whole in zip(found, kept, strict=True) if each.live is not None]
    assert [each.position for each in found if each.live is None and not told_till <= each.position < behind] == []
    assert [each.position for each, whole in known if each.values != whole.values] == []

    ended = command("replay", str(copy), "--json")
    assert ended.returncode == 1
    assert f"replay: stopped: {missing}; --skip-holes goes on behind them" in ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1])["stopped"] == f"{missing}; --skip-holes goes on behind them"


def test_no_token_is_on_the_tape_and_only_its_user_can_read_it(live: Live, tape: Path) -> None:
    parts = [part.encode() for token in live.tokens.values() for part in token.split(".")[1:]]
    assert all(len(part) > 40 for part in parts)
    paths = format.segments(tape)
    for path in paths:
        raw = path.read_bytes()
        packed = [zlib.decompress(each.body[16:]) for each in Reader(path) if each.part == Part.TABLE]
        assert [part for part in parts if part in raw or any(part in each for each in packed)] == []
    assert {path.stat().st_mode & 0o777 for path in paths} == {0o600}
    assert tape.stat().st_mode & 0o777 == 0o700


def test_the_command_tells_digest_counts_and_writes_a_table(
    live: Live, tape: Path, plain: list[Result], tmp_path
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "answers.parquet"
    ended = command("replay", str(tape), "--config", str(live.engine.config), "--json", "--out", str(out))
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["digest"] == told["live_digest"] == digest_of(plain)
    assert told["inputs"] == told["answers"] == len(plain)
    assert (told["unknown"], told["differ"], told["first_differs"]) == (0, 0, None)
    table = parquet.read_table(out)
    assert table.num_rows == sum(max(1, each.vectors) for each in plain)
    assert set(table["as_live"].to_pylist()) == {True}
    assert {"OK", "WARMING", "EXPIRED", "REJECTED"} <= set(table["status"].to_pylist())
    same = command("replay", str(tape), "--config", str(live.engine.config), "--diff", "live")
    assert (same.returncode, same.stdout) == (0, "no answer differs\n")


def test_explain_shows_how_one_answer_came_about(live: Live, tape: Path) -> None:
    stream = live.streams[2]
    name = f"{live.engine.name}/large/feed-0/{stream.epoch}/300"
    ended = command("explain", name, "--tape", str(tape), "--config", str(live.engine.config), "--json")
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["name"] == name
    assert told["sent"] == "as answered"
    assert told["replayed"] == "the same to the bit"
    (vector,) = told["vectors"]
    prediction = MLPredictionBatch.FromString(live.answers["large", 300].payload).predictions[0]
    assert vector["prices"]["1m"][1] == prediction.predicted_value
    assert [each["model"].split()[0] for each in vector["contributions"]] == [
        each.model.model_id for each in prediction.ensemble.contributions
    ]
    assert vector["window"]["closed_minutes"] >= 200
    assert told["timings_ms"]["taken_to_answered"] > 0
    short = name.split("/", 1)[1]
    words = command("explain", short, "--tape", str(tape)).stdout
    assert f"name: {name}\n" in words
    unknown = command("explain", "large/feed-0/1/1", "--tape", str(tape))
    assert (unknown.returncode, unknown.stderr) == (
        1,
        f"explain: {tape}: no input large/feed-0/1/1 is on this tape\n",
    )
