"""The ingress role in the test's own process, over a real arena, real keys and real sockets."""

import asyncio
import os
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.child import Child
from engine.contract.ml.envelope_pb2 import MLProcessingEnvelope
from engine.contract.names import Reason
from engine.ingress.main import Ingress
from engine.settings import Auth, Bus, Local, Nats, Settings
from engine.shared import INGRESS, Shared
from tests.egress.stand import until
from tests.ingress.stand import SMALL
from tests.system.servers import Issuer

SUBJECT = "ml.v1.features.acme.feed-0"


def settings_for(issuer: Issuer, folder: Path | None = None, url: str = "", **limits: Any) -> Settings:
    path = str(folder / "bus") if folder is not None else ""
    return replace(
        SMALL,
        auth=Auth(jwks_file=str(issuer.jwks_file)),
        bus=Bus(nats=Nats(url=url), local=Local(path=path)),
        limits=replace(SMALL.limits, **limits),
    )


def make_child(shared: Shared, settings: Settings) -> Child:
    return Child("ingress", INGRESS, settings, shared, os.getppid())


def opened(shared: Shared, settings: Settings) -> Ingress:
    """Ready to take messages, without buses and without a loop of its own."""
    ingress = Ingress(make_child(shared, settings))
    ingress.verifier.open()
    ingress.sequencer.open()
    return ingress


@asynccontextmanager
async def at_work(shared: Shared, settings: Settings) -> Any:
    """Serving; ended as the supervisor ends it."""
    shared.children[INGRESS.row]["order"] = 0
    ingress = Ingress(make_child(shared, settings))
    task = asyncio.get_running_loop().create_task(ingress.serve())
    row = shared.children[INGRESS.row]
    await until(lambda: row["ready"] or task.done(), "ingress is ready")
    try:
        yield ingress
    finally:
        row["order"], row["ready"] = 1, 0
        assert await task == 0


def signed(envelope: MLProcessingEnvelope, token: str) -> bytes:
    envelope.auth_token.jwt = token
    return envelope.SerializeToString()


def reported(shared: Shared) -> list[tuple[str, str, str, str, int, int]]:
    """(code, detail, company, stream, epoch, sequence) of every report so far; the ring is emptied."""
    ring, found = shared.rejections, []
    for position in range(ring.tail, ring.head):
        slot = ring.slots[position & ring.mask]
        texts = [slot[name].decode() for name in ("detail", "company", "stream")]
        found.append((Reason(int(slot["reason"])).code, *texts, int(slot["epoch"]), int(slot["sequence"])))
    ring.release(ring.head)
    return found
