"""What a verifier remembers, for how long, and what ends it."""

import string
from pathlib import Path
from types import SimpleNamespace

import hypothesis.strategies as st
import issuer
import jwt
import pytest
from hypothesis import given, settings
from issuer import NOW, Clock, b64, claims, compact, good, header

from engine.contract.names import Reason
from engine.errors import Refused, SettingsError
from engine.tenancy import sources
from engine.tenancy.tokens import REMEMBERED_MAX, REMEMBERED_S, Verifier


def opened(path: Path, **more: object) -> tuple[Verifier, Clock, Clock]:
    clock, monotonic = Clock(), Clock(1000.0)
    verifier = Verifier(issuer.auth(jwks_file=str(path), **more), 8192, clock=clock, monotonic=monotonic)
    verifier.open()
    return verifier, clock, monotonic


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    return issuer.write_jwks(tmp_path / "jwks.json", issuer.ed_jwk(kid="first"))


def reason_of(verifier: Verifier, token: str) -> Reason | None:
    try:
        verifier.verify(token)
    except Refused as refused:
        return refused.reason
    return None


def test_good_token_is_verified_once_within_a_minute_and_again_after_it(jwks: Path) -> None:
    verifier, _, monotonic = opened(jwks)
    verifier.verify(good())
    monotonic.now += REMEMBERED_S - 0.001
    verifier.verify(good())
    assert verifier.signatures_checked == 1
    monotonic.now += 0.001
    verifier.verify(good())
    assert verifier.signatures_checked == 2


def test_being_used_does_not_prolong_being_remembered(jwks: Path) -> None:
    verifier, _, monotonic = opened(jwks)
    for second in range(181):
        monotonic.now = 1000.0 + second
        verifier.verify(good())
    assert verifier.signatures_checked == 4  # at 0, 60, 120 and 180 s


def test_remembered_token_ends_at_its_expiry_to_the_millisecond(jwks: Path) -> None:
    verifier, clock, _ = opened(jwks)
    token = good(exp=int(NOW) + 5)
    verifier.verify(token)
    clock.now = NOW + 4.999
    assert reason_of(verifier, token) is None
    clock.now = NOW + 5
    assert reason_of(verifier, token) is Reason.EXPIRED_TOKEN
    assert verifier.remembered == 0


def test_remembered_token_is_refused_when_the_clock_goes_back_before_its_time(jwks: Path) -> None:
    verifier, clock, _ = opened(jwks)
    token = good(nbf=int(NOW))
    verifier.verify(token)
    clock.now = NOW - 1
    assert reason_of(verifier, token) is Reason.UNAUTHENTICATED
    clock.now = NOW
    assert reason_of(verifier, token) is None


def test_removed_key_takes_its_remembered_tokens_with_it_at_once(jwks: Path) -> None:
    verifier, _, _ = opened(jwks)
    verifier.verify(good())
    issuer.write_jwks(jwks, issuer.ed_jwk(issuer.ED_NEXT, kid="next"))
    assert reason_of(verifier, good()) is None  # nobody has looked yet
    assert verifier.refresh() is True
    assert reason_of(verifier, good()) is Reason.UNAUTHENTICATED
    assert reason_of(verifier, compact(header(kid="next"), claims(), issuer.by_ed_next)) is None


def test_key_replaced_under_its_id_ends_the_tokens_of_the_old_one(jwks: Path) -> None:
    verifier, _, _ = opened(jwks)
    verifier.verify(good())
    issuer.write_jwks(jwks, issuer.ed_jwk(issuer.ED_NEXT, kid="first"))
    assert verifier.refresh() is True
    assert reason_of(verifier, good()) is Reason.UNAUTHENTICATED
    assert reason_of(verifier, compact(header(), claims(), issuer.by_ed_next)) is None


def test_added_key_leaves_the_others_good(jwks: Path) -> None:
    verifier, _, _ = opened(jwks)
    verifier.verify(good())
    issuer.write_jwks(jwks, issuer.ed_jwk(kid="first"), issuer.ed_jwk(issuer.ED_NEXT, kid="next"))
    assert verifier.refresh() is True
    assert reason_of(verifier, good()) is None
    assert reason_of(verifier, compact(header(kid="next"), claims(), issuer.by_ed_next)) is None


