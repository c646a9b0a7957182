"""Makes keys and signs tokens, for trying things out, for demonstrations and for tests.

Owns nothing; runs in commands, never in the engine, which holds no private key. Reads and writes key
files. What must stay true: a private key's file is its owner's alone from its first byte on; no key
is ever overwritten.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from engine.contract.names import Tier
from engine.errors import SettingsError
from engine.tenancy import jose
from engine.tenancy.keys import ALGORITHMS, algorithm_of, parse_secret
from engine.tenancy.sources import KeyFile

PRIVATE_NAME = "private.jwk"
PUBLIC_NAME = "jwks.json"
NBF_BACK_S = 60  # tokens count from this long before they were made: clocks of two hosts differ


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key, or a shared secret, as PyJWT takes it."""

    algorithm: str
    kid: str | None
    material: Any


@dataclass(frozen=True, slots=True)
class KeyPairFiles:
    """What `write_key_pair` wrote."""

    private: Path
    public: Path
    kid: str


def make_key_pair() -> tuple[dict[str, str], dict[str, list[dict[str, str]]]]:
    """A new Ed25519 pair: the private JWK, and the public key set for the engine. The id is RFC 7638's thumbprint."""
    private: dict[str, str] = OKPAlgorithm.to_jwk(Ed25519PrivateKey.generate(), as_dict=True)
    public = {"kty": "OKP", "crv": "Ed25519", "x": private["x"]}
    canonical = json.dumps(public, separators=(",", ":"), sort_keys=True).encode("ascii")
    names = {"kid": jose.to_base64url(hashlib.sha256(canonical).digest()), "alg": "EdDSA", "use": "sig"}
    return {**public, "d": private["d"], **names}, {"keys": [{**public, **names}]}


def write_key_pair(folder: Path) -> KeyPairFiles:
    """Makes a pair and writes both parts into the folder, which is made where it is missing."""
    private_path, public_path = folder / PRIVATE_NAME, folder / PUBLIC_NAME
    for path in (private_path, public_path):
        if os.path.lexists(path):
            raise SettingsError(f"{folder}: expected no key there yet, found {path.name}; name another folder")
    private, public = make_key_pair()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_new(private_path, private, 0o600)
        _write_new(public_path, public, 0o644)
    except OSError as error:
        raise SettingsError(
            f"{folder}: expected a folder that can be written, found: {error.strerror}; name another folder"
        ) from None
    return KeyPairFiles(private_path, public_path, private["kid"])


def _write_new(path: Path, document: object, mode: int) -> None:
    # O_EXCL: neither an existing file nor a link that somebody put there is ever written.
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "w") as file:
        file.write(json.dumps(document, indent=2) + "\n")


def read_signing_key(path: str, setting: str = "--key") -> SigningKey:
    """The key in a file: a private JWK, or the bytes of an HS256 secret."""
    source = KeyFile(setting, path, secret=True)
    return parse_signing_key(source.read(), source.where)


def parse_signing_key(data: bytes, where: str) -> SigningKey:
    """A private JWK, told by its brace, or an HS256 secret."""
    if not data.lstrip().startswith(b"{"):
        key = parse_secret(data, where, ("HS256",)).keys[0]
        return SigningKey(key.algorithm, None, key.material)
    try:
        document = jose.from_json(data)
        algorithm = algorithm_of(document)
        if algorithm is None or not {"d", "k"} & document.keys():
            raise ValueError("none of " + ", ".join(ALGORITHMS) + " that can sign")
        return SigningKey(algorithm, document.get("kid"), jwt.PyJWK(document, algorithm).key)
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise SettingsError(
            f"{where}: expected a private JSON Web Key or an HS256 secret, found {error}; "
            "make a pair with: python -m engine token keygen --out DIR"
        ) from None


def sign(
    key: SigningKey,
    *,
    user_id: str,
    company_id: str,
    tier: Tier,
    scopes: Iterable[str],
    audience: str,
    issuer: str,
    now_unix: float,
    valid_s: float,
) -> str:
    """A token with the contract's claims, valid from a minute ago until `valid_s` from now."""
    claims: dict[str, Any] = {
        "sub": user_id,
        "company_id": company_id,
        "tier": tier.name.lower(),
        "scope": " ".join(scopes),
        "aud": audience,
        "nbf": int(now_unix) - NBF_BACK_S,
        "exp": int(now_unix + valid_s),
    }
    if issuer:
        claims["iss"] = issuer
    headers = {"kid": key.kid} if key.kid is not None else None
    return jwt.encode(claims, key.material, algorithm=key.algorithm, headers=headers)
