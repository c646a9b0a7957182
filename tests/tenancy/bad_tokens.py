"""Bad tokens by name, each made as an attacker, a broken issuer or a careless sender would.

All are bad at `NOW` for a verifier that knows the keys `first`, `next`, `curve`, `rsa` and `secret`.
"""

import base64
import json
from collections.abc import Callable
from typing import Any

import issuer
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from issuer import NOW, b64, by_ed, by_hmac, by_nobody, by_stranger, claims, compact, good, header

TOKEN_BYTES_MAX = 8192

ED_PUBLIC = issuer.ED.public_key()
ED_RAW = ED_PUBLIC.public_bytes_raw()
ED_PEM = ED_PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
ED_DER = ED_PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
RSA_PEM = issuer.RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
EC_PEM = issuer.EC.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def with_payload(payload: Any) -> str:
    return compact(header(), payload)


def with_header(sign: issuer.Sign = by_ed, **changes: Any) -> str:
    return compact(header(**changes), claims(), sign)


def segments(**changes: Any) -> list[str]:
    return good(**changes).split(".")


def last_character_loosened(text: str) -> str:
    """The same bytes to a lenient decoder: a bit set that belongs to no byte."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(text) % 4 in (2, 3)
    return text[:-1] + alphabet[alphabet.index(text[-1]) ^ 1]


def standard_alphabet() -> str:
    """A good token in base64 with + and / where base64url has - and _; one that really differs."""
    for number in range(1000):
        head, payload, signature = segments(sub=f"trader-{number}")
        if "-" in signature or "_" in signature:
            return f"{head}.{payload}.{signature.replace('-', '+').replace('_', '/')}"
    raise AssertionError("no signature with - or _ in a thousand")


def duplicate(claim: str, first: Any, second: Any) -> bytes:
    rest = json.dumps(claims(**{claim: ...}))[1:]
    return f"{{{json.dumps(claim)}: {json.dumps(first)}, {json.dumps(claim)}: {json.dumps(second)}, {rest}".encode()


def number(claim: str, text: str) -> bytes:
    """Claims with a number that `json.dumps` would not write."""
    return json.dumps(claims(**{claim: "HERE"})).replace('"HERE"', text).encode()


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def detached() -> str:
    """RFC 7797's unencoded payload, rightly signed by our key."""
    head = b64(json.dumps(header(b64=False, crit=["b64"])).encode())
    payload = json.dumps(claims())
    return f"{head}.{b64(payload.encode())}.{b64(by_ed(f'{head}.{payload}'.encode()))}"


ALGORITHM = {
    "none": lambda: with_header(by_nobody, alg="none"),
    "none in capitals": lambda: with_header(by_nobody, alg="NONE"),
    "none in mixed case": lambda: with_header(by_nobody, alg="nOnE"),
    "none with a blank": lambda: with_header(by_nobody, alg="none "),
    "none with a signature": lambda: with_header(by_ed, alg="none"),
    "none without an id": lambda: with_header(by_nobody, alg="none", kid=...),
    "empty algorithm": lambda: with_header(by_nobody, alg=""),
    "no algorithm": lambda: with_header(alg=...),
    "null algorithm": lambda: with_header(alg=None),
    "algorithm as a list": lambda: with_header(alg=["EdDSA"]),
    "algorithm as an object": lambda: with_header(alg={"EdDSA": 1}),
    "algorithm as a number": lambda: with_header(alg=1),
    "algorithm in another case": lambda: with_header(alg="EDDSA"),
    "algorithm that nobody knows": lambda: with_header(alg="EdDSA2"),
    "algorithm that is not configured": lambda: with_header(
        by_hmac(issuer.SECRET, "sha512"), alg="HS512", kid="secret"
    ),
    "ES256 named for the Ed25519 key": lambda: with_header(alg="ES256"),
    "RS256 named for the Ed25519 key": lambda: with_header(alg="RS256"),
    "EdDSA named for the P-256 key": lambda: with_header(issuer.by_ec, kid="curve"),
    "EdDSA named for the secret": lambda: with_header(by_hmac(issuer.SECRET), kid="secret"),
    "ES256 with a signature of zeros": lambda: with_header(lambda _: bytes(64), alg="ES256", kid="curve"),
    "ES256 with a signature in DER": lambda: with_header(
        lambda message: issuer.EC.sign(message, issuer.ec.ECDSA(issuer.hashes.SHA256())), alg="ES256", kid="curve"
    ),
}

