"""What `check` looks at around the engine: keys, buses, addresses.

Owns the questions, no state. Runs in the process of `check`; reads key files, connects to
buses, tries addresses. What must stay true: nothing is sent but what connecting takes, and each
question is answered within its time limit.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client

from engine.cli.findings import FAIL, OK, WARN, Finding
from engine.client.connecting import tls_context
from engine.contract.names import FEATURES_SUBJECT
from engine.knobs import without_passwords
from engine.settings import Settings, split_address

CONNECT_S = 2.0


def keys(settings: Settings) -> Iterator[Finding]:
    from engine.tenancy.tokens import Verifier

    verifier = Verifier(settings.auth, settings.limits.token_bytes)
    verifier.open()
    for reason in verifier.keys.ignored:
        yield Finding(WARN, "keys", reason)
    count = len(verifier.keys.keys)
    yield Finding(OK, "keys", f"{count} key{'s' if count > 1 else ''} for {', '.join(settings.auth.algorithms)}")


def buses(settings: Settings) -> Iterator[Finding]:
    bus = settings.bus
    if bus.nats.url:
        yield from _nats(settings)
    if bus.local.path:
        yield _local(bus.local.path)
    if bus.kafka.bootstrap:
        yield _kafka(settings)
    if not (bus.nats.url or bus.kafka.bootstrap or bus.local.path):
        yield Finding(FAIL, "buses", "none is configured", "set bus.nats.url, bus.kafka.bootstrap or bus.local.path")


def _kafka(settings: Settings) -> Finding:
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    from engine.bus import kafka

    where = settings.bus.kafka.bootstrap
    try:
        given = kafka.options(settings.bus.kafka, "tickpath-check")
        client = AdminClient({**given, "log_level": 0})
        topics = client.list_topics(timeout=CONNECT_S).topics
    except KafkaException as error:
        what = error.args[0].str()
        return Finding(FAIL, "kafka", f"{where}: {what}", "start the broker, or correct bus.kafka.bootstrap or options")
    missing = [topic for topic in (kafka.FEATURES_TOPIC, *kafka.TOPICS) if topic not in topics]
    if missing:
        detail = f"{where} answers; topics {', '.join(missing)} are missing"
        return Finding(WARN, "kafka", detail, "the engine makes them at its start if it may; else make them")
    return Finding(OK, "kafka", f"{where} answers, {len(topics[kafka.FEATURES_TOPIC].partitions)} partitions to read")


def _nats(settings: Settings) -> Iterator[Finding]:
    urls = [url.strip() for url in settings.bus.nats.url.split(",")]
    findings = [asyncio.run(_ask_nats(url, settings)) for url in urls]
    some = any(finding.level != FAIL for finding in findings)
    for finding in findings:
        # One server of a cluster may be away; the engine tries them in turn.
        level = WARN if some and finding.level == FAIL else finding.level
        yield Finding(level, finding.what, finding.detail, finding.do)


async def _ask_nats(url: str, settings: Settings) -> Finding:
    section, troubles, where = settings.bus.nats, [], without_passwords(url)

    async def note(error: Exception) -> None:
        troubles.append(str(error))

    options: dict[str, Any] = {}
    if section.credentials_file:
        options["user_credentials"] = section.credentials_file
    if context := tls_context(section):
        options["tls"] = context
    client = Client()
    try:
        async with asyncio.timeout(CONNECT_S):
            await client.connect(url, allow_reconnect=False, error_cb=note, **options)
            await client.subscribe(f"{FEATURES_SUBJECT}.>")
            await client.flush()
            await client.flush()  # the client may send the first PING ahead of the SUB
    except (OSError, TimeoutError, ValueError, ssl.SSLError, nats.errors.Error) as error:
        why = "no answer" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        detail = f"{where}: no connection within {CONNECT_S:g} s ({troubles[0] if troubles else why})"
        return Finding(
            FAIL, "nats", detail, "start nats-server, or correct bus.nats.url and what it needs to be let in"
        )
    finally:
        if client.is_connected:
            await client.close()
    if troubles:
        do = f"let this user subscribe to {FEATURES_SUBJECT}.>"
        return Finding(FAIL, "nats", f"{where}: {troubles[0]}", do)
    if client.max_payload < settings.limits.message_bytes:
        detail = f"{where}: its max_payload of {client.max_payload} bytes is below limits.message_bytes"
        return Finding(WARN, "nats", detail, "raise max_payload of the server, or lower limits.message_bytes")
    return Finding(OK, "nats", f"{where}: connected, nats-server {_version(client)}")


def _version(client: Client) -> str:
    version = client.connected_server_version
    return f"{version.major}.{version.minor}.{version.patch}"


def _local(path: str) -> Finding:
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        return Finding(FAIL, "local", f"{folder} is no folder", "make it, or correct bus.local.path")
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding(FAIL, "local", f"{folder} cannot be written", f"let this user (id {os.geteuid()}) write there")
    for each in (path, f"{path}.out"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(CONNECT_S)
            try:
                probe.connect(each)
            except OSError:
                continue
            return Finding(FAIL, "local", f"somebody listens at {each} already", "end it, or choose another path")
    return Finding(OK, "local", f"{path} can be made")


def http(settings: Settings) -> Iterator[Finding]:
    section = settings.http
    if section.tls_cert and section.tls_key:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(section.tls_cert, section.tls_key)
        except (OSError, ssl.SSLError) as error:
            do = "give the PEM files of a certificate and of its key"
            yield Finding(FAIL, "http", f"http.tls_cert and http.tls_key cannot be used: {error}", do)
    host, port = split_address(section.listen)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        detail = f"http.listen = {section.listen}: {error.strerror}"
        yield Finding(FAIL, "http", detail, "end what listens there, or choose another address")
    else:
        yield Finding(OK, "http", f"{section.listen} is free")
