"""Who sent a message: a signed token becomes `Claims`, or the message is refused.

Owns the keys in force and the memory of good tokens; ingress, egress and control each run one
`Verifier`. Reads the key source that `[auth]` names; writes nothing. What must stay true: only the
configuration chooses algorithms; nothing of a token but its header is parsed before its signature
holds; a token counts from `nbf` to `exp` to the second, with no leeway, and at most 60 s after it
was last verified; only that of a message that was answered before may have ended, because it fills
windows again and no more; when the keys change, every token is verified anew; strangers learn one sentence.
"""

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from engine.contract.names import Reason, Tier, is_name, is_user
from engine.errors import Refused, SettingsError
from engine.tenancy import jose
from engine.tenancy.keys import ALGORITHMS, Key, KeySet, parse_jwks, parse_secret
from engine.tenancy.sources import KeyFile, KeyUrl, Source

REMEMBERED_S = 60.0
REMEMBERED_MAX = 4096
UNIX_MAX = 253_402_300_799  # the end of the year 9999: a later date is a mistake

_TYPES = ("jwt", "at+jwt")
_TIERS = {tier.name.lower(): tier for tier in Tier}
_SCOPES = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*", re.ASCII)  # RFC 6749, 3.3


class Auth(Protocol):
    """Section `[auth]` of the settings, as far as it is needed here."""

    @property
    def algorithms(self) -> tuple[str, ...]: ...
    @property
    def jwks_file(self) -> str: ...
    @property
    def jwks_url(self) -> str: ...
    @property
    def hs256_secret_file(self) -> str: ...
    @property
    def audience(self) -> str: ...
    @property
    def issuer(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says."""

    user_id: str
    company_id: str
    tier: Tier
    scopes: frozenset[str]
    not_before_unix: float
    expires_unix: float


class _NotValid(Exception):
    """Why a token is not good; for whoever debugs us, never for the sender."""


class Verifier:
    """Verifies tokens against the keys that `[auth]` names, and remembers the good ones for a while.

    `signatures_checked` counts the tokens that were not answered from memory.
    """

    def __init__(
        self,
        auth: Auth,
        token_bytes_max: int,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.auth = auth
        self.token_bytes_max = token_bytes_max
        self.signatures_checked = 0
        self._clock = clock
        self._monotonic = monotonic
        self._source: Source | None = None
        self._data = b""
        self._told = ""  # the last refusal of new keys
        self._keys = KeySet([])
        self._remembered: OrderedDict[bytes, tuple[Claims, float]] = OrderedDict()

    def open(self) -> None:
        """Reads the keys. SettingsError names the setting, the file, what was expected and what was found."""
        _refuse_settings(self.auth)
        self._source = _source(self.auth, self._monotonic)
        self._adopt(self._source.read())

    @property
    def keys(self) -> KeySet:
        """The keys in force, and which of the source's keys are not used."""
        return self._keys

    @property
    def remembered(self) -> int:
        """How many good tokens are in memory."""
        return len(self._remembered)

    def refresh(self) -> bool:
        """Looks whether the keys changed; call it about once a second. True: other keys are in force now.

        A removed key takes its tokens with it at once. SettingsError, raised once for each change:
        the new keys cannot be used, and those before stay in force.
        """
        assert self._source is not None, "refresh comes after open"
        try:
            data = self._source.changed()
            if data is None:
                return False
            if data != self._data:
                self._adopt(data)
                return True
        except SettingsError as error:
            if str(error) == self._told:
                return False
            self._told = str(error)
            raise
        self._told = ""
        return False

    def verify(self, token: str, ended: bool = False) -> Claims:
        """The claims of a good token; Refused, with one wording for whatever is wrong with any other.

        ended: of a message that was answered before, so that its token may have ended meanwhile.
        """
        if len(token) > self.token_bytes_max or not token.isascii():
            raise _unauthenticated()
        name = hashlib.blake2b(token.encode("ascii"), digest_size=32).digest()
        found = self._remembered.get(name)
        if found is not None and self._monotonic() < found[1]:
            claims, now_unix = found[0], self._clock()
            if claims.not_before_unix <= now_unix and (ended or now_unix < claims.expires_unix):
                return claims
        self._remembered.pop(name, None)
        claims = self._verified(token, ended)
        self._remembered[name] = (claims, self._monotonic() + REMEMBERED_S)
        if len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return claims

    def _adopt(self, data: bytes) -> None:
        assert self._source is not None
        parse = parse_secret if self.auth.hs256_secret_file else parse_jwks
        self._keys = parse(data, self._source.where, self.auth.algorithms)
        self._data = data
        self._told = ""
        self._remembered.clear()

    def _verified(self, token: str, ended: bool) -> Claims:
        self.signatures_checked += 1
        try:
            claims = read_claims(self._payload(token), self.auth.audience, self.auth.issuer)
        except (_NotValid, ValueError):
            raise _unauthenticated() from None  # parts of the token stand in the cause: none of it gets into a log
        now_unix = self._clock()
        if now_unix >= claims.expires_unix and not ended:
            raise Refused(
                Reason.EXPIRED_TOKEN, "the token of this message has expired; get a new one and send the message again"
            )
        if now_unix < claims.not_before_unix:
            raise _unauthenticated()
        return claims

    def _payload(self, token: str) -> bytes:
        """The signed bytes, once the signature holds."""
        segments = token.split(".")
        if len(segments) != 3:
            raise _NotValid("not three segments")
        key = self._key(jose.from_json(jose.from_base64url(segments[0])))
        payload, signature = jose.from_base64url(segments[1]), jose.from_base64url(segments[2])
        if not key.signed(f"{segments[0]}.{segments[1]}".encode("ascii"), signature):
            raise _NotValid("the signature does not hold")
        return payload

    def _key(self, header: Any) -> Key:
        """The key that has to have signed, by `alg` and `kid`. Keys and addresses in a header are never looked at."""
        if not isinstance(header, dict):
            raise _NotValid("the header is no object")
        if "crit" in header or "b64" in header:
            raise _NotValid("an extension that changes what a token means; none is known here")
        algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
        if not isinstance(algorithm, str) or algorithm not in self.auth.algorithms:
            raise _NotValid("alg")
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise _NotValid("typ")
        if "kid" in header and not isinstance(kid, str):
            raise _NotValid("kid")
        key = self._keys.find(algorithm, kid)
        if key is None:
            raise _NotValid("no such key")
        return key


def read_claims(payload: bytes, audience: str, issuer: str) -> Claims:
    """The claims of a signed payload. All must be there and of their type; PyJWT's own checks are laxer."""
    document = jose.from_json(payload)
    if not isinstance(document, dict):
        raise _NotValid("the payload is no object")
    aud = document.get("aud")
    audiences = aud if isinstance(aud, list) else [aud]
    if not all(isinstance(name, str) for name in audiences) or audience not in audiences:
        raise _NotValid("aud")
    if issuer and document.get("iss") != issuer:
        raise _NotValid("iss")
    company_id = _text(document, "company_id")
    if not is_name(company_id):
        raise _NotValid("company_id")
    user_id = _text(document, "sub")
    if not is_user(user_id):
        raise _NotValid("sub")
    tier = _TIERS.get(_text(document, "tier"))
    if tier is None:
        raise _NotValid("tier")
    scope = _text(document, "scope")
    if _SCOPES.fullmatch(scope) is None:
        raise _NotValid("scope")
    scopes = frozenset(scope.split(" "))
    return Claims(user_id, company_id, tier, scopes, _unix(document, "nbf"), _unix(document, "exp"))


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str):
        raise _NotValid(name)
    return value