CONFUSION = {
    f"HS256 by the {name}, {kid_name}": (
        lambda secret=secret, kid=kid: with_header(by_hmac(secret), alg="HS256", kid=kid)
    )
    for name, secret in {
        "Ed25519 key raw": ED_RAW,
        "Ed25519 key as PEM": ED_PEM,
        "Ed25519 key as PEM without its last line end": ED_PEM.rstrip(),
        "Ed25519 key as DER": ED_DER,
        "Ed25519 key as base64url": b64(ED_RAW).encode(),
        "Ed25519 key as JWK": json.dumps(issuer.ed_jwk(kid="first")).encode(),
        "RSA key as PEM": RSA_PEM,
        "P-256 key as PEM": EC_PEM,
        "empty secret": b"",
        "secret as base64url": b64(issuer.SECRET).encode(),
        "secret with a line end": issuer.SECRET + b"\n",
    }.items()
    for kid_name, kid in {"its id": "first", "the secret's id": "secret", "no id": ...}.items()
}

HEADER = {
    "unknown crit": lambda: with_header(crit=["exp-strict"], **{"exp-strict": True}),
    "crit of a known extension": lambda: with_header(crit=["b64"], b64=True),
    "unencoded payload": detached,
    "b64 without crit": lambda: with_header(b64=False),
    "empty crit": lambda: with_header(crit=[]),
    "null crit": lambda: with_header(crit=None),
    "crit of a claim": lambda: with_header(crit=["exp"]),
    "id as a path": lambda: with_header(kid="../../../../dev/null"),
    "id as a path, signed by what is there": lambda: with_header(by_hmac(b""), alg="HS256", kid="../../../../dev/null"),
    "id as SQL": lambda: with_header(by_hmac(b"x" * 32), alg="HS256", kid="' UNION SELECT 'x' -- "),
    "id as a number": lambda: with_header(kid=1),
    "id as a list": lambda: with_header(kid=["first"]),
    "id as an object": lambda: with_header(kid={"first": 1}),
    "null id": lambda: with_header(kid=None),
    "unknown id": lambda: with_header(kid="second"),
    "empty id": lambda: with_header(kid=""),
    "huge id": lambda: with_header(kid="k" * 5000),
    "id in another case": lambda: with_header(kid="First"),
    "id with a NUL": lambda: with_header(kid="first\0"),
    "id as half a surrogate pair": lambda: with_header(kid="\ud800"),
    "another key's id": lambda: with_header(kid="next"),
    "no id where two keys fit": lambda: with_header(kid=...),
    "embedded key": lambda: with_header(by_stranger, jwk=issuer.ed_jwk(issuer.STRANGER), kid=...),
    "embedded key under our id": lambda: with_header(by_stranger, jwk=issuer.ed_jwk(issuer.STRANGER, kid="first")),
    "key set by address": lambda: with_header(by_stranger, jku="https://evil.example/jwks.json"),
    "certificate by address": lambda: with_header(by_stranger, x5u="https://evil.example/cert.pem"),
    "embedded certificate": lambda: with_header(by_stranger, x5c=[base64.b64encode(ED_DER).decode()]),
    "another type": lambda: with_header(typ="logout+jwt"),
    "type as a number": lambda: with_header(typ=1),
    "null type": lambda: with_header(typ=None),
    "header as a list": lambda: compact([header()], claims()),
    "header as a text": lambda: compact("EdDSA", claims()),
    "header as null": lambda: compact(None, claims()),
    "header that is no JSON": lambda: compact(b"alg=EdDSA", claims()),
    "header with something behind it": lambda: compact(json.dumps(header()).encode() + b"{}", claims()),
    "header in UTF-16": lambda: compact(json.dumps(header()).encode("utf-16"), claims()),
    "header behind a byte order mark": lambda: compact(b"\xef\xbb\xbf" + json.dumps(header()).encode(), claims()),
    "header with alg twice": lambda: compact(b'{"alg":"none","alg":"EdDSA","kid":"first"}', claims()),
    "header with kid twice": lambda: compact(b'{"alg":"EdDSA","kid":"next","kid":"first"}', claims()),
    "deep header": lambda: compact(b'{"alg":"EdDSA","kid":"first","x":' + nested(1500) + b"}", claims()),
    "header with NaN": lambda: compact(b'{"alg":"EdDSA","kid":"first","x":NaN}', claims()),
}