def test_untouched_keys_and_the_same_keys_written_anew_forget_nothing(jwks: Path) -> None:
    verifier, _, _ = opened(jwks)
    verifier.verify(good())
    assert verifier.refresh() is False
    issuer.write_jwks(jwks, issuer.ed_jwk(kid="first"))
    assert verifier.refresh() is False
    verifier.verify(good())
    assert verifier.signatures_checked == 1


def test_keys_written_over_in_place_are_seen_however_coarse_file_times_are(
    jwks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_identity", lambda status: (status.st_ino, status.st_size))  # times that stand still
    verifier, _, _ = opened(jwks)
    first = jwks.read_bytes()
    second = first.replace(issuer.ed_jwk()["x"].encode(), issuer.ed_jwk(issuer.ED_NEXT)["x"].encode())
    assert len(first) == len(second)
    for content, signer in [(second, issuer.by_ed_next), (first, issuer.by_ed)] * 5:
        jwks.write_bytes(content)
        assert verifier.refresh() is True
        assert reason_of(verifier, compact(header(), claims(), signer)) is None


@pytest.mark.parametrize(
    ("content", "mode", "found"),
    [
        (b'{"keys": [', 0o600, "expected a JSON Web Key Set, found Expecting value: line 1 column 11 (char 10)"),
        (b'{"keys": []}', 0o600, "expected a key for one of auth.algorithms ['EdDSA'], found no key at all"),
        (b"", 0o600, "expected a key, found an empty file"),
        (b'{"keys": []}', 0o602, "expected a file that others cannot write, found mode 0602"),
    ],
)
def test_unusable_new_keys_are_told_once_and_leave_the_old_ones(
    jwks: Path, content: bytes, mode: int, found: str
) -> None:
    verifier, _, _ = opened(jwks)
    issuer.write_key_file(jwks, content, mode)
    with pytest.raises(SettingsError) as told:
        verifier.refresh()
    assert str(told.value).startswith(f"auth.jwks_file = '{jwks}': {found}")
    assert [verifier.refresh() for _ in range(3)] == [False] * 3
    assert reason_of(verifier, good()) is None
    issuer.write_jwks(jwks, issuer.ed_jwk(issuer.ED_NEXT, kid="next"))
    assert verifier.refresh() is True
    assert reason_of(verifier, good()) is Reason.UNAUTHENTICATED


def test_key_file_that_is_gone_is_told_once_and_leaves_the_keys(jwks: Path) -> None:
    verifier, _, _ = opened(jwks)
    jwks.unlink()
    with pytest.raises(SettingsError) as told:
        verifier.refresh()
    assert str(told.value) == (
        f"auth.jwks_file = '{jwks}': expected a file that this user can read, found: No such file or directory; "
        "correct the setting, or make keys with: python -m engine token keygen --out DIR"
    )
    assert verifier.refresh() is False
    assert reason_of(verifier, good()) is None
    issuer.write_jwks(jwks, issuer.ed_jwk(kid="first"))
    assert verifier.refresh() is False  # back, the same
    jwks.unlink()
    with pytest.raises(SettingsError):  # gone again: news again
        verifier.refresh()


def test_new_secret_ends_the_tokens_of_the_old_one(tmp_path: Path) -> None:
    path = issuer.write_key_file(tmp_path / "secret", issuer.SECRET + b"\n")
    auth = issuer.auth(algorithms=("HS256",), hs256_secret_file=str(path))
    verifier = Verifier(auth, 8192, clock=Clock(), monotonic=Clock(0.0))
    verifier.open()
    token = compact(header(alg="HS256", kid=...), claims(), issuer.by_hmac(issuer.SECRET))
    assert verifier.verify(token).company_id == "acme"
    issuer.write_key_file(path, b"another secret of more than 32 bytes\n")
    assert verifier.refresh() is True
    assert reason_of(verifier, token) is Reason.UNAUTHENTICATED


def test_memory_is_bounded_and_forgets_the_oldest_first(tmp_path: Path) -> None:
    path = issuer.write_key_file(tmp_path / "secret", issuer.SECRET)
    auth = issuer.auth(algorithms=("HS256",), hs256_secret_file=str(path))
    verifier = Verifier(auth, 8192, clock=Clock(), monotonic=Clock(0.0))
    verifier.open()
    tokens = [
        compact(header(alg="HS256", kid=...), claims(jti=number), issuer.by_hmac(issuer.SECRET))
        for number in range(REMEMBERED_MAX + 100)
    ]
    for token in tokens:
        verifier.verify(token)
    assert verifier.remembered == REMEMBERED_MAX
    checked = verifier.signatures_checked
    verifier.verify(tokens[-1])
    verifier.verify(tokens[100])
    assert verifier.signatures_checked == checked
    verifier.verify(tokens[99])
    assert verifier.signatures_checked == checked + 1
    assert verifier.remembered == REMEMBERED_MAX


def test_bad_tokens_take_no_memory(jwks: Path) -> None:
    verifier, _, _ = opened(jwks)
    for number in range(1000):
        assert reason_of(verifier, compact(header(), claims(jti=number), issuer.by_stranger)) is Reason.UNAUTHENTICATED
        assert reason_of(verifier, good(exp=number)) is Reason.EXPIRED_TOKEN
    assert verifier.remembered == 0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Verifier:
    path = issuer.write_jwks(tmp_path_factory.mktemp("keys") / "jwks.json", issuer.ed_jwk(kid="first"))
    return opened(path)[0]


def test_no_flipped_bit_of_a_good_token_passes(shared: Verifier) -> None:
    token = good()
    shared.verify(token)
    for position, character in enumerate(token):
        for bit in range(8):
            bent = token[:position] + chr(ord(character) ^ 1 << bit) + token[position + 1 :]
            assert reason_of(shared, bent) is Reason.UNAUTHENTICATED, (position, bit)


@given(st.data())
@settings(max_examples=300, deadline=None, print_blob=True)
def test_no_edited_token_passes(shared: Verifier, data: st.DataObject) -> None:
    token = good()
    begin = data.draw(st.integers(0, len(token)))
    end = data.draw(st.integers(begin, min(begin + 4, len(token))))
    put = data.draw(st.text(st.sampled_from(string.ascii_letters + string.digits + "-_.=+/ \n\0é"), max_size=4))
    edited = token[:begin] + put + token[end:]
    assert (reason_of(shared, edited) is None) == (edited == token)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
CLAIM_VALUES = JSON | st.sampled_from(
    ["ml", "pro", "acme", "predict", ["ml"], int(NOW), NOW + 0.5, "https://issuer.example"]
)


@given(st.dictionaries(st.sampled_from(sorted(claims())), CLAIM_VALUES, max_size=3))
@settings(max_examples=500, deadline=None, print_blob=True)
def test_whatever_passes_also_passes_pyjwt_with_the_same_claims(shared: Verifier, changes: dict[str, object]) -> None:
    token = good(**changes)
    try:
        passed = shared.verify(token)
    except Refused:
        return
    oracle = jwt.decode(
        token,
        issuer.ED.public_key(),
        algorithms=["EdDSA"],
        audience="ml",
        issuer="https://issuer.example",
        options={"verify_exp": False, "verify_nbf": False},  # against the true clock; ours stands at NOW
    )
    assert oracle["nbf"] <= NOW < oracle["exp"]
    assert (passed.user_id, passed.company_id) == (oracle["sub"], oracle["company_id"])
    assert (passed.tier.name.lower(), " ".join(sorted(passed.scopes))) == (
        oracle["tier"],
        " ".join(sorted(set(oracle["scope"].split()))),
    )


@given(JSON | st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk"]), JSON), JSON)
@settings(max_examples=300, deadline=None, print_blob=True)
def test_any_header_and_payload_are_refused_without_another_error(
    shared: Verifier, head: object, payload: object
) -> None:
    assert reason_of(shared, compact(head, payload)) is Reason.UNAUTHENTICATED


@given(
    st.text(max_size=200) | st.binary(max_size=200).map(lambda data: f"{b64(data[:50])}.{b64(data[50:])}.{b64(data)}")
)
@settings(max_examples=500, deadline=None, print_blob=True)
def test_any_text_is_refused_without_another_error(shared: Verifier, text: str) -> None:
    assert reason_of(shared, text) is Reason.UNAUTHENTICATED


def test_issuer_is_not_looked_at_where_none_is_configured(jwks: Path) -> None:
    auth = SimpleNamespace(**{**vars(issuer.auth(jwks_file=str(jwks))), "issuer": ""})
    verifier = Verifier(auth, 8192, clock=Clock(), monotonic=Clock(0.0))
    verifier.open()
    assert reason_of(verifier, good(iss=...)) is None
    assert reason_of(verifier, good(iss="https://another.example")) is None
