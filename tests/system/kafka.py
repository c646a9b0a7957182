"""A real Kafka broker for tests and benchmarks: one KRaft node on free ports, ended with its folder.

`make test-setup` gets what it runs from (`broker/`). Runs in the test's process, the broker beside it. What must stay
true: no broker and no folder outlives `kafka_broker()`, and where none can be had a test fails and says what to do.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from tests.system.servers import free_port, until

# Where its jars lie: an installed Kafka, or what `make test-setup` got.
HOME = Path(os.environ.get("KAFKA_HOME", Path(sys.executable).parents[1] / "kafka"))
HELP = "`make test-setup`, or set KAFKA_HOME to an unpacked Kafka 4, or TICKPATH_TEST_KAFKA to host:port of a broker"
# Starts in seconds rather than for throughput, and takes little room beside an engine.
JAVA = ("java", "-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
# Classes as an earlier broker had loaded them: half the time of a start. Java takes no archive that does not fit.
ARCHIVE = HOME / "classes.jsa"
LOGS = (
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
)
PARTITIONS = 4
TOPICS = tuple(
    f"ml.v1.{name}" for name in ("features", "outcomes", "predictions", "rejections", "alerts", "deadletter")
)

PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=DIRECT://127.0.0.1:{port},BEHIND://127.0.0.1:{behind_port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=DIRECT://127.0.0.1:{port},BEHIND://127.0.0.1:{proxy_port}
listener.security.protocol.map=DIRECT:PLAINTEXT,BEHIND:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=DIRECT
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller_port}
log.dirs={folder}/log
num.network.threads=1
num.io.threads=2
background.threads=1
num.partitions={partitions}
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=3000
log.cleaner.enable=false
"""


@dataclass
class Broker:
    """One node, and what can happen to it. `bootstrap` goes straight to it; `behind_port` is the listener that
    tells its clients `proxy_port` as its address, for a proxy between the two."""

    folder: Path
    proxy_port: int = 0
    port: int = field(default_factory=free_port)
    behind_port: int = field(default_factory=free_port)
    controller_port: int = field(default_factory=free_port)
    handle: subprocess.Popen | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def archive(self) -> Path:
        return self.folder / ARCHIVE.name

    def _command(self, main: str, *arguments: str) -> list[str]:
        classes = f"SharedArchiveFile={ARCHIVE}" if ARCHIVE.exists() else f"ArchiveClassesAtExit={self.archive}"
        return [*JAVA, *LOGS, f"-XX:{classes}", "-cp", f"{HOME}/libs/*", main, *arguments]

    def format(self) -> "Broker":
        """Its storage, before the first start."""
        if not shutil.which("java") or not list(HOME.glob("libs/kafka_*.jar")):
            pytest.fail(f"no Kafka broker in {HOME} or no Java to run it: {HELP}", pytrace=False)
        ports = {"port": self.port, "behind_port": self.behind_port, "controller_port": self.controller_port}
        properties = PROPERTIES.format(
            **ports, proxy_port=self.proxy_port or self.behind_port, folder=self.folder, partitions=PARTITIONS
        )
        (self.folder / "server.properties").write_text(properties)
        cluster = ("-t", "AAAAAAAAAAAAAAAAAAAAAQ")
        command = self._command("kafka.tools.StorageTool", "format", *cluster, "-c", "server.properties")
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"kafka.tools.StorageTool: {done.stdout}{done.stderr}"
        return self

    def start(self, within_s: float = 60) -> "Broker":
        """Begins, or begins again where it was killed: same ports, same records."""
        with (self.folder / "broker.log").open("ab") as log:
            command = self._command("kafka.Kafka", "server.properties")
            self.handle = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        try:
            until(self._answers, within_s, "the Kafka broker answers")
        except BaseException as error:
            self.kill()
            raise AssertionError(f"{error}\n{self.log()}") from None
        return self

    def _answers(self) -> bool:
        assert self.handle is not None
        assert self.handle.poll() is None, f"the Kafka broker ended with {self.handle.returncode}"
        return reachable(self.bootstrap, 1)

    def advertised(self, bootstrap: str) -> str:
        """The address that one of its listeners tells clients to use."""
        (node,) = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=10).brokers.values()
        return f"{node.host}:{node.port}"

    def log(self) -> str:
        return (self.folder / "broker.log").read_text(errors="replace")

    def kill(self) -> None:
        assert self.handle is not None
        self.handle.kill()
        self.handle.wait()

    def end(self) -> None:
        """Quickly, but for the first of all, which leaves its classes to the next."""
        if self.handle is None:
            return
        if not ARCHIVE.exists() and self.handle.poll() is None:
            self.cont()
            self.handle.terminate()
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self.handle.wait(60)
                Path(shutil.move(self.archive, f"{ARCHIVE}.{os.getpid()}")).replace(ARCHIVE)
        self.kill()

    def stop(self) -> None:
        """Takes its processor away: connections stay open, nothing answers."""
        assert self.handle is not None
        self.handle.send_signal(signal.SIGSTOP)

    def cont(self) -> None:
        assert self.handle is not None
        self.handle.send_signal(signal.SIGCONT)


def reachable(bootstrap: str, within_s: float) -> bool:
    """Whether a metadata request succeeds."""
    options = {
        "bootstrap.servers": bootstrap,
        "log_level": 0,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 50,
    }
    with contextlib.suppress(KafkaException):
        return bool(AdminClient(options).list_topics(timeout=within_s).brokers)
    return False


def make_topics(bootstrap: str, topics: Iterable[str]) -> None:
    """Those that are not there yet."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    missing = sorted(set(topics) - set(admin.list_topics(timeout=10).topics))
    if not missing:
        return
    for topic, made in admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in missing]).items():
        made.result(timeout=20)
        until(lambda topic=topic: topic in admin.list_topics(timeout=10).topics, 20, f"topic {topic} is there")


@contextmanager
def kafka_broker(proxy_port: int = 0, topics: Iterable[str] = TOPICS) -> Iterator[Broker]:
    """A broker of one's own, to be killed and stopped at will; `topics` are made before."""
    folder = Path(tempfile.mkdtemp(prefix="tickpath-kafka-"))
    broker = Broker(folder, proxy_port)
    try:
        begin_s = time.monotonic()
        broker.format().start()
        make_topics(broker.bootstrap, topics)
        print(f"Kafka broker on {broker.bootstrap} in {time.monotonic() - begin_s:.1f} s")
        yield broker
    finally:
        broker.end()
        shutil.rmtree(folder)


@contextmanager
def any_kafka() -> Iterator[str]:
    """host:port of a broker that nobody kills: that of TICKPATH_TEST_KAFKA, else one of one's own."""
    bootstrap = os.environ.get("TICKPATH_TEST_KAFKA", "")
    if not bootstrap:
        with kafka_broker() as broker:
            yield broker.bootstrap
        return
    if not reachable(bootstrap, 10):
        pytest.fail(f"TICKPATH_TEST_KAFKA={bootstrap}: no Kafka broker answers there; {HELP}", pytrace=False)
    make_topics(bootstrap, TOPICS)
    yield bootstrap
