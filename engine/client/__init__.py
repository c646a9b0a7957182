"""For producers and readers: `Producer` and `Reader` on asyncio, `sync` for others; docs/client.md shows them."""

from engine.client import sync
from engine.client.answers import Answer, Conflict, Gap
from engine.client.producer import BufferFull, Producer
from engine.client.reader import Reader
from engine.client.tokens import TokenError
from engine.client.tracks import PositionError

__all__ = ["Answer", "BufferFull", "Conflict", "Gap", "PositionError", "Producer", "Reader", "TokenError", "sync"]