def _unix(document: dict[str, Any], name: str) -> float:
    value = document.get(name)
    # bool is an int in Python; JSON's true is not a date.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _NotValid(name)
    if not 0 <= value <= UNIX_MAX:  # neither NaN nor an infinity is
        raise _NotValid(name)
    return float(value)


def _unauthenticated() -> Refused:
    return Refused(
        Reason.UNAUTHENTICATED, "the token of this message is not valid here; send a valid token with each message"
    )


def _refuse_settings(auth: Auth) -> None:
    """What can be said about `[auth]` without reading a key."""
    unknown = [name for name in auth.algorithms if name not in ALGORITHMS]
    if unknown or not auth.algorithms:
        found = f"unknown {unknown}" if unknown else "none"
        raise SettingsError(f"auth.algorithms: expected some of {list(ALGORITHMS)}, found {found}; name those in use")
    if not auth.audience:
        raise SettingsError('auth.audience: expected the aud of our tokens, such as "ml", found nothing; name it')


def _source(auth: Auth, monotonic: Callable[[], float]) -> Source:
    given = {
        name: value for name in ("jwks_file", "jwks_url", "hs256_secret_file") if (value := str(getattr(auth, name)))
    }
    if len(given) != 1:
        found = " and ".join(f"auth.{name}" for name in given) or "none"
        raise SettingsError(
            "auth: expected exactly one of auth.jwks_file, auth.jwks_url and auth.hs256_secret_file, "
            f"found {found}; make a key pair with: python -m engine token keygen --out DIR"
        )
    (name, value) = next(iter(given.items()))
    if name == "jwks_url":
        return KeyUrl("auth.jwks_url", value, monotonic)
    return KeyFile(f"auth.{name}", value, secret=name == "hs256_secret_file")