SHAPE = {
    "empty": lambda: "",
    "a dot": lambda: ".",
    "two dots": lambda: "..",
    "one segment": lambda: segments()[0],
    "two segments": lambda: ".".join(segments()[:2]),
    "no signature": lambda: ".".join([*segments()[:2], ""]),
    "no payload": lambda: "{0}..{2}".format(*segments()),
    "no header": lambda: ".{1}.{2}".format(*segments()),
    "a fourth segment": lambda: good() + ".e30",
    "an empty fourth segment": lambda: good() + ".",
    "five segments, as encrypted tokens have": lambda: good() + ".e30.e30",
    "truncated signature": lambda: good()[:-2],
    "signature of one byte": lambda: ".".join([*segments()[:2], "AA"]),
    "longer signature": lambda: ".".join([*segments()[:2], b64(bytes(96))]),
    "signature of zeros": lambda: ".".join([*segments()[:2], b64(bytes(64))]),
    "signature with a loose bit": lambda: ".".join([*segments()[:2], last_character_loosened(segments()[2])]),
    "signature of other claims": lambda: ".".join([*segments()[:2], segments(company_id="other")[2]]),
    "claims of another token": lambda: ".".join([segments()[0], segments(company_id="other")[1], segments()[2]]),
    "signature by a stranger": lambda: with_header(by_stranger),
    "signature by the next key": lambda: with_header(issuer.by_ed_next),
    "padding": lambda: good() + "==",
    "padding in the header": lambda: segments()[0] + "=." + ".".join(segments()[1:]),
    "blank in front": lambda: " " + good(),
    "line end behind": lambda: good() + "\n",
    "blank within": lambda: good().replace(".", ". ", 1),
    "line end within the signature": lambda: good()[:-10] + "\n" + good()[-10:],
    "scheme in front": lambda: "Bearer " + good(),
    "quotes around": lambda: f'"{good()}"',
    "NUL behind": lambda: good() + "\0",
    "standard base64": standard_alphabet,
    "full-width letter": lambda: "\uff45" + good()[1:],
    "no-break space": lambda: good() + "\u00a0",
    "half a surrogate pair": lambda: good() + "\ud800",
    "too large": lambda: good(sub="trader-7", note="x" * TOKEN_BYTES_MAX),
    "JSON serialisation": lambda: json.dumps(
        {"protected": segments()[0], "payload": segments()[1], "signature": segments()[2]}
    ),
}

