"""The Kafka broker of the tests: it keeps what it acknowledged, whatever is done to it, and leaves nothing behind."""

import time

from confluent_kafka import Consumer, Producer, TopicPartition

from tests.system.kafka import PARTITIONS, TOPICS, kafka_broker, reachable
from tests.system.servers import free_port


def write(bootstrap: str, texts: list[str], within_s: float = 30) -> None:
    failed: list[object] = []
    options = {"bootstrap.servers": bootstrap, "acks": "all", "reconnect.backoff.max.ms": 100, "log_level": 0}
    producer = Producer(options)
    for text in texts:
        producer.produce(TOPICS[0], text.encode(), key=b"acme/a", on_delivery=lambda error, _: failed.append(error))
    assert producer.flush(within_s) == 0
    assert failed == [None] * len(texts)


def read(bootstrap: str, count: int, within_s: float = 30) -> list[str]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "test", "log_level": 0})
    consumer.assign([TopicPartition(TOPICS[0], partition, 0) for partition in range(PARTITIONS)])
    texts: list[str] = []
    deadline_s = time.monotonic() + within_s
    while len(texts) < count and time.monotonic() < deadline_s:
        message = consumer.poll(0.1)
        if message is not None:
            assert message.error() is None, message.error()
            texts.append(message.value().decode())
    consumer.close()
    return texts


def test_a_killed_broker_comes_back_with_its_records_and_ends_without_a_trace() -> None:
    with kafka_broker() as broker:
        write(broker.bootstrap, ["one", "two"])
        broker.kill()
        assert not reachable(broker.bootstrap, 0.2)
        begin_s = time.monotonic()
        broker.start()
        print(f"again after a kill in {time.monotonic() - begin_s:.1f} s")
        write(broker.bootstrap, ["three"])
        assert read(broker.bootstrap, 3) == ["one", "two", "three"]
    assert not broker.folder.exists()
    assert broker.handle is not None
    assert broker.handle.poll() is not None


def test_a_stopped_broker_answers_nobody_until_it_goes_on() -> None:
    with kafka_broker() as broker:
        broker.stop()
        assert not reachable(broker.bootstrap, 0.5)
        broker.cont()
        write(broker.bootstrap, ["one"])
        assert read(broker.bootstrap, 1) == ["one"]


def test_clients_behind_a_proxy_are_told_its_address() -> None:
    port = free_port()
    with kafka_broker(proxy_port=port) as broker:
        assert not reachable(f"127.0.0.1:{port}", 0.2), "nobody listens there yet"
        assert broker.advertised(f"127.0.0.1:{broker.behind_port}") == f"127.0.0.1:{port}"
        assert broker.advertised(broker.bootstrap) == broker.bootstrap


def test_the_shared_broker_is_there(kafka_bootstrap: str) -> None:
    assert reachable(kafka_bootstrap, 5)
