"""Every knob, declared once: type, unit, range, default, one line of help.

Owns what may be set, and the rules between settings; every process reads its settings through
`load`, from a TOML file and the environment. What must stay true: nothing about a setting is said
a second time; names in the environment, checks, error texts and the README's reference are derived
from the declarations here by `engine.knobs`. Paths are relative to the process's working directory.
"""

import hashlib
import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from engine import knobs
from engine.contract.names import is_name, is_symbol
from engine.errors import SettingsError
from engine.knobs import Rule, knob


def split_address(text: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port`; ValueError for anything else."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets")
    if not (host and colon and port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise ValueError("not host:port")
    return host, int(port)


def _is_address(text: str) -> bool:
    try:
        split_address(text)
    except ValueError:
        return False
    return True


def _schemes(*schemes: str) -> Rule:
    starts = tuple(f"{scheme}://" for scheme in schemes)
    return Rule(
        lambda text: all(part.strip().startswith(starts) for part in text.split(",")),
        "a URL that begins with " + " or ".join(starts),
    )


NAME = Rule(is_name, "1 to 64 letters, digits, _ or -")
SYMBOL = Rule(is_symbol, "1 to 24 letters, digits, ., _, / or -")
ADDRESS = Rule(_is_address, "host:port with a port from 0 to 65535")
OPTION = Rule(
    lambda text: "=" in text[1:] and "password" not in text.partition("=")[0],
    "name=value, passwords by sasl_password_file",
)
SOCKET = Rule(
    lambda text: len(os.fsencode(text)) <= 103, "a path of at most 103 bytes (Unix sockets end at 107, `.out` is added)"
)


@dataclass(frozen=True)
class Engine:
    name: str = knob("engine-0", "its service_source; a second engine of the same name on a host is refused", rule=NAME)
    workers: int | str = knob(
        "auto",
        "worker processes; auto: one per GPU that models run on, else half of the cores that ingress and egress leave",
        low=1,
        high=16,
        choices=("auto",),
    )
    device: str = knob(
        "auto",
        "where models run; auto: graphs of 4 MiB and more on a GPU, where one is",
        choices=("auto", "cpu", "cuda"),
    )
    symbols: tuple[str, ...] = knob((), "symbols that are answered; empty: any", rule=SYMBOL)
    max_batch: int = knob(32, "in a microbatch", unit="vectors", low=1, high=256)
    deadline_ms: int = knob(
        250, "from a message's arrival to its answer; beyond: answered EXPIRED", unit="milliseconds", low=1, high=60_000
    )
    max_message_age_ms: int = knob(
        10_000,
        "by the envelope's timestamp; older ones are answered EXPIRED",
        unit="milliseconds",
        low=100,
        high=86_400_000,
    )
    drain_s: int = knob(10, "after SIGTERM, to answer what was taken", unit="seconds", low=1, high=600)
    state_path: str = knob(
        "", "file that keeps windows and sequences over a drained stop, so that a new start is warm; empty: none"
    )
    wait: str = knob("auto", "how a process waits at a ring", choices=("auto", "spin", "yield", "block"))
    cpus: tuple[int, ...] = knob(
        (), "processors to pin to, I/O first, publisher last; empty: not pinned", low=0, high=4095
    )
    requests_slots: int = knob(
        4096, "in the ring to and from each worker, 4 KiB each; a power of two", unit="slots", low=256, high=65_536
    )
    inputs_mb: int = knob(
        32, "of accepted messages that are not answered for yet; a power of two", unit="MiB", low=4, high=4096
    )
    standby: bool = knob(True, "keep a warm worker that takes a dead one's place")


@dataclass(frozen=True)
class Limits:
    message_bytes: int = knob(262_144, "of one message", unit="bytes", low=4096, high=1_048_576)
    token_bytes: int = knob(8192, "of one token", unit="bytes", low=256, high=65_536)
    vectors: int = knob(64, "in one message", unit="vectors", low=1, high=64)
    history: int = knob(240, "price_history of one vector", unit="mids", low=0, high=240)
    correlations: int = knob(64, "cross_asset scores of one vector", unit="scores", low=0, high=64)
    extra: int = knob(64, "extra features of one vector", unit="features", low=0, high=64)
    streams: int = knob(64, "of one company", unit="streams", low=1, high=4096)
    keys: int = knob(640, "of one company: (stream, symbol) pairs with a window", unit="keys", low=1, high=65_536)
    streams_total: int = knob(512, "of all companies together", unit="streams", low=1, high=4096)
    keys_total: int = knob(
        1024, "of all companies together; decides most of the shared memory", unit="keys", low=1, high=65_536
    )
    queue: int = knob(
        1024,
        "waiting for each company at each worker; as many again by their names",
        unit="messages",
        low=1,
        high=65_536,
    )
    junk_per_s: int = knob(
        200, "of unattributed rejections; beyond: a counted summary", unit="reports a second", low=1, high=100_000
    )


@dataclass(frozen=True)
class Nats:
    url: str = knob("", "servers, comma-separated; empty: no NATS", rule=_schemes("nats", "tls"))
    credentials_file: str = knob("", "NATS credentials (.creds)", secret=True)
    tls_ca: str = knob("", "certificates to trust, PEM")
    tls_cert: str = knob("", "the client's certificate, PEM")
    tls_key: str = knob("", "the client's private key, PEM", secret=True)


@dataclass(frozen=True)
class Kafka:
    bootstrap: str = knob("", "host:port of brokers, comma-separated; empty: no Kafka")
    options: tuple[str, ...] = knob(
        (), "passed to librdkafka as they are, for SASL and TLS: `security.protocol=SASL_SSL`, …", rule=OPTION
    )
    sasl_password_file: str = knob("", "the password of `sasl.username`", secret=True)
    recovery_ms: int = knob(
        10_000,
        "at most, for what Kafka keeps of before the start, while the other buses' input is held",
        unit="milliseconds",
        low=0,
        high=600_000,
    )


@dataclass(frozen=True)
class Local:
    path: str = knob("", "Unix socket of producers; readers connect to it + `.out`; empty: none", rule=SOCKET)


@dataclass(frozen=True)
class Bus:
    gap_wait_ms: int = knob(
        20, "at least, for a message that the other bus may still bring", unit="milliseconds", low=0, high=30_000
    )
    publish: str = knob(
        "both", "where answers go; failover: Kafka only while NATS is away", choices=("both", "failover")
    )
    outbox_mb: int = knob(64, "of answers kept for a bus that is away", unit="MiB", low=1, high=65_536)
    nats: Nats = field(default_factory=Nats)
    kafka: Kafka = field(default_factory=Kafka)
    local: Local = field(default_factory=Local)


@dataclass(frozen=True)
class Tape:
    path: str = knob("", "a folder for a record of every accepted input and decision, for replay; empty: none")
    segment_mb: int = knob(64, "of the tape in one file", unit="MiB", low=1, high=4096)
    keep_mb: int = knob(10_240, "of tape in a folder; beyond, the oldest files go", unit="MiB", low=1, high=1 << 30)
    keep_hours: int = knob(168, "for which a file of the tape is kept", unit="hours", low=1, high=876_000)
    recorder_mb: int = knob(
        16,
        "of memory for the last inputs and answers where there is no tape, written out when a worker died of itself "
        "and on SIGUSR1; beside the live windows, about 40 KiB a key; 0: none",
        unit="MiB",
        low=0,
        high=4096,
    )
    recorder_path: str = knob("incidents", "the folder that they are written to")


@dataclass(frozen=True)
class Auth:
    algorithms: tuple[str, ...] = knob(
        ("EdDSA",), "of tokens; a token cannot choose others", choices=("EdDSA", "HS256", "RS256", "ES256")
    )
    jwks_file: str = knob("", "public keys, a JSON Web Key Set; set one of jwks_file, jwks_url, hs256_secret_file")
    jwks_url: str = knob("", "public keys over HTTPS", rule=_schemes("https", "http"))
    hs256_secret_file: str = knob("", "the shared secret, 32 bytes and more", secret=True)
    audience: str = knob("ml", "that a token must be for")
    issuer: str = knob("", "that a token must be from; empty: not checked")
    operator_company: str = knob("", "reserved: no operation asks for the scope `operator` yet", rule=NAME)


@dataclass(frozen=True)
class Models:
    path: str = knob("models", "the local model store")
    universe: tuple[str, ...] = knob((), "order of cross_asset scores, where the producer has one", rule=SYMBOL)


@dataclass(frozen=True)
class Registry:
    url: str = knob(
        "sqlite:///tickpath.db", "reserved: not used yet", rule=_schemes("sqlite", "postgresql", "postgresql+psycopg")
    )


@dataclass(frozen=True)
class Http:
    listen: str = knob("127.0.0.1:8080", "/health, /metrics", rule=ADDRESS)
    tls_cert: str = knob("", "the server's certificate, PEM")
    tls_key: str = knob("", "the server's private key, PEM", secret=True)
    insecure: bool = knob(False, "allow plain text beyond loopback, where something else encrypts")


@dataclass(frozen=True)
class Grpc:
    listen: str = knob("127.0.0.1:8081", "reserved: nothing listens there yet", rule=ADDRESS)
    tls_cert: str = knob("", "the server's certificate, PEM")
    tls_key: str = knob("", "the server's private key, PEM", secret=True)
    insecure: bool = knob(False, "allow plain text beyond loopback, where something else encrypts")


@dataclass(frozen=True)
class Redis:
    url: str = knob(
        "",
        "reserved: not used yet",
        rule=_schemes("redis", "rediss", "unix"),
    )


@dataclass(frozen=True)
class Settings:
    engine: Engine = field(default_factory=Engine)
    limits: Limits = field(default_factory=Limits)
    bus: Bus = field(default_factory=Bus)
    tape: Tape = field(default_factory=Tape)
    auth: Auth = field(default_factory=Auth)
    models: Models = field(default_factory=Models)
    registry: Registry = field(default_factory=Registry)
    http: Http = field(default_factory=Http)
    grpc: Grpc = field(default_factory=Grpc)
    redis: Redis = field(default_factory=Redis)


def load(path: str | None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Environment over file over defaults; SettingsError lists everything that is wrong, a line each."""
    settings, problems = read(path, environ)
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def read(path: str | None, environ: Mapping[str, str] = os.environ) -> tuple[Settings, list[str]]:
    """The settings, with defaults where a value cannot be used, and every problem found."""
    document, problems = knobs.read_toml(path) if path is not None else ({}, [])
    settings, found = knobs.read(Settings, document, path or "no file", environ)
    problems += found
    origin = path or "settings"
    return settings, problems + [f"{origin}: {problem}" for problem in _contradictions(settings)]


def _contradictions(settings: Settings) -> list[str]:
    """What is wrong between settings that are right one by one."""
    engine, limits, bus, auth = settings.engine, settings.limits, settings.bus, settings.auth
    problems = []
    sources = [name for name in ("jwks_file", "jwks_url", "hs256_secret_file") if getattr(auth, name)]
    if len(sources) > 1:
        problems.append(f"auth.{' and auth.'.join(sources)} are set; keep exactly one of them")
    if auth.hs256_secret_file and "HS256" not in auth.algorithms:
        problems.append('auth.hs256_secret_file is set, but auth.algorithms does not name HS256; add it: ["HS256"]')
    for name in ("requests_slots", "inputs_mb"):
        value = getattr(engine, name)
        if value & (value - 1):
            below = 1 << (value.bit_length() - 1)
            problems.append(f"engine.{name} = {value} is no power of two; nearest are {below} and {2 * below}")
    needed = 2 * engine.max_batch + limits.vectors
    if engine.requests_slots < needed:
        problems.append(
            f"engine.requests_slots = {engine.requests_slots} is too small: it must hold two microbatches and a "
            f"message, {needed} slots; raise it or lower engine.max_batch"
        )
    if limits.token_bytes >= limits.message_bytes:
        problems.append(
            f"limits.token_bytes = {limits.token_bytes} leaves no room in limits.message_bytes = {limits.message_bytes}"
        )
    for part, whole in (("streams", "streams_total"), ("keys", "keys_total")):
        one, all_ = getattr(limits, part), getattr(limits, whole)
        if one > all_:
            problems.append(f"limits.{part} = {one} of one company is more than limits.{whole} = {all_} of all")
    if bus.nats.url and bus.kafka.bootstrap and 2 * bus.gap_wait_ms > engine.deadline_ms:
        problems.append(
            f"bus.gap_wait_ms = {bus.gap_wait_ms} is more than half of engine.deadline_ms = {engine.deadline_ms}; "
            "a gap is waited for during at most half the deadline"
        )
    problems += (
        _half_pairs("bus.nats", bus.nats) + _half_pairs("http", settings.http) + _half_pairs("grpc", settings.grpc)
    )
    for table, server in (("http", settings.http), ("grpc", settings.grpc)):
        if not (_is_loopback(server.listen) or server.tls_cert or server.insecure):
            problems.append(
                f'{table}.listen = "{server.listen}" is reachable from other hosts: set {table}.tls_cert and '
                f"{table}.tls_key, or {table}.insecure = true where something else encrypts"
            )
    return problems


def _half_pairs(table: str, section: Nats | Http | Grpc) -> list[str]:
    if bool(section.tls_cert) == bool(section.tls_key):
        return []
    there, missing = ("tls_cert", "tls_key") if section.tls_cert else ("tls_key", "tls_cert")
    return [f"{table}.{there} is set without {table}.{missing}; set both or neither"]


def _is_loopback(listen: str) -> bool:
    host, _ = split_address(listen)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def digest(settings: Settings) -> bytes:
    """SHA-256 of all values, equal for equal settings wherever they came from; 32 bytes."""
    text = json.dumps(asdict(settings), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).digest()


def reference() -> str:
    """Every setting as Markdown, derived from the declarations above."""
    return knobs.reference(Settings)
