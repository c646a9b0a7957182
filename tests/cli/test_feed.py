"""`feed` against a real nats-server and a real Unix socket."""

import asyncio
import json
import socket
import sys
import threading
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg
from running import ROOT, Command

from engine.bus.frames import FrameReader
from engine.client import bars
from engine.client.tokens import claims_of
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.ml.feature_vectors_pb2 import FeatureVector, FeatureVectorBatch
from engine.errors import SettingsError
from engine.settings import load
from engine.tenancy.tokens import Verifier

DATA = [str(ROOT / "data" / "fx_m1" / f"{symbol}.csv.gz") for symbol in ("EURUSD", "XAUUSD")]


async def fed(url: str, subject: str, *arguments: str) -> tuple[dict, str, list[Msg]]:
    """Runs a feed; (its summary, standard error, what a subscriber got)."""
    client = await nats.connect(url)
    messages: list[Msg] = []

    async def keep(message: Msg) -> None:
        messages.append(message)

    await client.subscribe(subject, cb=keep)
    await client.flush()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "engine",
        "feed",
        *arguments,
        "--json",
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    await client.flush()
    await client.close()
    return (json.loads(out) if process.returncode == 0 else {}), err.decode(), messages


def vectors_of(messages: list[MLProcessingEnvelope]) -> list[FeatureVector]:
    batches = [
        FeatureVectorBatch.FromString(each.payload) for each in messages if each.message_type == "feature_vectors"
    ]
    return [vector for batch in batches for vector in batch.feature_vectors]


def test_nats_gets_every_vector_once_in_order_with_its_name(nats_url: str, key: Path) -> None:
    config = key.with_name("engine.toml")
    config.write_text(config.read_text() + f'[bus.nats]\nurl = "{nats_url}"\n')
    summary, error, messages = asyncio.run(
        fed(
            nats_url,
            "ml.v1.features.acme.fe-7",
            *DATA,
            *("--config", str(config), "--key", str(key), "--company", "acme", "--user", "ann", "--stream", "fe-7"),
            *("--rate", "400", "--batch", "3", "--count", "500", "--correlations", "--indicators"),
        )
    )
    assert error == ""
    assert (summary["vectors"], summary["messages"], summary["next"]) == (500, 167, 168)
    envelopes = [MLProcessingEnvelope.FromString(message.data) for message in messages]
    batches = [each for each in envelopes if each.message_type == "feature_vectors"]
    beats = [each for each in envelopes if each.message_type == "heartbeat"]
    assert [each.sequence for each in batches] == list(range(1, 168))
    assert len(beats) == summary["heartbeats"] >= 2
    assert envelopes[-1].message_type == "heartbeat"
    assert envelopes[-1].sequence == 168
    for message, envelope in zip(messages, envelopes, strict=True):
        name = f"acme/fe-7/{summary['epoch']}/{envelope.sequence}"
        expected = {"Nats-Msg-Id": name} if envelope.message_type == "feature_vectors" else None
        assert message.headers == expected
        assert (envelope.company_id, envelope.user_id, envelope.service_source) == ("acme", "ann", "fe-7")
    files = [bars.load(path) for path in DATA]
    wanted = bars.interleave(files, indicators=True, universe=("EURUSD", "XAUUSD"))
    assert vectors_of(envelopes) == [next(wanted) for _ in range(500)]
    # What the engine will see is a token that it accepts.
    verifier = Verifier(load(str(config), {}).auth, 8192)
    verifier.open()
    claims = verifier.verify(envelopes[0].auth_token.jwt)
    assert (claims.company_id, claims.user_id, claims.scopes) == ("acme", "ann", frozenset({"predict"}))