CLAIM = {
    **{f"no {claim}": (lambda claim=claim: good(**{claim: ...})) for claim in claims()},
    **{f"null {claim}": (lambda claim=claim: good(**{claim: None})) for claim in claims()},
    **{f"{claim} as an object": (lambda claim=claim: good(**{claim: {"x": 1}})) for claim in claims()},
    **{f"{claim} as true": (lambda claim=claim: good(**{claim: True})) for claim in claims()},
    **{
        f"{claim} twice": (lambda claim=claim: with_payload(duplicate(claim, "x", claims()[claim])))
        for claim in claims()
    },
    "sub as a number": lambda: good(sub=7),
    "empty sub": lambda: good(sub=""),
    "sub of 129 characters": lambda: good(sub="u" * 129),
    "sub with a line end": lambda: good(sub="trader\n7"),
    "sub with a direction mark": lambda: good(sub="trader\u202e7"),
    "sub as half a surrogate pair": lambda: good(sub="\ud800"),
    "empty company": lambda: good(company_id=""),
    "company with a dot": lambda: good(company_id="acme.eu"),
    "company with a wildcard": lambda: good(company_id="*"),
    "company as a path": lambda: good(company_id="../acme"),
    "company with a line end": lambda: good(company_id="acme\n"),
    "company in look-alike letters": lambda: good(company_id="\u0430cme"),
    "company of 65 characters": lambda: good(company_id="c" * 65),
    "company as a list": lambda: good(company_id=["acme"]),
    "unknown tier": lambda: good(tier="platinum"),
    "tier in capitals": lambda: good(tier="PRO"),
    "tier as its number": lambda: good(tier=3),
    "tier with a blank": lambda: good(tier="pro "),
    "tier as a list": lambda: good(tier=["enterprise"]),
    "empty scope": lambda: good(scope=""),
    "scope as a list": lambda: good(scope=["predict"]),
    "scope with two blanks": lambda: good(scope="predict  operator"),
    "scope with a tab": lambda: good(scope="predict\toperator"),
    "scope with a line end": lambda: good(scope="predict\n"),
    "scope with quotes": lambda: good(scope='"predict"'),
    "another audience": lambda: good(aud="billing"),
    "empty audience": lambda: good(aud=""),
    "audience that begins like ours": lambda: good(aud="ml2"),
    "audience that ours begins with": lambda: good(aud="m"),
    "audience in capitals": lambda: good(aud="ML"),
    "list without our audience": lambda: good(aud=["billing", "ml2"]),
    "empty list of audiences": lambda: good(aud=[]),
    "list of lists of audiences": lambda: good(aud=[["ml"]]),
    "list with our audience and a number": lambda: good(aud=["ml", 1]),
    "another issuer": lambda: good(iss="https://evil.example"),
    "issuer that ours begins with": lambda: good(iss="https://issuer"),
    "issuer that begins like ours": lambda: good(iss="https://issuer.example.evil.example"),
    "issuer with a slash": lambda: good(iss="https://issuer.example/"),
    "issuer as a list": lambda: good(iss=["https://issuer.example"]),
    "empty issuer": lambda: good(iss=""),
    "exp as a text": lambda: good(exp=str(int(NOW) + 600)),
    "exp as a date": lambda: good(exp="2099-01-01T00:00:00Z"),
    "exp as a list": lambda: good(exp=[int(NOW) + 600]),
    "negative exp": lambda: good(exp=-1),
    "exp NaN": lambda: with_payload(number("exp", "NaN")),
    "exp infinite": lambda: with_payload(number("exp", "Infinity")),
    "exp beyond all floats": lambda: with_payload(number("exp", "1e999")),
    "exp as a huge float": lambda: good(exp=1e300),
    "exp as a huge integer": lambda: good(exp=10**400),
    "exp of 5,000 digits": lambda: with_payload(number("exp", "9" * 5000)),
    "exp in the year 10000": lambda: good(exp=253_402_300_800),
    "exp in milliseconds": lambda: good(exp=int(NOW * 1000)),
    "nbf as a text": lambda: good(nbf=str(int(NOW))),
    "nbf in a second": lambda: good(nbf=int(NOW) + 1),
    "nbf in a moment": lambda: good(nbf=NOW + 0.001),
    "nbf NaN": lambda: with_payload(number("nbf", "NaN")),
    "negative nbf": lambda: good(nbf=-1),
    "nbf behind exp": lambda: good(nbf=int(NOW) + 700),
    "payload as a list": lambda: with_payload([claims()]),
    "payload as null": lambda: with_payload(None),
    "payload as a text": lambda: with_payload("sub"),
    "empty payload object": lambda: with_payload({}),
    "payload that is no JSON": lambda: with_payload(b"sub=trader-7"),
    "payload that is no UTF-8": lambda: with_payload(json.dumps(claims()).encode().replace(b"trader", b"\xfftrade")),
    "payload in UTF-16": lambda: with_payload(json.dumps(claims()).encode("utf-16")),
    "payload with something behind it": lambda: with_payload(json.dumps(claims()).encode() + b"{}"),
    "deep payload": lambda: with_payload(json.dumps(claims(x="HERE")).encode().replace(b'"HERE"', nested(1500))),
    "a token as payload": lambda: with_payload(good().encode()),
    "expired, and for another audience": lambda: good(aud="billing", exp=int(NOW) - 1),
    "expired, signed by a stranger": lambda: compact(header(), claims(exp=int(NOW) - 1), by_stranger),
    "expired, not signed": lambda: compact(header(), claims(exp=int(NOW) - 1), by_nobody),
}

BAD: dict[str, Callable[[], str]] = {**ALGORITHM, **CONFUSION, **HEADER, **SHAPE, **CLAIM}
