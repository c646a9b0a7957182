"""Keys that cannot be trusted are refused at the start, and the operator is told what to do."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import issuer
import pytest
from cryptography.hazmat.primitives.asymmetric import ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from issuer import b64, claims, compact, good, header

from engine.errors import Refused, SettingsError
from engine.tenancy import sources
from engine.tenancy.tokens import Verifier

KEYGEN = "make a pair with: python -m engine token keygen --out DIR"
OPENSSL = "make one with: openssl rand -hex 32"


def verifier(**auth: Any) -> Verifier:
    return Verifier(issuer.auth(**auth), 8192, clock=issuer.Clock(), monotonic=issuer.Clock(0.0))


def told(**auth: Any) -> str:
    """What the operator reads when these settings are opened."""
    with pytest.raises(SettingsError) as error:
        verifier(**auth).open()
    return str(error.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "key"


def jwks_told(path: Path, *keys: dict[str, Any], algorithms: tuple[str, ...] = ("EdDSA",), mode: int = 0o600) -> str:
    issuer.write_jwks(path, *keys, mode=mode)
    return told(algorithms=algorithms, jwks_file=str(path)).removeprefix(f"auth.jwks_file = '{path}': ")


def secret_told(path: Path, data: bytes, mode: int = 0o600) -> str:
    issuer.write_key_file(path, data, mode)
    message = told(algorithms=("HS256",), hs256_secret_file=str(path))
    return message.removeprefix(f"auth.hs256_secret_file = '{path}': ")


def test_no_source_of_keys_and_two_of_them_are_refused() -> None:
    begin = "auth: expected exactly one of auth.jwks_file, auth.jwks_url and auth.hs256_secret_file, found"
    assert told() == f"{begin} none; make a key pair with: python -m engine token keygen --out DIR"
    assert told(jwks_file="a", hs256_secret_file="b") == (
        f"{begin} auth.jwks_file and auth.hs256_secret_file; "
        "make a key pair with: python -m engine token keygen --out DIR"
    )


def test_unknown_algorithms_none_at_all_and_no_audience_are_refused() -> None:
    begin = "auth.algorithms: expected some of ['EdDSA', 'HS256', 'ES256', 'RS256'], found"
    assert told(algorithms=("EdDSA", "none"), jwks_file="x") == f"{begin} unknown ['none']; name those in use"
    assert told(algorithms=(), jwks_file="x") == f"{begin} none; name those in use"
    assert told(audience="", jwks_file="x") == (
        'auth.audience: expected the aud of our tokens, such as "ml", found nothing; name it'
    )


def test_file_that_cannot_be_read_is_named_with_the_reason(path: Path) -> None:
    def expected(found: str) -> str:
        return (
            f"auth.jwks_file = '{path}': expected a file that this user can read, found: {found}; "
            "correct the setting, or make keys with: python -m engine token keygen --out DIR"
        )

    assert told(jwks_file=str(path)) == expected("No such file or directory")
    path.mkdir()
    assert told(jwks_file=str(path)) == expected("Is a directory")
    assert told(jwks_file="/dev/null") == (
        "auth.jwks_file = '/dev/null': expected a regular file, found something else; give a file"
    )


def test_pipe_in_the_place_of_a_key_holds_nobody_up(path: Path) -> None:
    os.mkfifo(path)
    assert told(jwks_file=str(path)) == (
        f"auth.jwks_file = '{path}': expected a regular file, found something else; give a file"
    )


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_secret_that_others_can_read_is_refused(path: Path, mode: int) -> None:
    expected = (
        f"expected a secret that only its owner can read (mode 0600), found mode {mode:04o}; run: chmod 600 {path}"
    )
    assert secret_told(path, issuer.SECRET, mode) == expected
    assert jwks_told(path, issuer.oct_jwk(), algorithms=("HS256",), mode=mode) == expected


def test_public_keys_may_be_read_by_all_but_not_written(path: Path) -> None:
    issuer.write_jwks(path, issuer.ed_jwk(), mode=0o644)
    verifier(jwks_file=str(path)).open()
    assert jwks_told(path, issuer.ed_jwk(), mode=0o646) == (
        f"expected a file that others cannot write, found mode 0646; run: chmod o-w {path}"
    )


def test_empty_and_short_secrets_are_refused(path: Path) -> None:
    assert secret_told(path, b"") == "expected a key, found an empty file; write the key into it"
    assert secret_told(path, b"\n\n") == "expected a key, found an empty file; write the key into it"
    assert secret_told(path, b"x" * 31 + b"\n") == (
        f"expected a random secret of 32 bytes or more, found 31 bytes; {OPENSSL}"
    )


PUBLIC = {
    "Ed25519 as PEM": issuer.ED.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "RSA as PEM": issuer.RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    "RSA as PKCS1": issuer.RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1),
    "RSA as DER": issuer.RSA.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    "Ed25519 for SSH": issuer.ED.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
    "JWK": json.dumps(issuer.ed_jwk()).encode(),
    "key set": json.dumps({"keys": [issuer.ed_jwk()]}).encode(),
}


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in PUBLIC.items()])
def test_public_key_is_no_secret(path: Path, data: bytes) -> None:
    expected = "a public or private key, or a certificate, where a shared secret belongs"
    assert secret_told(path, data) == f"expected a random secret of 32 bytes or more, found {expected}; {OPENSSL}"
    assert jwks_told(path, issuer.oct_jwk(data), algorithms=("HS256",)) == (
        f"expected a key for one of auth.algorithms ['HS256'], found key 1: {expected}; {KEYGEN}"
    )


def test_secret_without_its_algorithm_in_the_settings_is_refused(path: Path) -> None:
    issuer.write_key_file(path, issuer.SECRET)
    assert told(hs256_secret_file=str(path)) == (
        f"auth.hs256_secret_file = '{path}': expected \"HS256\" in auth.algorithms, found ['EdDSA']; "
        "add it, or give auth.jwks_file instead"
    )


def test_private_key_given_to_the_engine_is_refused(path: Path) -> None:
    private = issuer.ed_jwk(d=b64(issuer.ED.private_bytes_raw()))
    assert jwks_told(path, issuer.ed_jwk(issuer.ED_NEXT), private) == (
        "expected public keys, found the private part of key 2; "
        "give the engine the public set only, and treat that key as known to others"
    )


def test_two_keys_of_one_id_are_refused(path: Path) -> None:
    assert jwks_told(path, issuer.ed_jwk(kid="a"), issuer.ed_jwk(issuer.ED_NEXT, kid="a")) == (
        "expected each kid once, found 'a' twice; rename one of the keys"
    )


SHORT_RSA = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key().public_numbers()
SHORT_RSA_JWK = {"kty": "RSA", "n": issuer.b64_int(SHORT_RSA.n), "e": issuer.b64_int(SHORT_RSA.e)}
ED448 = {
    "kty": "OKP",
    "crv": "Ed448",
    "x": b64(ed448.Ed448PrivateKey.generate().public_key().public_bytes_raw()),
}
KNOWN = "is of none of the known algorithms EdDSA, HS256, ES256, RS256"
UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "of an algorithm that is not configured": (issuer.ec_jwk(), "ES256 is not in auth.algorithms"),
    "for encryption": (issuer.ed_jwk(use="enc"), "its use is 'enc', not 'sig'"),
    "for signing only": (issuer.ed_jwk(key_ops=["sign"]), "its key_ops lack 'verify'"),
    "with an empty id": (issuer.ed_jwk(kid=""), "its kid is not a text of 1 to 256 characters"),
    "with a number as id": (issuer.ed_jwk(kid=1), "its kid is not a text of 1 to 256 characters"),
    "bound to another algorithm": (issuer.ed_jwk(alg="HS256"), "its alg is 'HS256', and such keys are for EdDSA here"),
    "on another curve": (ED448, f"kty 'OKP' with crv 'Ed448' {KNOWN}"),
    "of no type": ({}, f"kty None with crv None {KNOWN}"),
    "with a list as curve": ({"kty": "OKP", "crv": []}, f"kty 'OKP' with crv [] {KNOWN}"),
    "short RSA": (SHORT_RSA_JWK, "The RSA key is 1024 bits long, which is below the minimum recommended size of 2048"),
    "of too few bytes": ({**issuer.ed_jwk(), "x": "AAAA"}, "it cannot be read:"),
    "with a number as its bytes": ({**issuer.ed_jwk(), "x": 1}, "it cannot be read:"),
    "without its bytes": ({"kty": "OKP", "crv": "Ed25519"}, "it cannot be read:"),
    "secret as a number": ({"kty": "oct", "k": 1}, "its k is not base64url:"),
    "secret in padded base64": ({"kty": "oct", "k": "AAAA=="}, "its k is not base64url:"),
    "secret too short": (issuer.oct_jwk(b"short"), "5 bytes"),
}


@pytest.mark.parametrize(("key", "why"), [pytest.param(*case, id=name) for name, case in UNUSABLE.items()])
def test_key_that_is_not_for_us_is_ignored_and_told(path: Path, key: dict[str, Any], why: str) -> None:
    algorithms = ("EdDSA", "HS256", "RS256")
    message = jwks_told(path, key, algorithms=algorithms)
    assert message.startswith(f"expected a key for one of auth.algorithms {list(algorithms)}, found key 1: {why}")
    issuer.write_jwks(path, key, issuer.ed_jwk(kid="first"))
    beside = verifier(algorithms=algorithms, jwks_file=str(path))
    beside.open()
    assert beside.verify(good()).company_id == "acme"
    assert len(beside.keys.keys) == 1
    assert beside.keys.ignored[0].startswith(f"key 1: {why}")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"-----BEGIN PUBLIC KEY-----", "found Expecting value: line 1 column 1 (char 0)"),
        (b'{"keys": [], "keys": []}', "found a name that stands twice in one object"),
        (b"[" * 100_000, "found nested too deeply"),
    ],
)
def test_key_set_that_is_no_json_is_refused(path: Path, data: bytes, found: str) -> None:
    issuer.write_key_file(path, data)
    assert told(jwks_file=str(path)) == (f"auth.jwks_file = '{path}': expected a JSON Web Key Set, {found}; {KEYGEN}")


@pytest.mark.parametrize("data", [b"[]", b"null", b"{}", b'{"keys": {}}', b'{"keys": [1]}', b'{"kty": "OKP"}'])
def test_json_that_is_no_key_set_is_refused(path: Path, data: bytes) -> None:
    issuer.write_key_file(path, data)
    assert told(jwks_file=str(path)) == (
        f"auth.jwks_file = '{path}': expected a JSON Web Key Set, an object with the keys in a list \"keys\", "
        f"found other JSON; {KEYGEN}"
    )


def test_oversized_key_files_are_refused(path: Path) -> None:
    assert jwks_told(path, *[issuer.ed_jwk()] * 65) == "expected at most 64 keys, found 65; remove those not in use"
    issuer.write_key_file(path, b"x" * (sources.KEY_BYTES_MAX + 1))
    assert told(jwks_file=str(path)) == (
        f"auth.jwks_file = '{path}': expected at most 1048576 bytes, found more; is it the right file?"
    )


class KeyServer(BaseHTTPRequestHandler):
    """Answers with what the test put here: (status, headers, body)."""

    answer: ClassVar[tuple[int, dict[str, str], bytes]] = (200, {}, b"")

    def do_GET(self) -> None:
        status, headers, body = self.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Tests do not print requests."""


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), KeyServer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/jwks.json"
    server.shutdown()
    thread.join()
    server.server_close()


