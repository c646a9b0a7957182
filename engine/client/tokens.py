"""A client's token: what it says, and another one before it ends.

Owns the token in use. Runs in a producer's or a reader's process; reads a file again or calls what it was
given. What must stay true: a token is never verified here, only read; one that cannot be renewed is kept and
told once, and whoever sends knows when it ends.
"""

import asyncio
import base64
import binascii
import inspect
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from engine.errors import SettingsError, TickpathError

RENEW_BEFORE_S = 60.0  # before `exp`, or a third of the token's life where that is less
RETRY_S = 1.0
FOREVER = float("inf")

# A token that stays, a file that is read again, or a function that gives one, awaited where it is asynchronous.
Source = str | Path | Callable[[], str] | Callable[[], Awaitable[str]]


class TokenError(TickpathError):
    """No token that could be sent. The message says where it comes from and what is wrong."""


def claims_of(token: str) -> tuple[str, str]:
    """Company and user that a token names. Its signature is for the engine to judge."""
    try:
        claims = _claims(token)
        return str(claims["company_id"]), str(claims["sub"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error) as error:
        raise SettingsError(
            "the token names no company_id and sub; expected a JWT, as `python -m engine token` prints it"
        ) from error


def end_of(token: str) -> float:
    """Its `exp`, Unix seconds; endless where it names none."""
    try:
        return float(_claims(token)["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return FOREVER


def _claims(token: str) -> dict[str, Any]:
    middle = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))


class Tokens:
    """The token in use, `current`, which ends at `ends_unix`.

    Parameters
    ----------
    source : a token, a file that holds one, or a function that gives one
    on_trouble : called with a TokenError when a token could not be renewed; once, until one was
    """

    def __init__(self, source: Source, on_trouble: Callable[[TokenError], None] = lambda error: None) -> None:
        self.current = ""
        self.ends_unix = 0.0
        self._source = source
        self._on_trouble = on_trouble
        self._told = False
        self._renew_unix = 0.0

    @property
    def usable(self) -> bool:
        return time.time() < self.ends_unix

    async def open(self) -> None:
        """The first one; raises TokenError where there is none or it has ended."""
        await self._renew()
        if not self.usable:
            raise TokenError(f"the token of {self._where()} ended {_ago(self.ends_unix)}; give one that is valid now")

    async def keep(self, on_new: Callable[[], None] = lambda: None) -> None:
        """Renews it for ever, each time before it ends; `on_new` is called after each new one."""
        while True:
            await asyncio.sleep(min(3600.0, max(0.0, self._renew_unix - time.time())))
            if time.time() < self._renew_unix:
                continue
            before = self.current
            try:
                await self._renew()
                if self.current == before:
                    raise TokenError(
                        f"{self._where()} gives the same token, which ends {_in(self.ends_unix)}; give a newer one"
                    )
                self._told = False
                on_new()
            except TokenError as error:
                self._renew_unix = time.time() + RETRY_S
                if not self._told:
                    self._told = True
                    self._on_trouble(error)

    async def _renew(self) -> None:
        token = await self._get()
        if not token:
            raise TokenError(f"{self._where()} gives no token; `python -m engine token` makes one")
        if token == self.current:
            return
        self.current, self.ends_unix = token, end_of(token)
        left_s = self.ends_unix - time.time()
        self._renew_unix = self.ends_unix - min(RENEW_BEFORE_S, max(0.0, left_s) / 3)

    async def _get(self) -> str:
        source = self._source
        if isinstance(source, str):
            return source.strip()
        try:
            if isinstance(source, Path):
                return (await asyncio.to_thread(source.read_text, "ascii")).strip()
            if inspect.iscoroutinefunction(source):
                return (await source()).strip()
            given: Any = await asyncio.to_thread(source)  # it may ask a server, and block
            return (await given if inspect.isawaitable(given) else given).strip()
        except Exception as error:  # whatever a function of somebody else's raises
            raise TokenError(f"{self._where()} gives no token ({error or type(error).__name__})") from error

    def _where(self) -> str:
        if isinstance(self._source, str):
            return "the caller"
        if isinstance(self._source, Path):
            return str(self._source)
        return getattr(self._source, "__qualname__", type(self._source).__name__)


def _ago(unix: float) -> str:
    return f"{time.time() - unix:.0f} s ago"


def _in(unix: float) -> str:
    left_s = unix - time.time()
    return f"in {left_s:.0f} s" if left_s > 0 else _ago(unix)
