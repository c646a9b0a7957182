"""What every connection of a client is made from.

Owns nothing; pure functions over settings. Runs in a producer's or a reader's process. What must stay true: an
address alone is enough, whatever else a bus needs comes in the sections of `engine.settings`, and no password
stands in a message.
"""

import logging
import ssl
from pathlib import Path

from engine.errors import BusError
from engine.settings import Kafka, Local, Nats

LOG = logging.getLogger("tickpath.client")
BUS_LOG = logging.getLogger("tickpath.client.bus")  # what the buses' own clients say, for a program that wants it
BUS_LOG.propagate = False
BUS_LOG.addHandler(logging.NullHandler())
CONNECT_S = 5.0
RETRY_S = 0.25


def nats_section(given: str | Nats) -> Nats:
    return given if isinstance(given, Nats) else Nats(url=given)


def kafka_section(given: str | Kafka) -> Kafka:
    return given if isinstance(given, Kafka) else Kafka(bootstrap=given)


def local_section(given: str | Local) -> Local:
    return given if isinstance(given, Local) else Local(path=given)


def tls_context(section: Nats) -> ssl.SSLContext | None:
    """For a client, from `tls_ca`, `tls_cert` and `tls_key`; None: only the URL decides."""
    if not (section.tls_ca or section.tls_cert):
        return None
    try:
        context = ssl.create_default_context(cafile=section.tls_ca or None)
        if section.tls_cert:
            context.load_cert_chain(section.tls_cert, section.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise BusError(
            f"bus.nats.tls_ca, tls_cert or tls_key cannot be used ({error}); expected PEM files that belong together"
        ) from error
    return context


def check_files(section: Nats) -> None:
    """Raises BusError for a file that cannot be used, before anything is tried with it."""
    tls_context(section)
    if section.credentials_file:
        try:
            Path(section.credentials_file).read_bytes()
        except OSError as error:
            raise BusError(
                f"bus.nats.credentials_file = {section.credentials_file}: cannot be read ({error.strerror}); "
                "expected a .creds file"
            ) from error


def reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
