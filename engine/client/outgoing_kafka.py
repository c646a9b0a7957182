"""A producer's way out over Kafka.

Owns librdkafka's producer and the thread that polls it. Runs in a producer's process; writes messages to the topic of
features, keyed by company and stream. What must stay true: a message counts as confirmed by its delivery report
alone, and one that librdkafka still holds is not given to it a second time.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from engine.bus import kafka
from engine.client.connecting import BUS_LOG, RETRY_S
from engine.client.outgoing import BusLane, Outgoing
from engine.contract.names import FEATURES_SUBJECT
from engine.errors import BusError
from engine.settings import Kafka

NAME_HEADER = "msg-id"
POLL_S = 0.05
FLUSH_S = 2.0


class KafkaLane(BusLane):
    """Produces with the message's name as header; confirms by delivery reports."""

    bus = "kafka"

    def __init__(self, section: Kafka, name: str) -> None:
        super().__init__(section.bootstrap)
        self._section = section
        self._name = name
        self._producer: Any = None
        self._thread = ThreadPoolExecutor(1, "tickpath-kafka")
        self._tasks: list[asyncio.Task[None]] = []
        self._reports: list[tuple[int, str]] = []  # (sequence, why it was not delivered), from the poll
        self._open: set[int] = set()
        self.missed = 0

    def open(self) -> None:
        from confluent_kafka import Producer

        defaults = {"enable.idempotence": True, "linger.ms": 1, "message.timeout.ms": 60_000}
        own = {"error_cb": self._on_error, "logger": BUS_LOG}
        self._producer = Producer({**defaults, **kafka.options(self._section, self._name), **own})
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._tasks = [loop.create_task(self._probe()), loop.create_task(self._poll())]

    def absent(self, within_s: float) -> BusError:
        return BusError(
            f"bus.kafka.bootstrap = {self.where}: no broker answers within {within_s:g} s ({self.why or 'no answer'}); "
            "start the broker, or correct the address and bus.kafka.options"
        )

    async def _probe(self) -> None:
        """Until the cluster has told of the topic once."""
        from confluent_kafka import KafkaException

        while not self.up:
            try:
                await asyncio.to_thread(self._producer.list_topics, FEATURES_SUBJECT, 2.0)
                self._turn(True)
            except KafkaException as error:
                self.why = self.why or str(error.args[0].str())
                await asyncio.sleep(RETRY_S)

    async def send(self, message: Outgoing) -> bool:
        """Whether or not it is up: librdkafka waits for the broker."""
        if message.name and message.sequence in self._open:
            return True
        from confluent_kafka import KafkaException

        headers = [(NAME_HEADER, message.name.encode())] if message.name else None
        sequence = message.sequence if message.name else 0
        try:
            self._producer.produce(
                FEATURES_SUBJECT,
                message.body,
                message.key,
                headers=headers,
                on_delivery=lambda error, _: self._reports.append((sequence, error.str() if error else "")),
            )
        except BufferError:
            return False  # its queue is full; what is open is tried again soon
        except KafkaException as error:
            self._refused(str(error.args[0].str()), message)
            return False
        if sequence:
            self._open.add(sequence)
        return True

    def _refused(self, why: str, message: Outgoing) -> None:
        """librdkafka itself takes no more, or not this one; told once."""
        if why != self.why:
            self.why = why
            self.trouble(
                BusError(
                    f"bus.kafka.bootstrap = {self.where}: {message.name or 'a heartbeat'} is not taken ({why}); "
                    "see the broker and bus.kafka.options"
                )
            )
        self._turn(False)

    async def _poll(self) -> None:
        while True:
            await self._loop.run_in_executor(self._thread, self._producer.poll, POLL_S)
            reports, self._reports = self._reports, []
            failed = 0
            for sequence, why in reports:
                self._open.discard(sequence)
                if why:
                    self.why = why
                    failed += bool(sequence)
                elif sequence:
                    self.confirmed(sequence, False)
            if reports and not failed:
                self._turn(True)
            if failed:
                self.missed += failed
                self.came()  # those that nobody has yet go out again

    def _on_error(self, error: Any) -> None:
        """In the polling thread."""
        from confluent_kafka import KafkaError

        self.why = error.str()
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._loop.call_soon_threadsafe(self._turn, False)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._producer is not None:
            await self._loop.run_in_executor(self._thread, self._producer.flush, FLUSH_S if self.up else 0.0)
            self._producer.purge()
        self._thread.shutdown()
