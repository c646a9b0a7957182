"""Settings: one declaration each, and every mistake told with what is allowed."""

import doctest
import os
import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from engine import knobs
from engine.errors import SettingsError
from engine.settings import Settings, digest, load, read, reference, split_address

README = Path(__file__).parent.parent / "README.md"
START, END = "<!-- settings: begin -->", "<!-- settings: end -->"


def written(folder: Path, text: str) -> str:
    path = folder / "engine.toml"
    path.write_text(text)
    return str(path)


def problems(folder: Path, text: str, environ: dict[str, str] | None = None) -> list[str]:
    path = written(folder, text)
    return [each.replace(path, "engine.toml") for each in read(path, environ or {})[1]]


def test_defaults_are_the_contract_s() -> None:
    settings = load(None, {})
    assert (settings.engine.name, settings.engine.workers, settings.engine.device) == ("engine-0", "auto", "auto")
    assert (settings.engine.max_batch, settings.engine.deadline_ms, settings.engine.max_message_age_ms) == (
        32,
        250,
        10_000,
    )
    assert (settings.engine.drain_s, settings.engine.wait, settings.engine.cpus, settings.engine.symbols) == (
        10,
        "auto",
        (),
        (),
    )
    assert (settings.bus.nats.url, settings.bus.kafka.bootstrap, settings.bus.local.path) == ("", "", "")
    assert (settings.bus.gap_wait_ms, settings.bus.publish, settings.bus.outbox_mb) == (20, "both", 64)
    assert (settings.auth.algorithms, settings.auth.audience, settings.auth.issuer) == (("EdDSA",), "ml", "")
    assert (settings.models.path, settings.models.universe, settings.registry.url) == (
        "models",
        (),
        "sqlite:///tickpath.db",
    )
    assert (settings.http.listen, settings.grpc.listen, settings.redis.url) == ("127.0.0.1:8080", "127.0.0.1:8081", "")
    limits = settings.limits
    assert (limits.message_bytes, limits.token_bytes, limits.vectors) == (256 << 10, 8 << 10, 64)
    assert (limits.history, limits.correlations, limits.extra, limits.junk_per_s) == (240, 64, 64, 200)


def test_environment_wins_over_file_and_file_over_default(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[engine]\ndeadline_ms = 100\nmax_batch = 8\nsymbols = ["EURUSD"]\n[bus.nats]\nurl = "nats://a:4222"\n',
    )
    environ = {
        "TICKPATH_ENGINE__DEADLINE_MS": "50",
        "TICKPATH_BUS__NATS__URL": "tls://b:4222",
        "TICKPATH_ENGINE__WORKERS": "2",
        "TICKPATH_ENGINE__CPUS": "1, 2,3",
        "TICKPATH_ENGINE__STANDBY": "false",
        "TICKPATH_MODELS__UNIVERSE": "EURUSD,XAU/USD",
        "TICKPATH_TOKEN": "not a setting",
        "TICKPATH_PORT_8080_TCP": "what Kubernetes sets for a service of this name",
    }
    settings = load(path, environ)
    assert (settings.engine.deadline_ms, settings.engine.max_batch, settings.engine.drain_s) == (50, 8, 10)
    assert (settings.bus.nats.url, settings.engine.workers, settings.engine.cpus) == ("tls://b:4222", 2, (1, 2, 3))
    assert (settings.engine.standby, settings.engine.symbols) == (False, ("EURUSD",))
    assert settings.models.universe == ("EURUSD", "XAU/USD")


