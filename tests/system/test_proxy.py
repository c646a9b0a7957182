"""The proxy that tests put before real servers: each of its faults is what it says, and none of them stays."""

import asyncio
import contextlib
import time

import nats
import pytest

from tests.system.kafka import Broker, kafka_broker
from tests.system.proxy import Proxy, whole_messages
from tests.system.servers import nats_server, until
from tests.system.test_broker import read, write
from tests.system.traffic import eventually


def port_of(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


@contextlib.asynccontextmanager
async def through(proxy: Proxy):
    """A client that does not give up, and what it hears of its own subject."""
    heard: list[bytes] = []
    client = await nats.connect(
        f"nats://127.0.0.1:{proxy.port}", reconnect_time_wait=0.02, max_reconnect_attempts=-1, ping_interval=60
    )

    async def take(message) -> None:
        heard.append(message.data)

    await client.subscribe("s", cb=take)
    await client.flush()
    try:
        yield client, heard
    finally:
        await client.close()


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_messages_are_cut_from_a_stream_wherever_it_is_broken(step: int) -> None:
    messages = [
        b'CONNECT {"a": 1}\r\n',
        b"PUB s 4\r\n\r\n\r\n\r\n",
        b"HPUB s reply 12 16\r\nNATS/1.0\r\n\r\nPUB \r\n",
        b"PING\r\n",
    ]
    stream, buffer, found = b"".join(messages), bytearray(), []
    for begin in range(0, len(stream), step):
        buffer += stream[begin : begin + step]
        found += list(whole_messages(buffer))
    assert found == messages
    assert buffer == b""


def test_delay_holds_for_each_way_and_keeps_the_order() -> None:
    async def main(proxy: Proxy) -> None:
        async with through(proxy) as (client, heard):
            proxy.delay_s, proxy.jitter_s = 0.05, 0.02
            begin_s = time.monotonic()
            for number in range(100):
                await client.publish("s", b"%d" % number)
                await client.flush()
                if time.monotonic() - begin_s > 1:
                    break
            await eventually(lambda: len(heard) == number + 1, 5, "all are there")
            assert heard == [b"%d" % number for number in range(len(heard))]
            assert (time.monotonic() - begin_s) / len(heard) > 0.06, "two ways of at least 30 ms"

    with nats_server() as url, Proxy(port_of(url)) as proxy:
        asyncio.run(main(proxy))


def test_whole_messages_are_lost_where_asked_and_no_others() -> None:
    async def main(proxy: Proxy) -> None:
        async with through(proxy) as (client, heard):
            for number in range(1000):
                await client.publish("s", b"number %d" % number, headers={"Nats-Msg-Id": str(number)})
            await client.flush()
            await eventually(lambda: len(heard) >= 900, 5, "the others are there")
            assert heard == [b"number %d" % number for number in range(1000) if number % 10 != 7]
            assert proxy.dropped == 100

    with nats_server() as url, Proxy(port_of(url), drop=lambda message: message.endswith(b"7\r\n")) as proxy:
        asyncio.run(main(proxy))


def test_half_open_swallows_and_goes_on_with_new_connections() -> None:
    async def main(proxy: Proxy) -> None:
        async with through(proxy) as (client, heard):
            proxy.half_open()
            await client.publish("s", b"swallowed")
            with pytest.raises(nats.errors.TimeoutError):
                await client.flush(0.3)
            assert client.is_connected, "nobody told it"
            assert proxy.connections() == 1
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.3)
            writer.close()
            proxy.resume()
            await eventually(lambda: client.stats["reconnects"] == 1, 5, "it connected again")
            await client.flush()
            await client.publish("s", b"passes")
            await client.flush()
            await eventually(lambda: heard, 5, "it passes")
            assert heard == [b"passes"]

    with nats_server() as url, Proxy(port_of(url)) as proxy:
        asyncio.run(main(proxy))


def test_cut_breaks_connections_and_refuse_takes_no_new_ones() -> None:
    async def main(proxy: Proxy) -> None:
        async with through(proxy) as (client, _):
            assert proxy.cut() == 1
            await eventually(lambda: client.stats["reconnects"] == 1, 5, "it came back at once")
            await client.flush()
            proxy.refuse()
            await eventually(lambda: not client.is_connected, 5, "it lost its connection")
            with pytest.raises(OSError, match="111"):
                await asyncio.open_connection("127.0.0.1", proxy.port)
            proxy.resume()
            await eventually(lambda: client.stats["reconnects"] == 2, 5, "it came back")

    with nats_server() as url, Proxy(port_of(url)) as proxy:
        asyncio.run(main(proxy))


def test_kafka_is_reached_through_it_and_only_through_it() -> None:
    with Proxy() as proxy, kafka_broker(proxy_port=proxy.port) as broker:
        check_kafka(proxy, broker)


def check_kafka(proxy: Proxy, broker: Broker) -> None:
    proxy.target_port = broker.behind_port
    proxied = f"127.0.0.1:{proxy.port}"
    write(proxied, ["one"])
    proxy.refuse()
    assert read(proxied, 1, within_s=1) == []
    assert read(broker.bootstrap, 1) == ["one"]
    proxy.resume()
    assert read(proxied, 1) == ["one"]
    until(lambda: proxy.connections() == 0, 5, "its connections end with its clients")
