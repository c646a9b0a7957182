"""A connection to a local socket that is made again for ever.

Owns nothing but the connection that stands. Runs in a producer's or a reader's process, on its loop. What must stay
true: whatever ends a connection, it is closed and its reason told before the next one is tried.
"""

import asyncio
from collections.abc import Awaitable, Callable

from engine.client.connecting import RETRY_S, reason
from engine.errors import BusError


async def stay_connected(
    path: str,
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[str]],
    left: Callable[[str], None],
) -> None:
    """For ever: `talk` has each connection and gives why it ended; `left` hears that, or the error, after its close."""
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                why = await talk(reader, writer)
            finally:
                writer.close()
        except (OSError, BusError) as error:
            why = reason(error)
        left(why)
        await asyncio.sleep(RETRY_S)