def test_an_empty_variable_empties_a_list_and_a_text(tmp_path: Path) -> None:
    path = written(tmp_path, '[engine]\nsymbols = ["EURUSD"]\n[bus.nats]\nurl = "nats://a:4222"\n')
    settings = load(path, {"TICKPATH_ENGINE__SYMBOLS": "", "TICKPATH_BUS__NATS__URL": ""})
    assert (settings.engine.symbols, settings.bus.nats.url) == ((), "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[engine]\ndeadline = 5\n", "engine.toml: engine.deadline is unknown; did you mean deadline_ms?"),
        (
            "[bus]\nzzz = 5\n",
            "engine.toml: bus.zzz is unknown; known: gap_wait_ms, kafka, local, nats, outbox_mb, publish",
        ),
        ("[engin]\nname = 'a'\n", "engine.toml: engin is unknown; did you mean engine?"),
        ("[bus.nats]\nurl_ = ''\n", "engine.toml: bus.nats.url_ is unknown; did you mean url?"),
        ("engine = 3\n", "engine.toml: engine = 3: expected a table, [engine]"),
        (
            "[engine]\ndeadline_ms = 0\n",
            "engine.toml: engine.deadline_ms = 0: expected a whole number of milliseconds from 1 to 60000",
        ),
        (
            "[engine]\ndeadline_ms = '250'\n",
            'engine.toml: engine.deadline_ms = "250": expected a whole number of milliseconds from 1 to 60000',
        ),
        (
            "[engine]\ndrain_s = true\n",
            "engine.toml: engine.drain_s = true: expected a whole number of seconds from 1 to 600",
        ),
        (
            "[engine]\ndrain_s = 1.5\n",
            "engine.toml: engine.drain_s = 1.5: expected a whole number of seconds from 1 to 600",
        ),
        ("[engine]\nstandby = 1\n", "engine.toml: engine.standby = 1: expected true or false"),
        (
            "[engine]\nworkers = 'many'\n",
            'engine.toml: engine.workers = "many": expected "auto" or a whole number from 1 to 16',
        ),
        ("[engine]\nwait = 'Spin'\n", 'engine.toml: engine.wait = "Spin": expected "auto", "spin", "yield" or "block"'),
        (
            "[engine]\nname = 'a b'\n",
            'engine.toml: engine.name = "a b": expected 1 to 64 letters, digits, _ or -',
        ),
        ("[engine]\nname = ''\n", 'engine.toml: engine.name = "": expected 1 to 64 letters, digits, _ or -'),
        (
            "[engine]\nsymbols = 'EURUSD'\n",
            'engine.toml: engine.symbols = "EURUSD": expected a list, each 1 to 24 letters, digits, ., _, / or -',
        ),
        (
            "[engine]\ncpus = [0, -1]\n",
            "engine.toml: engine.cpus = [0, -1]: expected a list, each a whole number from 0 to 4095",
        ),
        (
            "[limits]\nvectors = 65\n",
            "engine.toml: limits.vectors = 65: expected a whole number of vectors from 1 to 64",
        ),
        (
            "[limits]\nhistory = 241\n",
            "engine.toml: limits.history = 241: expected a whole number of mids from 0 to 240",
        ),
        (
            "[auth]\nalgorithms = ['none']\n",
            'engine.toml: auth.algorithms = ["none"]: expected a list of "EdDSA", "HS256", "RS256", "ES256"',
        ),
        (
            "[auth]\nalgorithms = []\n",
            'engine.toml: auth.algorithms = []: expected a list of "EdDSA", "HS256", "RS256", "ES256"',
        ),
        (
            "[bus.nats]\nurl = 'http://u:secret@h'\n",
            'engine.toml: bus.nats.url = "http://***@h": expected a URL that begins with nats:// or tls://',
        ),
        (
            "[bus.kafka]\noptions = ['sasl.password=x']\n",
            'engine.toml: bus.kafka.options = ["sasl.password=***"]: '
            "expected a list, each name=value, passwords by sasl_password_file",
        ),
        (
            "[http]\nlisten = '8080'\n",
            'engine.toml: http.listen = "8080": expected host:port with a port from 0 to 65535',
        ),
        (
            "[bus.local]\npath = '/%s'\n" % ("x" * 103),
            f'engine.toml: bus.local.path = "/{"x" * 75}...: expected a path of at most 103 bytes '
            "(Unix sockets end at 107, `.out` is added)",
        ),
    ],
)
def test_a_bad_value_is_told_with_key_value_and_what_is_allowed(tmp_path: Path, text: str, expected: str) -> None:
    assert problems(tmp_path, text) == [expected]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (
            "TICKPATH_BUS__NATS__URI",
            "x",
            "environment: TICKPATH_BUS__NATS__URI is unknown; did you mean TICKPATH_BUS__NATS__URL?",
        ),
        (
            "TICKPATH_ENGINE__DRAIN_S",
            "ten",
            'environment: TICKPATH_ENGINE__DRAIN_S = "ten": expected a whole number of seconds from 1 to 600',
        ),
        (
            "TICKPATH_HTTP__INSECURE",
            "yes",
            'environment: TICKPATH_HTTP__INSECURE = "yes": expected true or false',
        ),
    ],
)
def test_a_bad_variable_is_told_by_its_name(name: str, value: str, expected: str) -> None:
    assert read(None, {name: value})[1] == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[auth]\njwks_file = "a"\njwks_url = "https://b"\n',
            "engine.toml: auth.jwks_file and auth.jwks_url are set; keep exactly one of them",
        ),
        (
            "[engine]\nrequests_slots = 3000\n",
            "engine.toml: engine.requests_slots = 3000 is no power of two; nearest are 2048 and 4096",
        ),
        (
            "[engine]\nrequests_slots = 256\nmax_batch = 128\n",
            "engine.toml: engine.requests_slots = 256 is too small: it must hold two microbatches and a "
            "message, 320 slots; raise it or lower engine.max_batch",
        ),
        (
            "[limits]\nmessage_bytes = 4096\n",
            "engine.toml: limits.token_bytes = 8192 leaves no room in limits.message_bytes = 4096",
        ),
        (
            "[limits]\nkeys_total = 100\n",
            "engine.toml: limits.keys = 640 of one company is more than limits.keys_total = 100 of all",
        ),
        (
            "[bus.nats]\nurl = 'nats://a'\n[bus.kafka]\nbootstrap = 'b:9092'\n[engine]\ndeadline_ms = 30\n",
            "engine.toml: bus.gap_wait_ms = 20 is more than half of engine.deadline_ms = 30; "
            "a gap is waited for during at most half the deadline",
        ),
        (
            "[http]\nlisten = '0.0.0.0:8080'\n",
            'engine.toml: http.listen = "0.0.0.0:8080" is reachable from other hosts: set http.tls_cert and '
            "http.tls_key, or http.insecure = true where something else encrypts",
        ),
        (
            "[grpc]\nlisten = '[::]:8081'\n",
            'engine.toml: grpc.listen = "[::]:8081" is reachable from other hosts: set grpc.tls_cert and '
            "grpc.tls_key, or grpc.insecure = true where something else encrypts",
        ),
        (
            "[bus.nats]\ntls_cert = 'a.pem'\n",
            "engine.toml: bus.nats.tls_cert is set without bus.nats.tls_key; set both or neither",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, text: str, expected: str) -> None:
    assert problems(tmp_path, text) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "[http]\nlisten = '0.0.0.0:8080'\ninsecure = true\n",
        "[http]\nlisten = '[::1]:8080'\n",
        "[http]\nlisten = 'localhost:0'\n",
        "[http]\nlisten = '127.8.8.8:80'\n",
        "[auth]\nalgorithms = ['EdDSA', 'HS256']\n",
        "[bus.nats]\nurl = 'nats://a:4222, nats://b:4222'\n",
        "[bus.kafka]\noptions = ['security.protocol=SASL_SSL']\n",
        "[registry]\nurl = 'postgresql+psycopg://u@h/db'\n",
        "",
    ],
)
def test_what_is_allowed_is_taken(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text) == []


