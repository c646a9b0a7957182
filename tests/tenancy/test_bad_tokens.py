"""No bad token passes, and none says why.

The verifier under attack knows a key of every kind and allows every algorithm, so that nothing is
refused merely because the configuration is narrow.
"""

from collections.abc import Callable
from pathlib import Path

import issuer
import pytest
from bad_tokens import BAD, TOKEN_BYTES_MAX, with_header
from issuer import NOW, by_hmac, good

from engine.contract.names import Reason, Tier
from engine.errors import Refused
from engine.tenancy.tokens import Claims, Verifier

NEUTRAL = "unauthenticated: the token of this message is not valid here; send a valid token with each message"
EXPIRED = "expired_token: the token of this message has expired; get a new one and send the message again"


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Verifier:
    path: Path = issuer.write_jwks(
        tmp_path_factory.mktemp("keys") / "jwks.json",
        issuer.ed_jwk(kid="first"),
        issuer.ed_jwk(issuer.ED_NEXT, kid="next"),
        issuer.ec_jwk(kid="curve"),
        issuer.rsa_jwk(kid="rsa"),
        issuer.oct_jwk(kid="secret"),
    )
    auth = issuer.auth(algorithms=("EdDSA", "HS256", "ES256", "RS256"), jwks_file=str(path))
    opened = Verifier(auth, TOKEN_BYTES_MAX, clock=issuer.Clock(), monotonic=issuer.Clock(0.0))
    opened.open()
    return opened


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in BAD.items()])
def test_bad_token_is_refused_in_the_same_words(verifier: Verifier, make: Callable[[], str]) -> None:
    token = make()
    remembered = verifier.remembered
    for _ in range(2):  # whatever a first look left behind must not help a second one
        with pytest.raises(Refused) as refused:
            verifier.verify(token)
        assert refused.value.reason is Reason.UNAUTHENTICATED
        assert str(refused.value) == NEUTRAL
    assert verifier.remembered == remembered


@pytest.mark.parametrize("exp", [0, int(NOW) - 1, int(NOW), NOW - 0.001])
def test_expired_token_is_called_expired_where_the_rest_of_it_holds(verifier: Verifier, exp: float) -> None:
    with pytest.raises(Refused) as refused:
        verifier.verify(good(exp=exp))
    assert refused.value.reason is Reason.EXPIRED_TOKEN
    assert str(refused.value) == EXPIRED


GOOD: dict[str, Callable[[], str]] = {
    "EdDSA": good,
    "EdDSA by the next key": lambda: with_header(issuer.by_ed_next, kid="next"),
    "HS256": lambda: with_header(by_hmac(issuer.SECRET), alg="HS256", kid="secret"),
    "HS256 without an id": lambda: with_header(by_hmac(issuer.SECRET), alg="HS256", kid=...),
    "ES256": lambda: with_header(issuer.by_ec, alg="ES256", kid="curve"),
    "RS256": lambda: with_header(issuer.by_rsa, alg="RS256", kid="rsa"),
    "no type": lambda: with_header(typ=...),
    "access token type": lambda: with_header(typ="at+jwt"),
    "type in small letters": lambda: with_header(typ="jwt"),
    "our key's signature beside a stranger's address": lambda: with_header(jku="https://evil.example/jwks.json"),
    "list with our audience": lambda: good(aud=["billing", "ml"]),
    "exp with a fraction, in a moment": lambda: good(exp=NOW + 0.5),
    "exp in the next second": lambda: good(exp=int(NOW) + 1),
    "nbf now": lambda: good(nbf=int(NOW)),
    "claims that nobody asked for": lambda: good(
        iat=int(NOW) + 5, jti="x", roles=["admin"], nested={"tier": "enterprise"}
    ),
}


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in GOOD.items()])
def test_good_token_passes_with_its_claims(verifier: Verifier, make: Callable[[], str]) -> None:
    passed = verifier.verify(make())
    assert (passed.user_id, passed.company_id, passed.tier) == ("trader-7", "acme", Tier.PRO)
    assert passed.scopes == {"predict", "models:read"}
    assert passed == verifier.verify(make())
    assert isinstance(passed, Claims)
