"""An issuer of tokens for tests: real keys, real files, and tokens put together by hand.

Nothing here goes through the code under test or through PyJWT's encoder, which refuses to make most
of what an attacker sends.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

NOW = 1_800_000_000.0
SECRET = b"correct horse battery staple, 38 bytes"
Sign = Callable[[bytes], bytes]

ED = ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"first").digest())
ED_NEXT = ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"next").digest())
STRANGER = ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"stranger").digest())
EC = ec.derive_private_key(int.from_bytes(hashlib.sha256(b"curve").digest(), "big") >> 1, ec.SECP256R1())
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64_int(number: int) -> str:
    return b64(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def by_ed(message: bytes) -> bytes:
    return ED.sign(message)


def by_ed_next(message: bytes) -> bytes:
    return ED_NEXT.sign(message)


def by_stranger(message: bytes) -> bytes:
    return STRANGER.sign(message)


def by_ec(message: bytes) -> bytes:
    r, s = decode_dss_signature(EC.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def by_rsa(message: bytes) -> bytes:
    return RSA.sign(message, padding.PKCS1v15(), hashes.SHA256())


def by_hmac(secret: bytes, digest: str = "sha256") -> Sign:
    return lambda message: hmac.new(secret, message, digest).digest()


def by_nobody(message: bytes) -> bytes:
    return b""


def ed_jwk(key: ed25519.Ed25519PrivateKey = ED, **more: Any) -> dict[str, Any]:
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw()), **more}


def ec_jwk(**more: Any) -> dict[str, Any]:
    numbers = EC.public_key().public_numbers()
    x, y = (b64(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y, **more}


def rsa_jwk(**more: Any) -> dict[str, Any]:
    numbers = RSA.public_key().public_numbers()
    return {"kty": "RSA", "n": b64_int(numbers.n), "e": b64_int(numbers.e), **more}


def oct_jwk(secret: bytes = SECRET, **more: Any) -> dict[str, Any]:
    return {"kty": "oct", "k": b64(secret), **more}


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims at `NOW`; a change to `...` leaves the claim out."""
    document = {
        "sub": "trader-7",
        "company_id": "acme",
        "tier": "pro",
        "scope": "predict models:read",
        "aud": "ml",
        "iss": "https://issuer.example",
        "nbf": int(NOW) - 60,
        "exp": int(NOW) + 600,
        **changes,
    }
    return {name: value for name, value in document.items() if value is not ...}


def header(**changes: Any) -> dict[str, Any]:
    document = {"alg": "EdDSA", "typ": "JWT", "kid": "first", **changes}
    return {name: value for name, value in document.items() if value is not ...}


def compact(head: Any, payload: Any, sign: Sign = by_ed) -> str:
    """A signed token of any header and payload; bytes stand as they are, all else becomes JSON."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (head, payload)]
    signing_input = ".".join(b64(part) for part in parts)
    return f"{signing_input}.{b64(sign(signing_input.encode()))}"


def good(**changes: Any) -> str:
    return compact(header(), claims(**changes))


def write_jwks(path: Path, *keys: dict[str, Any], mode: int = 0o600) -> Path:
    return write_key_file(path, json.dumps({"keys": keys}).encode(), mode)


def write_key_file(path: Path, data: bytes, mode: int = 0o600) -> Path:
    """Puts a file in place at once, as a careful operator does."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(data)
    fresh.chmod(mode)
    fresh.rename(path)
    return path


def auth(**changes: Any) -> SimpleNamespace:
    """Section `[auth]` with nothing but defaults and what is given."""
    defaults = {
        "algorithms": ("EdDSA",),
        "jwks_file": "",
        "jwks_url": "",
        "hs256_secret_file": "",
        "audience": "ml",
        "issuer": "https://issuer.example",
    }
    return SimpleNamespace(**{**defaults, **changes})