def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123456789abcdef")
    text = f"[auth]\nalgorithms = ['HS256']\nhs256_secret_file = '{secret}'\n"
    for mode in (0o640, 0o604, 0o660):
        secret.chmod(mode)
        assert problems(tmp_path, text) == [
            f'engine.toml: auth.hs256_secret_file = "{secret}": others can read it (mode 0{mode:o}); '
            f"expected mode 0600: chmod 600 {secret}"
        ]
    secret.chmod(0o600)
    assert problems(tmp_path, text) == []
    secret.unlink()
    assert problems(tmp_path, text) == [
        f'engine.toml: auth.hs256_secret_file = "{secret}": cannot be read (No such file or directory); '
        "expected a file that only this user may read"
    ]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "[engine]\nwait = 'x'\nwaits = 1\n")
    with pytest.raises(SettingsError) as caught:
        load(path, {"TICKPATH_ENGINE__DRAIN_S": "0"})
    assert str(caught.value).replace(path, "engine.toml").splitlines() == [
        "engine.toml: engine.waits is unknown; did you mean wait?",
        "environment: TICKPATH_ENGINE__DRAIN_S = 0: expected a whole number of seconds from 1 to 600",
        'engine.toml: engine.wait = "x": expected "auto", "spin", "yield" or "block"',
    ]


