"""`token` prints a signed token for trying things out; `token keygen` makes a key pair.

Owns nothing; runs in the process that a person started. Reads a private key, writes the token to
standard output, or a new pair into a folder. What must stay true: a token that the engine would
refuse for its form is not made; standard output carries the token and nothing else.
"""

import argparse
import time
from pathlib import Path

import orjson

from engine.contract.names import Tier, is_name, is_user
from engine.errors import SettingsError
from engine.tenancy.policy import PREDICT, SCOPES
from engine.tenancy.signing import PRIVATE_NAME, SigningKey, read_signing_key, sign, write_key_pair

FOLDER = "keys"
MINUTES_MAX = 366 * 24 * 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(action="sign")
    parser.add_argument("--user", default="trial", help="sub: 1 to 128 printable characters (default: %(default)s)")
    parser.add_argument(
        "--company", default="trial", help="company_id: letters, digits, _ and - (default: %(default)s)"
    )
    tiers = [tier.name.lower() for tier in Tier]
    parser.add_argument("--tier", choices=tiers, default="enterprise", help="what is answered (default: %(default)s)")
    known = ", ".join(SCOPES)
    parser.add_argument("--scope", default=PREDICT, help=f"words between spaces, of {known} (default: %(default)s)")
    parser.add_argument("--audience", default="ml", help="aud, as in auth.audience (default: %(default)s)")
    parser.add_argument("--issuer", default="", help="iss, as in auth.issuer (default: none)")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long it is good (default: 60)")
    parser.add_argument(
        "--key",
        metavar="FILE",
        default=f"{FOLDER}/{PRIVATE_NAME}",
        help="private JSON Web Key, or HS256 secret (default: %(default)s)",
    )
    parser.add_argument("--kid", help="id of the key in the token's header (default: the key's own)")
    parser.add_argument("--json", action="store_true", help="for programs: token, expiry and key id in one line")
    actions = parser.add_subparsers(title="another use", metavar="keygen")
    keygen = actions.add_parser("keygen", help="make an Ed25519 key pair", allow_abbrev=False)
    keygen.set_defaults(action="keygen")
    keygen.add_argument("--out", metavar="DIR", default=FOLDER, help="where to write both (default: %(default)s)")
    # A default here would undo a --json that stands before `keygen`.
    keygen.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="for programs: one line")


def main(arguments: argparse.Namespace) -> int:
    if arguments.action == "keygen":
        return _keygen(Path(arguments.out), arguments.json)
    return _sign(arguments)


def _keygen(folder: Path, as_json: bool) -> int:
    files = write_key_pair(folder)
    if as_json:
        _print_json({"private": str(files.private), "public": str(files.public), "kid": files.kid})
        return 0
    print(f"{files.private}  the private key: sign with it, give it to nobody, and never to the engine")
    print(f'{files.public}  the public key set: auth.jwks_file = "{files.public}"')
    return 0


def _sign(arguments: argparse.Namespace) -> int:
    scopes = _checked_scopes(arguments)
    key = read_signing_key(arguments.key)
    if arguments.kid is not None:
        key = SigningKey(key.algorithm, arguments.kid, key.material)
    now_unix = time.time()
    token = sign(
        key,
        user_id=arguments.user,
        company_id=arguments.company,
        tier=Tier[arguments.tier.upper()],
        scopes=scopes,
        audience=arguments.audience,
        issuer=arguments.issuer,
        now_unix=now_unix,
        valid_s=arguments.minutes * 60,
    )
    if arguments.json:
        expires_unix = int(now_unix + arguments.minutes * 60)
        _print_json({"token": token, "expires_unix": expires_unix, "algorithm": key.algorithm, "kid": key.kid})
    else:
        print(token)
    return 0


def _checked_scopes(arguments: argparse.Namespace) -> list[str]:
    """The scopes, once everything else that was asked for is of a form that the engine takes."""
    scopes = arguments.scope.split()
    unknown = [scope for scope in scopes if scope not in SCOPES]
    wrong = {
        "--user": (is_user(arguments.user), "1 to 128 printable characters", arguments.user),
        "--company": (is_name(arguments.company), "1 to 64 of A-Z a-z 0-9 _ -", arguments.company),
        "--scope": (scopes and not unknown, f"some of {', '.join(SCOPES)}", arguments.scope),
        "--minutes": (0 < arguments.minutes <= MINUTES_MAX, f"more than 0, at most {MINUTES_MAX}", arguments.minutes),
        "--audience": (arguments.audience, "the text of auth.audience", arguments.audience),
    }
    for option, (good, expected, found) in wrong.items():
        if not good:
            raise SettingsError(f"{option}: expected {expected}, found {found!r}; see: python -m engine token --help")
    return scopes


def _print_json(document: dict[str, object]) -> None:
    print(orjson.dumps(document).decode())
