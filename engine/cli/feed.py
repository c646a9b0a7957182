"""`feed DATA...`: price bars as feature vectors, for trying things out.

Owns the command line; `engine.client` does the work. Runs in a process of its own as any producer
would, with nothing of the engine's but its configuration. Reads CSV files and a token or a key,
writes to NATS or to the local bus; the summary goes to standard output. What must stay true: it
sends nothing that a producer written from the contract alone could not send.
"""

import argparse
import asyncio
import base64
import binascii
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from engine.client import bars, links, pacing
from engine.client.sender import Sender
from engine.contract.ml.feature_vectors_pb2 import FeatureVector
from engine.contract.names import Tier, is_name, is_user
from engine.errors import SettingsError
from engine.settings import Settings, load

TOKEN_VARIABLE = "TICKPATH_TOKEN"
TOKEN_S = 900  # how long a token of our own signing lives
RENEW_S = 300


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("data", nargs="+", metavar="DATA", help="CSV of price bars, also .gz, named after its symbol")
    add("--config", metavar="FILE", help="the engine's settings (TOML)")
    add("--rate", type=_positive, required=True, metavar="VECTORS_PER_S", help="vectors a second, all symbols together")
    add("--bus", choices=sorted(links.LINKS), help="default: NATS where it is configured, else the local bus")
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
    link = links.choose(settings, arguments.bus)
    sender, renew = _sender(arguments, settings)
    vectors = _vectors(arguments, settings)
    sent = asyncio.run(_send(link, sender, vectors, arguments, renew))
    if arguments.json:
        print(json.dumps({**sent.summary(), "stream": sender.stream, "epoch": sender.epoch, "next": sender.next}))
    else:
        print(
            f"{sent.vectors} vectors in {sent.messages} messages and {sent.heartbeats} heartbeats to {link.where}: "
            f"{sent.vectors_per_s:.1f} vectors/s for {sent.seconds:.1f} s, {sent.bytes / 1e6:.2f} MB; "
            f"{sent.late} messages over 1 ms late, at most {sent.late_ms_max:.1f} ms"
        )
    return 0


async def _send(
    link: links.Link,
    sender: Sender,
    vectors: Iterator[FeatureVector],
    arguments: argparse.Namespace,
    renew: Callable[[], str | None],
) -> pacing.Sent:
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await link.open()
    try:
        return await pacing.send_paced(link, sender, vectors, arguments.rate, arguments.batch, stopped.is_set, renew)
    finally:
        await link.close()


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


def _sender(arguments: argparse.Namespace, settings: Settings) -> tuple[Sender, Callable[[], str | None]]:
    """A sender with its first token, and what gives it later ones."""
    if arguments.key:
        company, user = arguments.company or "demo", arguments.user or "feed"
        renew = _signer(arguments, settings, company, user)
        token = renew() or ""
    else:
        token = _token(arguments.token_file, os.environ)
        claims = claims_of(token)
        company, user = arguments.company or claims[0], arguments.user or claims[1]
        renew = _keep
    for flag, text, right in (
        ("--company", company, is_name(company)),
        ("--user", user, is_user(user)),
        ("--stream", arguments.stream, is_name(arguments.stream)),
    ):
        if not right:
            allowed = "1 to 128 printable characters" if flag == "--user" else "1 to 64 letters, digits, _ or -"
            raise SettingsError(f"{flag} {text!r}: expected {allowed}")
    return Sender(company, user, arguments.stream, token), renew


def _keep() -> None:
    """A token that was given stays."""


def _token(path: str | None, environ: Mapping[str, str]) -> str:
    if path:
        try:
            return Path(path).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"--token-file {path}: cannot be read ({error}); expected a file with one token"
            ) from error
    if token := environ.get(TOKEN_VARIABLE, "").strip():
        return token
    raise SettingsError(
        f"no token: give --token-file or --key, or set {TOKEN_VARIABLE}; `python -m engine token` makes one"
    )


def claims_of(token: str) -> tuple[str, str]:
    """Company and user that a token names. Its signature is for the engine to judge."""
    try:
        middle = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        return str(claims["company_id"]), str(claims["sub"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error) as error:
        raise SettingsError(
            "the token names no company_id and sub; expected a JWT, as `python -m engine token` prints it"
        ) from error


def _signer(arguments: argparse.Namespace, settings: Settings, company: str, user: str) -> Callable[[], str | None]:
    """Gives a new token each few minutes, so that a long feed outlives them."""
    from engine.tenancy import signing

    key = signing.read_signing_key(arguments.key)
    renew_s = 0.0

    def renew() -> str | None:
        nonlocal renew_s
        if time.monotonic() < renew_s:
            return None
        renew_s = time.monotonic() + RENEW_S
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

    return renew


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