def test_the_local_bus_gets_frames(tmp_path: Path, key: Path, engine: Command) -> None:
    path = tmp_path / "bus.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        received: list[bytes] = []

        def read() -> None:
            connection, _ = listener.accept()
            reader = FrameReader(1 << 20)
            with connection:
                while data := connection.recv(1 << 16):
                    received.extend(reader.feed(data))

        thread = threading.Thread(target=read)
        thread.start()
        done = engine(
            *("feed", DATA[0], "--config", key.with_name("engine.toml"), "--key", key),
            *("--rate", "1000", "--count", "300", "--json"),
            TICKPATH_BUS__LOCAL__PATH=str(path),
        )
        thread.join(10)
    assert done.stderr == ""
    envelopes = [MLProcessingEnvelope.FromString(each) for each in received]
    expected = bars.interleave([bars.load(DATA[0])])
    assert vectors_of(envelopes) == [next(expected) for _ in range(300)]
    assert json.loads(done.stdout)["messages"] == 300
    assert sum(len(each) for each in received) == json.loads(done.stdout)["bytes"]


def test_company_and_user_are_the_token_s_where_nothing_else_is_said(key: Path, engine: Command) -> None:
    made = engine("token", "--key", key, "--company", "acme", "--user", "ann")
    assert made.returncode == 0, made.stderr
    assert claims_of(made.stdout.strip()) == ("acme", "ann")


@pytest.mark.parametrize("token", ["", "a.b", "a.e30.c", "a.!!!.c", "a.WzFd.c"])
def test_a_text_that_is_no_token_is_told(token: str) -> None:
    with pytest.raises(SettingsError) as caught:
        claims_of(token)
    assert str(caught.value) == (
        "the token names no company_id and sub; expected a JWT, as `python -m engine token` prints it"
    )


NO_BUS = "feed: no bus to send on: {} is not set; set it in the configuration or the environment\n"


@pytest.mark.parametrize(
    ("arguments", "environ", "expected"),
    [
        ([DATA[0], "--rate", "1"], {}, NO_BUS.format("bus.nats.url or bus.kafka.bootstrap or bus.local.path")),
        ([DATA[0], "--rate", "1", "--bus", "local"], {}, NO_BUS.format("bus.local.path")),
        (
            [DATA[0], "--rate", "1"],
            {"TICKPATH_BUS__LOCAL__PATH": "/none/sock"},
            "feed: no token: give --token-file or --key, or set TICKPATH_TOKEN; `python -m engine token` makes one\n",
        ),
        (
            [DATA[0], "--rate", "1"],
            {"TICKPATH_BUS__LOCAL__PATH": "/none/sock", "TICKPATH_TOKEN": "a.eyJjb21wYW55X2lkIjoiYSIsInN1YiI6ImIifQ.c"},
            "feed: bus.local.path = /none/sock: nobody answers (No such file or directory); "
            "start the engine with the same configuration\n",
        ),
        (
            [DATA[0], "--rate", "1"],
            {
                "TICKPATH_BUS__NATS__URL": "nats://127.0.0.1:9",
                "TICKPATH_TOKEN": "a.eyJjb21wYW55X2lkIjoiYSIsInN1YiI6ImIifQ.c",
            },
            "feed: bus.nats.url = nats://127.0.0.1:9: no connection within 5 s "
            "([Errno 111] Connect call failed ('127.0.0.1', 9)); start nats-server, or correct the URL\n",
        ),
        (
            [DATA[0], "--rate", "1", "--stream", "a.b"],
            {
                "TICKPATH_BUS__LOCAL__PATH": "/none/sock",
                "TICKPATH_TOKEN": "a.eyJjb21wYW55X2lkIjoiYSIsInN1YiI6ImIifQ.c",
            },
            "feed: --stream 'a.b': expected 1 to 64 letters, digits, _ or -\n",
        ),
        (
            [DATA[0], "--rate", "1", "--batch", "65"],
            {},
            "feed: --batch 65 is more than limits.vectors = 64; send fewer\n",
        ),
        (
            [DATA[0], "--rate", "1", "--from-bar", "15367"],
            {
                "TICKPATH_BUS__LOCAL__PATH": "/none/sock",
                "TICKPATH_TOKEN": "a.eyJjb21wYW55X2lkIjoiYSIsInN1YiI6ImIifQ.c",
            },
            "feed: --from-bar 15367: the longest file has 15366 bars; start earlier\n",
        ),
    ],
)
def test_what_keeps_a_feed_from_starting_is_told(
    engine: Command, arguments: list[str], environ: dict[str, str], expected: str
) -> None:
    done = engine("feed", *arguments, **environ)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)