def key_set(*keys: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json"}, json.dumps({"keys": keys}).encode()


def refreshed(opened: Verifier, monotonic: issuer.Clock, until: Callable[[], bool]) -> None:
    """Refreshes as a loop would, another minute gone by each time, until the condition holds; at most 10 s."""
    deadline_s = time.monotonic() + 10
    while not until():
        assert time.monotonic() < deadline_s, "the condition did not come true within 10 s"
        monotonic.now += sources.URL_EVERY_S
        opened.refresh()


def opened_from(url: str) -> tuple[Verifier, issuer.Clock]:
    monotonic = issuer.Clock(0.0)
    opened = Verifier(issuer.auth(jwks_url=url), 8192, clock=issuer.Clock(), monotonic=monotonic)
    opened.open()
    return opened, monotonic


def accepted(opened: Verifier, token: str) -> bool:
    try:
        opened.verify(token)
    except Refused:
        return False
    return True


def test_keys_from_the_web_are_taken_and_followed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeyServer, "answer", key_set(issuer.ed_jwk(kid="first")))
    opened, monotonic = opened_from(url)
    assert accepted(opened, good())
    assert opened.refresh() is False  # nothing is asked within a minute
    monkeypatch.setattr(KeyServer, "answer", key_set(issuer.ed_jwk(issuer.ED_NEXT, kid="next")))
    refreshed(opened, monotonic, lambda: not accepted(opened, good()))
    assert accepted(opened, compact(header(kid="next"), claims(), issuer.by_ed_next))


