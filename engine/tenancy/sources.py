"""Where keys come from: a file, watched for changes, or a web address, asked in the background.

Owns the last bytes seen; runs in each process that verifies tokens. Reads the key file or the URL;
writes nothing. What must stay true: whoever may not read a secret cannot make us use one that they
could read; `changed` never waits for a disk or a network longer than one look at a file takes.
"""

import ipaddress
import os
import stat
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Protocol

from engine.errors import SettingsError
from engine.tenancy.keys import holds_secret

KEY_BYTES_MAX = 1 << 20
SETTLED_NS = 2_000_000_000  # file times are coarse: a file changed this shortly before it was read is read once more
URL_EVERY_S = 60.0  # a key taken off the web is gone here within this and one request
URL_TIMEOUT_S = 5.0


class Source(Protocol):
    """Bytes of keys under one setting. `where` names both for messages."""

    where: str

    def read(self) -> bytes: ...

    def changed(self) -> bytes | None:
        """Bytes to look at again, or None while they are as last read. SettingsError: there are none to be had."""


class KeyFile:
    """A file of keys. `secret`: all of it is secret, as against a public key set."""

    def __init__(self, setting: str, path: str, secret: bool) -> None:
        self.where = f"{setting} = {path!r}"
        self.path = path
        self.secret = secret
        self._seen: tuple[int, ...] | None = None
        self._settled = False

    def read(self) -> bytes:
        data, status = self._read()
        self._remember(status)
        return data

    def changed(self) -> bytes | None:
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise self._unreadable(error) from None
        if _identity(status) == self._seen and self._settled:
            return None
        return self.read()

    def _remember(self, status: os.stat_result) -> None:
        self._seen = _identity(status)
        self._settled = time.time_ns() - status.st_ctime_ns > SETTLED_NS

    def _read(self) -> tuple[bytes, os.stat_result]:
        try:
            # A pipe in the file's place would hold us up for good; its kind is looked at once it is open.
            with open(self.path, "rb", opener=_open_without_waiting) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise SettingsError(f"{self.where}: expected a regular file, found something else; give a file")
                data = file.read(KEY_BYTES_MAX + 1)
        except OSError as error:
            raise self._unreadable(error) from None
        self._refuse_open_doors(data, stat.S_IMODE(status.st_mode))
        if not data.strip():
            raise SettingsError(f"{self.where}: expected a key, found an empty file; write the key into it")
        if len(data) > KEY_BYTES_MAX:
            raise SettingsError(
                f"{self.where}: expected at most {KEY_BYTES_MAX} bytes, found more; is it the right file?"
            )
        return data, status

    def _refuse_open_doors(self, data: bytes, mode: int) -> None:
        if mode & 0o077 and (self.secret or holds_secret(data)):
            raise SettingsError(
                f"{self.where}: expected a secret that only its owner can read (mode 0600), found mode {mode:04o}; "
                f"run: chmod 600 {self.path}"
            )
        if mode & 0o002:
            raise SettingsError(
                f"{self.where}: expected a file that others cannot write, found mode {mode:04o}; "
                f"run: chmod o-w {self.path}"
            )

    def _unreadable(self, error: OSError) -> SettingsError:
        return SettingsError(
            f"{self.where}: expected a file that this user can read, found: {error.strerror}; "
            "correct the setting, or make keys with: python -m engine token keygen --out DIR"
        )


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode


class KeyUrl:
    """A key set on the web. Asked at the start, then every minute by a thread of its own."""

    def __init__(self, setting: str, url: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.where = f"{setting} = {url!r}"
        self.url = url
        self._monotonic = monotonic
        self._asked_s = 0.0
        self._asking: threading.Thread | None = None
        self._answer: bytes | SettingsError | None = None

    def read(self) -> bytes:
        self._asked_s = self._monotonic()
        return self._fetch()

    def changed(self) -> bytes | None:
        if self._asking is not None:
            return None if self._asking.is_alive() else self._take()
        if self._monotonic() - self._asked_s >= URL_EVERY_S:
            self._asked_s = self._monotonic()
            self._asking = threading.Thread(target=self._ask, name="keys", daemon=True)
            self._asking.start()
        return None

    def _take(self) -> bytes | None:
        answer, self._answer, self._asking = self._answer, None, None
        if isinstance(answer, SettingsError):
            raise answer
        return answer

    def _ask(self) -> None:
        try:
            self._answer = self._fetch()
        except SettingsError as error:
            self._answer = error

    def _fetch(self) -> bytes:
        if not _is_protected(self.url):
            raise SettingsError(
                f"{self.where}: expected an https:// address (http:// for this host only), found another; "
                "keys that anyone on the way can replace protect nothing"
            )
        try:
            with urllib.request.build_opener(_NoRedirect).open(self.url, timeout=URL_TIMEOUT_S) as response:
                data: bytes = response.read(KEY_BYTES_MAX + 1)
        except (OSError, HTTPException, ValueError) as error:
            raise SettingsError(
                f"{self.where}: expected a key set within {URL_TIMEOUT_S:g} s, found: {error}; "
                "see whether this host can reach it, or give auth.jwks_file"
            ) from None
        if len(data) > KEY_BYTES_MAX:
            raise SettingsError(
                f"{self.where}: expected at most {KEY_BYTES_MAX} bytes, found more; is it the right URL?"
            )
        if holds_secret(data):
            raise SettingsError(
                f"{self.where}: expected public keys, found secret ones on the web; "
                "treat them as known to others and replace them"
            )
        return data


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are answered as errors: one could lead off TLS, or to another owner's keys."""

    def redirect_request(self, *_: object) -> None:
        return None


def _is_protected(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme == "https":
            return bool(parts.hostname)
        return parts.scheme == "http" and (
            parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname or "").is_loopback
        )
    except ValueError:
        return False
