"""`token` and `token keygen`, as a person and as a program call them."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import issuer
import pytest

from engine.contract.names import Tier
from engine.tenancy.tokens import Claims, Verifier

ROOT = Path(__file__).parents[2]


def token(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "engine", "token", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def verified(text: str, **auth: object) -> Claims:
    """What the engine reads in it, by the true clock."""
    verifier = Verifier(issuer.auth(**{"issuer": "", **auth}), 8192)
    verifier.open()
    return verifier.verify(text)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_two_commands_make_a_token_that_the_engine_takes(tmp_path: Path) -> None:
    made = token(tmp_path, "keygen")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == (
        "keys/private.jwk  the private key: sign with it, give it to nobody, and never to the engine\n"
        'keys/jwks.json  the public key set: auth.jwks_file = "keys/jwks.json"\n'
    )
    signed = token(tmp_path)
    assert (signed.returncode, signed.stderr) == (0, "")
    assert signed.stdout.count("\n") == 1
    claims = verified(signed.stdout.strip(), jwks_file=str(tmp_path / "keys" / "jwks.json"))
    assert (claims.user_id, claims.company_id, claims.tier) == ("trial", "trial", Tier.ENTERPRISE)
    assert claims.scopes == {"predict"}


def test_all_that_is_asked_for_stands_in_the_token(tmp_path: Path) -> None:
    pair = json.loads(token(tmp_path, "--json", "keygen", "--out", "a/b").stdout)
    assert pair["private"] == "a/b/private.jwk"
    options = [
        "--key",
        pair["private"],
        "--user",
        "Zoë Trader",
        "--company",
        "acme",
        "--tier",
        "pro",
        "--audience",
        "desk",
    ]
    options += ["--scope", "predict models:write", "--issuer", "https://i.example", "--minutes", "1.5", "--json"]
    signed = json.loads(token(tmp_path, *options).stdout)
    assert (signed["algorithm"], signed["kid"]) == ("EdDSA", pair["kid"])
    auth = {"jwks_file": str(tmp_path / pair["public"]), "audience": "desk", "issuer": "https://i.example"}
    claims = verified(signed["token"], **auth)
    assert (claims.user_id, claims.company_id, claims.tier) == ("Zoë Trader", "acme", Tier.PRO)
    assert claims.scopes == {"predict", "models:write"}
    assert claims.expires_unix == signed["expires_unix"]
    assert claims.expires_unix - claims.not_before_unix == pytest.approx(60 + 90, abs=1)


def test_secret_signs_what_the_engine_takes(tmp_path: Path) -> None:
    secret = issuer.write_key_file(tmp_path / "secret", issuer.SECRET + b"\n")
    signed = token(tmp_path, "--key", "secret")
    claims = verified(signed.stdout.strip(), algorithms=("HS256",), hs256_secret_file=str(secret))
    assert claims.company_id == "trial"


def test_private_key_is_its_owners_alone_and_never_overwritten(tmp_path: Path) -> None:
    token(tmp_path, "keygen")
    private, public = tmp_path / "keys" / "private.jwk", tmp_path / "keys" / "jwks.json"
    assert mode(private) == 0o600
    assert "d" in json.loads(private.read_text())
    assert "d" not in json.loads(public.read_text())["keys"][0]
    before = private.read_bytes(), public.read_bytes()
    again = token(tmp_path, "keygen")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "token: keys: expected no key there yet, found private.jwk; name another folder\n"
    private.unlink()
    again = token(tmp_path, "keygen")
    assert again.stderr == "token: keys: expected no key there yet, found jwks.json; name another folder\n"
    public.rename(private)
    public.symlink_to("nowhere")  # a link that leads to nothing would be written through
    private.unlink()
    again = token(tmp_path, "keygen")
    assert again.stderr == "token: keys: expected no key there yet, found jwks.json; name another folder\n"
    assert before[0] != before[1]


def test_private_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    token(tmp_path, "keygen")
    (tmp_path / "keys" / "private.jwk").chmod(0o644)
    refused = token(tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        "token: --key = 'keys/private.jwk': expected a secret that only its owner can read (mode 0600), "
        "found mode 0644; run: chmod 600 keys/private.jwk\n"
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--company", "a/b"], "--company: expected 1 to 64 of A-Z a-z 0-9 _ -, found 'a/b'"),
        (["--user", ""], "--user: expected 1 to 128 printable characters, found ''"),
        (
            ["--scope", "predict root"],
            "--scope: expected some of predict, models:read, models:write, operator, found 'predict root'",
        ),
        (["--scope", ""], "--scope: expected some of predict, models:read, models:write, operator, found ''"),
        (["--minutes", "0"], "--minutes: expected more than 0, at most 527040, found 0.0"),
        (["--minutes", "nan"], "--minutes: expected more than 0, at most 527040, found nan"),
        (["--audience", ""], "--audience: expected the text of auth.audience, found ''"),
    ],
)
def test_token_that_the_engine_would_refuse_is_not_made(tmp_path: Path, options: list[str], told: str) -> None:
    refused = token(tmp_path, *options)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"token: {told}; see: python -m engine token --help\n"


def test_public_key_cannot_sign(tmp_path: Path) -> None:
    issuer.write_key_file(tmp_path / "public", json.dumps(issuer.ed_jwk()).encode())
    refused = token(tmp_path, "--key", "public")
    assert refused.stderr == (
        "token: --key = 'public': expected a private JSON Web Key or an HS256 secret, "
        "found none of EdDSA, HS256, ES256, RS256 that can sign; "
        "make a pair with: python -m engine token keygen --out DIR\n"
    )
