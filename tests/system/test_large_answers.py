"""An answer that the server would refuse is not lost: a rejection takes its place."""

import asyncio

import nats

from tests.system.servers import EngineProcess, Issuer, nats_server
from tests.system.traffic import SYMBOLS, Reader, Stream, eventually

PAYLOAD_MAX = 4096


async def one_large_and_one_small(url: str, stream: Stream) -> Reader:
    client = await nats.connect(url)
    reader = await Reader().open(client)
    await client.publish(stream.subject, stream.message([stream.vector(symbol) for symbol in SYMBOLS]))
    await client.publish(stream.subject, stream.message([stream.vector("EURUSD")]))
    await eventually(lambda: len(reader.named(stream)) == 2, 10, "both are answered")
    await client.close()
    return reader


def test_an_answer_larger_than_the_bus_takes_becomes_an_internal_rejection(tmp_path):
    config = tmp_path / "nats.conf"
    config.write_text(f"max_payload: {PAYLOAD_MAX}\n")
    issuer = Issuer(tmp_path)
    stream = Stream("acme", "feed-0", issuer.token("acme"))
    with nats_server("-c", str(config)) as url, EngineProcess(tmp_path, issuer, url) as engine:
        engine.wait_ready()
        reader = asyncio.run(one_large_and_one_small(url, stream))
        assert engine.stop() == 0
    large, small = reader.named(stream)
    assert large.subject == "ml.v1.rejections.acme.feed-0"
    assert (large.rejection.code, large.rejection.verified) == ("internal", True)
    assert large.rejection.detail.endswith(f"and the bus takes {PAYLOAD_MAX}; send fewer vectors in one message")
    assert [answer.envelope.sequence for answer in (large, small)] == [1, 2]
    assert small.envelope.message_type == "ml_inference"
