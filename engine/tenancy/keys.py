"""The keys that may sign tokens: a JSON Web Key Set or a shared secret becomes a `KeySet`.

Owns the rules of what is a usable key; no state. Used by the processes that verify tokens, and by
`check`. Reads bytes that `sources` brought. What must stay true: a key is bound to exactly one
algorithm by what it is, never by what a token says; nothing that reads as a public key becomes a
shared secret.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.algorithms import Algorithm, HMACAlgorithm, get_default_algorithms

from engine.errors import SettingsError
from engine.tenancy import jose

SECRET_BYTES_MIN = 32  # of HS256, as RFC 7518 demands
KEYS_MAX = 64  # of one set
KID_MAX = 256

# (kty, crv) decides the algorithm; crv is None where the kind of key has no curve.
ALGORITHM_OF = {
    ("OKP", "Ed25519"): "EdDSA",
    ("oct", None): "HS256",
    ("EC", "P-256"): "ES256",
    ("RSA", None): "RS256",
}
ALGORITHMS = tuple(ALGORITHM_OF.values())


@dataclass(frozen=True, slots=True)
class Key:
    """One key with its only algorithm. `material` is what PyJWT prepared for it."""

    algorithm: str
    kid: str | None
    verifier: Algorithm
    material: Any

    def signed(self, signing_input: bytes, signature: bytes) -> bool:
        return self.verifier.verify(signing_input, self.material, signature)


class KeySet:
    """Keys by id and by algorithm. `ignored` says which others were found and why they are not used."""

    def __init__(self, keys: Sequence[Key], ignored: Sequence[str] = ()) -> None:
        self.keys = tuple(keys)
        self.ignored = tuple(ignored)
        self._by_kid = {key.kid: key for key in keys if key.kid is not None}
        self._by_algorithm: dict[str, list[Key]] = {}
        for key in keys:
            self._by_algorithm.setdefault(key.algorithm, []).append(key)

    def find(self, algorithm: str, kid: str | None) -> Key | None:
        """The key of that id and that algorithm; without an id, the only key of the algorithm."""
        if kid is None:
            fitting = self._by_algorithm.get(algorithm, [])
            return fitting[0] if len(fitting) == 1 else None
        key = self._by_kid.get(kid)
        return key if key is not None and key.algorithm == algorithm else None


class _Unusable(Exception):
    """A key of a set is not for us. Others of the set may be."""


def algorithm_of(member: dict[str, Any]) -> str | None:
    """The one algorithm that this JWK may be used with; None: no known one."""
    kty, crv = member.get("kty"), member.get("crv")
    if not isinstance(kty, str) or not isinstance(crv, str | None):
        return None
    return ALGORITHM_OF.get((kty, crv))


def parse_secret(data: bytes, where: str, algorithms: Sequence[str]) -> KeySet:
    """The key set of one HS256 secret. Line ends at the end of the file are not part of it."""
    if "HS256" not in algorithms:
        raise SettingsError(
            f'{where}: expected "HS256" in auth.algorithms, found {list(algorithms)}; '
            "add it, or give auth.jwks_file instead"
        )
    secret = data.rstrip(b"\r\n")
    try:
        return KeySet([Key("HS256", None, _algorithm("HS256"), _prepared_secret(secret))])
    except _Unusable as error:
        raise SettingsError(
            f"{where}: expected a random secret of {SECRET_BYTES_MIN} bytes or more, found {error}; "
            "make one with: openssl rand -hex 32"
        ) from None


def parse_jwks(data: bytes, where: str, algorithms: Sequence[str]) -> KeySet:
    """The key set of a JWKS document. Keys of other kinds or uses are ignored; contradictions are errors."""
    members = _members(data, where)
    keys: list[Key] = []
    ignored: list[str] = []
    for number, member in enumerate(members, start=1):
        _refuse_private(member, where, number)
        try:
            keys.append(_key(member, algorithms))
        except _Unusable as error:
            ignored.append(f"key {number}: {error}")
    _refuse_contradictions(keys, where)
    if not keys:
        found = "; ".join(ignored) if ignored else "no key at all"
        raise SettingsError(
            f"{where}: expected a key for one of auth.algorithms {list(algorithms)}, found {found}; "
            "make a pair with: python -m engine token keygen --out DIR"
        )
    return KeySet(keys, ignored)


def holds_secret(data: bytes) -> bool:
    """Whether a key set has something that only its owner may read: shared secrets or private parts."""
    try:
        document = jose.from_json(data)
    except ValueError:
        return False
    members = document.get("keys") if isinstance(document, dict) else None
    found = [member for member in members if isinstance(member, dict)] if isinstance(members, list) else []
    return any("d" in member or "k" in member for member in found)


def _members(data: bytes, where: str) -> list[dict[str, Any]]:
    advice = "make a pair with: python -m engine token keygen --out DIR"
    try:
        document = jose.from_json(data)
    except ValueError as error:
        raise SettingsError(f"{where}: expected a JSON Web Key Set, found {error}; {advice}") from None
    members = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(members, list) or not all(isinstance(member, dict) for member in members):
        raise SettingsError(
            f'{where}: expected a JSON Web Key Set, an object with the keys in a list "keys", '
            f"found other JSON; {advice}"
        )
    if len(members) > KEYS_MAX:
        raise SettingsError(f"{where}: expected at most {KEYS_MAX} keys, found {len(members)}; remove those not in use")
    return members


def _refuse_private(member: dict[str, Any], where: str, number: int) -> None:
    if "d" in member:
        raise SettingsError(
            f"{where}: expected public keys, found the private part of key {number}; "
            "give the engine the public set only, and treat that key as known to others"
        )


def _refuse_contradictions(keys: Sequence[Key], where: str) -> None:
    seen: set[str] = set()
    for key in keys:
        if key.kid is None:
            continue
        if key.kid in seen:
            raise SettingsError(f"{where}: expected each kid once, found {key.kid!r} twice; rename one of the keys")
        seen.add(key.kid)


def _key(member: dict[str, Any], algorithms: Sequence[str]) -> Key:
    algorithm = algorithm_of(member)
    if algorithm is None:
        kind = f"kty {member.get('kty')!r} with crv {member.get('crv')!r}"
        raise _Unusable(f"{kind} is of none of the known algorithms {', '.join(ALGORITHMS)}")
    if member.get("alg", algorithm) != algorithm:
        raise _Unusable(f"its alg is {member['alg']!r}, and such keys are for {algorithm} here")
    if algorithm not in algorithms:
        raise _Unusable(f"{algorithm} is not in auth.algorithms")
    if member.get("use", "sig") != "sig":
        raise _Unusable(f"its use is {member['use']!r}, not 'sig'")
    operations = member.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise _Unusable("its key_ops lack 'verify'")
    kid = member.get("kid")
    if kid is not None and not (isinstance(kid, str) and 1 <= len(kid) <= KID_MAX):
        raise _Unusable(f"its kid is not a text of 1 to {KID_MAX} characters")
    return Key(algorithm, kid, _algorithm(algorithm), _material(member, algorithm))


def _material(member: dict[str, Any], algorithm: str) -> Any:
    if algorithm == "HS256":
        try:
            return _prepared_secret(jose.from_base64url(member.get("k", "")))
        except (TypeError, ValueError) as error:
            raise _Unusable(f"its k is not base64url: {error}") from None
    try:
        key = jwt.PyJWK(member, algorithm)
    except (jwt.PyJWTError, TypeError, ValueError, KeyError) as error:
        raise _Unusable(f"it cannot be read: {error}") from None
    short = key.Algorithm.check_key_length(key.key)
    if short:
        raise _Unusable(short)
    return key.key


def _prepared_secret(secret: bytes) -> Any:
    """The secret, unless it is short, or a key of another kind: public keys are known to everybody."""
    if len(secret) < SECRET_BYTES_MIN:
        raise _Unusable(f"{len(secret)} bytes")
    try:
        return HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except jwt.InvalidKeyError:
        raise _Unusable("a public or private key, or a certificate, where a shared secret belongs") from None


def _algorithm(name: str) -> Algorithm:
    return get_default_algorithms()[name]