def test_a_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(str(tmp_path / "none.toml"), {})
    assert str(caught.value) == (
        f"{tmp_path}/none.toml: cannot be read (No such file or directory); "
        "expected a TOML file that this user may read"
    )
    path = written(tmp_path, "engine = [")
    with pytest.raises(SettingsError) as caught:
        load(path, {})
    assert str(caught.value) == f"{path}: is not TOML: Invalid value (at end of document)"


def test_digest_is_of_the_values_wherever_they_came_from(tmp_path: Path) -> None:
    path = written(tmp_path, "[engine]\nmax_batch = 8\n")
    from_file, from_environment = load(path, {}), load(None, {"TICKPATH_ENGINE__MAX_BATCH": "8"})
    assert digest(from_file) == digest(from_environment) != digest(load(None, {}))
    assert len(digest(from_file)) == 32


def test_reference_tells_every_setting_and_its_default_can_be_read_back() -> None:
    text = reference()
    document: dict = {}
    section: dict = {}
    for line in text.splitlines():
        if line.startswith("**`["):
            section = document
            for part in line.strip("*`[]").split("."):
                section = section.setdefault(part, {})
        elif line.startswith("| `"):
            key, default = line.split(" | ")[:2]
            section.update(tomllib.loads(f"{key.strip('| `')} = {default.strip('`')}"))
    settings, found = knobs.read(Settings, document, "README", {})
    assert found == []
    assert settings == Settings()
    assert sum(1 for _ in knobs.walk(Settings)) == text.count("\n| `")


def test_every_setting_has_help_and_its_name_in_the_environment() -> None:
    for dotted, _, each in knobs.walk(Settings):
        assert each.metadata["knob"].help, dotted
        assert knobs.environment_name(dotted) == "TICKPATH_" + dotted.upper().replace(".", "__")
    assert all(is_dataclass(each.default_factory()) for each in fields(Settings))  # type: ignore[misc]


@pytest.mark.skipif(not README.exists() or START not in README.read_text(), reason="the README has no reference yet")
def test_readme_has_the_reference_as_it_is_now() -> None:
    text = README.read_text()
    assert text[text.index(START) + len(START) : text.index(END)].strip() == reference().strip(), (
        "write the output of engine.settings.reference() between the markers of README.md"
    )


def test_passwords_are_left_out_of_messages() -> None:
    assert doctest.testmod(knobs).failed == 0


def test_addresses_are_split() -> None:
    assert split_address("127.0.0.1:80") == ("127.0.0.1", 80)
    assert split_address("[::1]:0") == ("::1", 0)
    for wrong in ("", ":80", "host", "host:", "host:65536", "host:-1", "::1:80", "host:８"):
        with pytest.raises(ValueError, match=r"IPv6|host:port"):
            split_address(wrong)


def test_load_reads_this_process_s_environment_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "TICKPATH_ENGINE__NAME", "other-1")
    assert load(None).engine.name == "other-1"
