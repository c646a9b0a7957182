"""Who may read at the local bus, and for how long."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from engine.bus.frames import encode as frame
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.shared import EGRESS, Count
from tests.egress.role import Lines, at_work, settings_for
from tests.egress.stand import Inbox, run, until
from tests.system.servers import Issuer

TURNED_AWAY = {
    "malformed: a reader's first frame must be of message_type subscribe": {"message_type": "heartbeat"},
    "unauthenticated: the token of this message is not valid here; send a valid token with each message": {"jwt": "x"},
    "forbidden: the token lacks the scope predict": {"scopes": "models:read"},
    "tenant_mismatch: company_id differs from the token's": {"company_id": "evil"},
    "malformed: the first frame is not an ml.v1.MLProcessingEnvelope": {"body": b"\xff\xff\xff"},
    "a frame says it has 4294967295 bytes; at most 73728 are allowed: send a little-endian u32 length before each "
    "envelope, and smaller envelopes": {"frame": b"\xff\xff\xff\xff"},
}


@pytest.mark.parametrize("why", TURNED_AWAY)
def test_a_reader_without_the_right_is_turned_away(tmp_path: Path, issuer: Issuer, shared_for: Any, why: str) -> None:
    wrong: dict[str, Any] = TURNED_AWAY[why]
    envelope = MLProcessingEnvelope(
        message_type=wrong.get("message_type", "subscribe"), company_id=wrong.get("company_id", "")
    )
    envelope.auth_token.jwt = wrong.get("jwt", issuer.token("acme", scopes=wrong.get("scopes", "predict")))
    first_frame = wrong.get("frame", frame(wrong.get("body", envelope.SerializeToString())))

    async def main() -> None:
        settings = settings_for(tmp_path, issuer)
        shared = shared_for(settings)
        async with at_work(shared, settings) as egress:
            lines = Lines()
            egress.child.log.addHandler(lines)
            reader, writer = await asyncio.open_unix_connection(f"{settings.bus.local.path}.out")
            writer.write(first_frame)
            assert await reader.read() == b""
            writer.close()
            assert egress.readers == {}
            assert lines.lines == [f"local reader refused: {why}"]

    run(main())


def test_a_reader_that_says_more_than_one_thing_is_cut_off(tmp_path: Path, issuer: Issuer, shared_for: Any) -> None:
    async def main() -> None:
        settings = settings_for(tmp_path, issuer)
        shared = shared_for(settings)
        async with at_work(shared, settings) as egress:
            inbox = await Inbox().open(f"{settings.bus.local.path}.out", issuer.token("acme"))
            await until(lambda: egress.readers, "the reader is known")
            inbox.write(b"\0\0\0\0")
            await inbox.ended.wait()
            await until(lambda: egress.readers == {}, "forgotten")

    run(main())


def test_a_reader_is_closed_when_its_token_ends(tmp_path: Path, issuer: Issuer, shared_for: Any) -> None:
    async def main() -> None:
        settings = settings_for(tmp_path, issuer)
        shared = shared_for(settings)
        async with at_work(shared, settings) as egress:
            path = f"{settings.bus.local.path}.out"
            brief = await Inbox().open(path, issuer.token("acme", valid_s=2))
            long = await Inbox().open(path, issuer.token("acme"))
            await until(lambda: sum(map(len, egress.readers.values())) == 2, "both are known")
            await brief.ended.wait()
            assert not long.ended.is_set()
            assert sum(map(len, egress.readers.values())) == 1
            await until(lambda: shared.children[EGRESS.row]["counters"][Count.LOCAL_READERS] == 1, "counted")
            await long.close()

    run(main())


def test_readers_subscribe_again_when_the_keys_change(tmp_path: Path, issuer: Issuer, shared_for: Any) -> None:
    async def main() -> None:
        settings = settings_for(tmp_path, issuer)
        shared = shared_for(settings)
        async with at_work(shared, settings) as egress:
            inbox = await Inbox().open(f"{settings.bus.local.path}.out", issuer.token("acme"))
            await until(lambda: egress.readers, "the reader is known")
            Issuer(tmp_path)  # other keys in the same file
            await inbox.ended.wait()

    run(main())
