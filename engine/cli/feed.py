"""`feed DATA...`: price bars as feature vectors, for trying things out.

Owns the command line; `engine.client` does the work. Runs in a process of its own as any producer
would, with nothing of the engine's but its configuration. Reads CSV files and a token or a key,
writes to every configured bus; the summary goes to standard output. What must stay true: it
sends nothing that a producer written from the contract alone could not send.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from engine.client import bars, pacing
from engine.client.producer import Producer
from engine.client.tokens import Source, claims_of
from engine.contract.ml.feature_vectors_pb2 import FeatureVector
from engine.contract.names import Tier, is_name, is_user
from engine.errors import BusError, SettingsError
from engine.settings import Settings, load

TOKEN_VARIABLE = "TICKPATH_TOKEN"
TOKEN_S = 900  # how long a token of our own signing lives
HEARTBEAT_S = 1.0
KEYS = {"nats": "bus.nats.url", "kafka": "bus.kafka.bootstrap", "local": "bus.local.path"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("data", nargs="+", metavar="DATA", help="CSV of price bars, also .gz, named after its symbol")
    add("--config", metavar="FILE", help="the engine's settings (TOML)")
    add("--rate", type=_positive, required=True, metavar="VECTORS_PER_S", help="vectors a second, all symbols together")
    add("--bus", choices=sorted(KEYS), help="this one alone; default: all that are configured, as bus.publish says")
    add("--token-file", metavar="FILE", help=f"a file with a token; else {TOKEN_VARIABLE} in the environment")
    add("--key", metavar="FILE", help="instead of a token: a private key or secret to sign tokens with")
    add("--company", help="default: the token's; with --key: demo")
    add("--user", help="default: the token's; with --key: feed")
    add("--tier", choices=[tier.name.lower() for tier in Tier], default="enterprise", help="with --key")
    add("--stream", default="feed-0", help="this producer's service_source")
    add("--batch", type=_count, default=1, metavar="N", help="vectors in a message")
    add("--count", type=_count, metavar="N", help="stop after so many vectors")
    add(
        "--from-bar",
        type=_count,
        default=bars.FIRST_BAR,
        metavar="N",
        help="first bar of each file; those before it become price_history",
    )
    add("--indicators", action="store_true", help="send technical indicators; the engine computes them otherwise")
    add("--correlations", action="store_true", help="send cross_asset in the order of models.universe, or of the files")
    add("--json", action="store_true", help="summary as JSON")


def main(arguments: argparse.Namespace) -> int:
    settings = load(arguments.config)
    if arguments.batch > settings.limits.vectors:
        raise SettingsError(
            f"--batch {arguments.batch} is more than limits.vectors = {settings.limits.vectors}; send fewer"
        )
    buses = _buses(settings, arguments.bus)
    producer = _producer(arguments, settings, buses)
    vectors = _vectors(arguments, settings)
    sent, where = asyncio.run(_send(producer, vectors, arguments))
    counts = {**sent.summary(), **{name: producer.counts[name] for name in ("heartbeats", "bytes")}}
    if arguments.json:
        sender = producer.sender
        print(json.dumps({**counts, "stream": sender.stream, "epoch": sender.epoch, "next": sender.next}))
    else:
        print(
            f"{sent.vectors} vectors in {sent.messages} messages and {counts['heartbeats']} heartbeats to {where}: "
            f"{sent.vectors_per_s:.1f} vectors/s for {sent.seconds:.1f} s, {counts['bytes'] / 1e6:.2f} MB; "
            f"{sent.late} messages over 1 ms late, at most {sent.late_ms_max:.1f} ms"
        )
    return 0


async def _send(
    producer: Producer, vectors: Iterator[FeatureVector], arguments: argparse.Namespace
) -> tuple[pacing.Sent, str]:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with producer:
        sent = await pacing.send_paced(producer.send, vectors, arguments.rate, arguments.batch, stopped.is_set)
        return sent, producer.where


def _buses(settings: Settings, wanted: str | None) -> dict[str, Any]:
    """What a Producer is given: all that is configured, or the one that is wanted."""
    bus = settings.bus
    configured = {"nats": bus.nats.url, "kafka": bus.kafka.bootstrap, "local": bus.local.path}
    chosen = [name for name, is_there in configured.items() if is_there and wanted in (None, name)]
    if not chosen:
        keys = [KEYS[wanted]] if wanted else list(KEYS.values())
        raise BusError(
            f"no bus to send on: {' or '.join(keys)} is not set; set it in the configuration or the environment"
        )
    return {name: getattr(bus, name) for name in chosen}


def _vectors(arguments: argparse.Namespace, settings: Settings) -> Iterator[FeatureVector]:
    files = [bars.load(path) for path in arguments.data]
    universe = settings.models.universe or tuple(each.symbol for each in files)
    vectors = bars.interleave(
        files, arguments.from_bar, arguments.indicators, universe if arguments.correlations else None
    )
    longest = max(len(each.mid) for each in files)
    if longest < arguments.from_bar:
        raise bars.BarsError(f"--from-bar {arguments.from_bar}: the longest file has {longest} bars; start earlier")
    return islice(vectors, arguments.count)


def _producer(arguments: argparse.Namespace, settings: Settings, buses: dict[str, Any]) -> Producer:
    token: Source
    if arguments.key:
        company, user = arguments.company or "demo", arguments.user or "feed"
        token = _signer(arguments, settings, company, user)
    else:
        token = Path(arguments.token_file) if arguments.token_file else _token(os.environ)
        given = _read(token) if isinstance(token, Path) else token
        claims = claims_of(given)
        company, user = arguments.company or claims[0], arguments.user or claims[1]
    for flag, text, right in (
        ("--company", company, is_name(company)),
        ("--user", user, is_user(user)),
        ("--stream", arguments.stream, is_name(arguments.stream)),
    ):
        if not right:
            allowed = "1 to 128 printable characters" if flag == "--user" else "1 to 64 letters, digits, _ or -"
            raise SettingsError(f"{flag} {text!r}: expected {allowed}")
    return Producer(
        stream=arguments.stream,
        token=token,
        company=company,
        user=user,
        publish=settings.bus.publish,
        heartbeat_s=HEARTBEAT_S,
        on_trouble=lambda error: print(f"feed: {error}", file=sys.stderr),
        **buses,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--token-file {path}: cannot be read ({error}); expected a file with one token") from error


def _token(environ: Mapping[str, str]) -> str:
    if token := environ.get(TOKEN_VARIABLE, "").strip():
        return token
    raise SettingsError(
        f"no token: give --token-file or --key, or set {TOKEN_VARIABLE}; `python -m engine token` makes one"
    )


def _signer(arguments: argparse.Namespace, settings: Settings, company: str, user: str) -> Callable[[], str]:
    """Gives a new token each time it is asked, so that a long feed outlives them."""
    from engine.tenancy import signing

    key = signing.read_signing_key(arguments.key)

    def signed() -> str:
        return signing.sign(
            key,
            user_id=user,
            company_id=company,
            tier=Tier[arguments.tier.upper()],
            scopes=["predict"],
            audience=settings.auth.audience,
            issuer=settings.auth.issuer,
            now_unix=time.time(),
            valid_s=TOKEN_S,
        )

    return signed


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e7:
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0 and below 10000000")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number, 1 or more")
    return int(text)