def test_web_that_fails_leaves_the_keys_and_is_told_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeyServer, "answer", key_set(issuer.ed_jwk(kid="first")))
    opened, monotonic = opened_from(url)
    monkeypatch.setattr(KeyServer, "answer", (500, {}, b""))
    with pytest.raises(SettingsError) as error:
        refreshed(opened, monotonic, lambda: False)
    assert str(error.value) == (
        f"auth.jwks_url = '{url}': expected a key set within 5 s, found: HTTP Error 500: Internal Server Error; "
        "see whether this host can reach it, or give auth.jwks_file"
    )
    assert accepted(opened, good())
    monkeypatch.setattr(KeyServer, "answer", key_set(issuer.ed_jwk(issuer.ED_NEXT, kid="next")))
    refreshed(opened, monotonic, lambda: not accepted(opened, good()))


def test_redirects_and_secrets_on_the_web_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeyServer, "answer", (302, {"Location": url}, b""))
    assert told(jwks_url=url) == (
        f"auth.jwks_url = '{url}': expected a key set within 5 s, found: HTTP Error 302: Found; "
        "see whether this host can reach it, or give auth.jwks_file"
    )
    monkeypatch.setattr(KeyServer, "answer", key_set(issuer.oct_jwk()))
    assert told(jwks_url=url) == (
        f"auth.jwks_url = '{url}': expected public keys, found secret ones on the web; "
        "treat them as known to others and replace them"
    )


@pytest.mark.parametrize(
    "address",
    [
        "http://issuer.example/jwks.json",
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "jwks.json",
        "https://",
        "http://[::1",
    ],
)
def test_address_that_others_could_answer_for_is_refused(address: str) -> None:
    assert told(jwks_url=address) == (
        f"auth.jwks_url = '{address}': expected an https:// address (http:// for this host only), found another; "
        "keys that anyone on the way can replace protect nothing"
    )
