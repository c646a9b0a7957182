"""`check`: every problem is told with what to do; nothing wrong, nothing said but ok."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
import tomllib
from pathlib import Path

import pytest
from running import ROOT, Command, nats_server

from engine.cli import checks_host, checks_models, checks_outside
from engine.cli.findings import FAIL, OK, WARN, Finding
from engine.settings import Settings, read


def findings_of(done: "subprocess.CompletedProcess[str]") -> dict[str, dict[str, str]]:
    """By what they are of. Standard error stays empty whatever is wrong."""
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["ok"] == (done.returncode == 0) == all(each["level"] != FAIL for each in report["findings"])
    return {each["what"]: each for each in report["findings"]}


def settings_of(**environ: str) -> Settings:
    settings, problems = read(None, {name.upper(): value for name, value in environ.items()})
    assert problems == []
    return settings


def test_a_finding_is_one_line() -> None:
    assert str(Finding(OK, "name", "no other")) == "ok    name — no other"
    assert str(Finding(FAIL, "name", "taken", "end it")) == "FAIL  name — taken; end it"


def test_every_problem_is_told_not_the_first_alone(engine: Command, key: Path) -> None:
    config = key.with_name("engine.toml")
    config.write_text(
        '[engine]\nwait = "never"\ndevise = 1\n[auth]\nalgorithms = ["EdDSA"]\njwks_file = "/none/jwks.json"\n'
        '[bus.nats]\nurl = "nats://ann:secret@127.0.0.1:9"\n[bus.local]\npath = "/none/bus.sock"\n'
        '[models]\npath = "/none/models"\n[http]\nlisten = "192.0.2.1:8080"\ninsecure = true\n'
    )
    done = engine("check", "--config", config)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (1, "")
    assert lines[:3] == [
        f"FAIL  settings — {config}: engine.devise is unknown; did you mean device?",
        f'FAIL  settings — {config}: engine.wait = "never": expected "auto", "spin", "yield" or "block"',
        "FAIL  keys — auth.jwks_file = '/none/jwks.json': expected a file that this user can read, "
        "found: No such file or directory; correct the setting, or make keys with: "
        "python -m engine token keygen --out DIR",
    ]
    assert (
        "FAIL  nats — nats://***@127.0.0.1:9: no connection within 2 s ([Errno 111] Connect call failed "
        "('127.0.0.1', 9)); start nats-server, or correct bus.nats.url and what it needs to be let in"
    ) in lines
    assert "FAIL  local — /none is no folder; make it, or correct bus.local.path" in lines
    assert (
        "FAIL  http — http.listen = 192.0.2.1:8080: Cannot assign requested address; "
        "end what listens there, or choose another address"
    ) in lines
    assert (
        "FAIL  models — /none/models: expected the folder of the model store, found none; "
        "set `models.path` or restore the bundled `models`"
    ) in lines
    assert not any("secret" in line for line in lines)


def test_a_secret_that_others_can_read_is_told_once(engine: Command, key: Path) -> None:
    key.chmod(0o644)
    done = engine("check", "--config", key.with_name("engine.toml"))
    lines = [line for line in done.stdout.splitlines() if "secret" in line or "keys" in line]
    assert lines == [
        f'FAIL  settings — {key.with_name("engine.toml")}: auth.hs256_secret_file = "{key}": others can read it '
        f"(mode 0644); expected mode 0600: chmod 600 {key}"
    ]
    assert done.returncode == 1


def test_a_bad_key_is_told(engine: Command, key: Path) -> None:
    key.write_text("short")
    keys = findings_of(engine("check", "--json", "--config", key.with_name("engine.toml")))["keys"]
    assert keys["level"] == FAIL
    assert keys["detail"] == (
        f"auth.hs256_secret_file = '{key}': expected a random secret of 32 bytes "
        "or more, found 5 bytes; make one with: openssl rand -hex 32"
    )


def test_a_file_that_is_no_toml_leaves_only_the_host_to_look_at(engine: Command, tmp_path: Path) -> None:
    (tmp_path / "engine.toml").write_text("[engine")
    done = engine("check", "--json", "--config", tmp_path / "engine.toml")
    assert set(findings_of(done)) == {"settings", "processor", "kernels"}
    assert done.returncode == 1


def test_a_running_server_and_a_free_folder_are_ok(engine: Command, key: Path, nats_url: str) -> None:
    found = findings_of(
        engine(
            *("check", "--json", "--config", key.with_name("engine.toml")),
            TICKPATH_BUS__NATS__URL=nats_url,
            TICKPATH_BUS__LOCAL__PATH=str(key.with_name("bus.sock")),
        )
    )
    assert {what: each["level"] for what, each in found.items() if what in ("settings", "keys", "nats", "local")} == {
        "settings": OK,
        "keys": OK,
        "nats": OK,
        "local": OK,
    }
    assert found["nats"]["detail"].startswith(f"{nats_url}: connected, nats-server 2.")
    assert found["keys"]["detail"] == "1 key for HS256"
    assert found["local"]["detail"] == f"{key.with_name('bus.sock')} can be made"


def test_no_bus_at_all_is_told(engine: Command, key: Path) -> None:
    found = findings_of(engine("check", "--json", "--config", key.with_name("engine.toml")))
    assert found["buses"] == {
        "level": FAIL,
        "what": "buses",
        "detail": "none is configured",
        "do": "set bus.nats.url, bus.kafka.bootstrap or bus.local.path",
    }


def test_a_server_that_forbids_the_subject_is_told(tmp_path: Path) -> None:
    rules = 'authorization { users = [ { user: ann, password: "p", permissions: { subscribe: ["_INBOX.>"] } } ] }\n'
    with nats_server(tmp_path, rules) as url:
        allowed = url.replace("nats://", "nats://ann:p@")
        (finding,) = checks_outside.buses(settings_of(tickpath_bus__nats__url=allowed))
        assert str(finding) == (
            f"FAIL  nats — {url.replace('nats://', 'nats://***@')}: nats: permissions violation for subscription to "
            '"ml.v1.features.>"; let this user subscribe to ml.v1.features.>'
        )
        (finding,) = checks_outside.buses(settings_of(tickpath_bus__nats__url=url))
        assert str(finding) == (
            f"FAIL  nats — {url}: no connection within 2 s (nats: 'Authorization Violation'); "
            "start nats-server, or correct bus.nats.url and what it needs to be let in"
        )


def test_a_server_with_a_small_max_payload_is_told(tmp_path: Path) -> None:
    with nats_server(tmp_path, "max_payload: 65536\n") as url:
        (finding,) = checks_outside.buses(settings_of(tickpath_bus__nats__url=url))
    assert str(finding) == (
        f"warn  nats — {url}: its max_payload of 65536 bytes is below limits.message_bytes; "
        "raise max_payload of the server, or lower limits.message_bytes"
    )


def test_a_server_that_never_answers_costs_two_seconds_and_one_of_a_cluster_only_warns(nats_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"nats://127.0.0.1:{silent.getsockname()[1]}"
        away, there = checks_outside.buses(settings_of(tickpath_bus__nats__url=f"{url},{nats_url}"))
    assert (away.level, there.level) == (WARN, OK)
    assert away.detail == f"{url}: no connection within 2 s (no answer)"


def test_a_local_bus_that_somebody_has_is_told(tmp_path: Path) -> None:
    path = tmp_path / "bus.sock"
    settings = settings_of(tickpath_bus__local__path=str(path))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.out")
        listener.listen()
        (finding,) = checks_outside.buses(settings)
        assert str(finding) == (f"FAIL  local — somebody listens at {path}.out already; end it, or choose another path")
    (finding,) = checks_outside.buses(settings)  # what a dead engine left is no problem
    assert finding.level == OK


def store_of(folder: Path, *kept: str) -> Settings:
    """A copy of the bundled models, or of some."""
    for model in kept:
        shutil.copytree(ROOT / "models" / model, folder / "models" / model)
    return settings_of(tickpath_models__path=str(folder / "models"))


def test_every_bad_model_is_told(tmp_path: Path) -> None:
    settings = store_of(tmp_path, "basic_lstm", "simple_pattern", "xgboost_direction")
    first, second = sorted((tmp_path / "models").glob("*/*/model.toml"))[:2]
    first.write_text("id = 1\n")
    second.write_text("[")
    findings = list(checks_models.models(settings))
    assert [each.level for each in findings[:3]] == [FAIL, FAIL, OK]
    assert all(str(file) in each.detail for each, file in zip(findings, (first, second), strict=False))
    assert findings[2].detail == "xgboost_direction 3.2"
    shutil.rmtree(tmp_path / "models" / "xgboost_direction")
    *told, nothing = checks_models.models(settings)
    assert [str(each.detail).split(":")[0] for each in told] == [str(first), str(second)]
    assert str(nothing) == (
        f"FAIL  models — {tmp_path / 'models'}: expected at least one model, found none; "
        "set `models.path` or restore the bundled `models`"
    )


def spoilt(folder: Path, model_id: str, old: str, new: str) -> Path:
    """A company's own price model with one thing wrong; its manifest."""
    to = folder / "models" / model_id / "1.0"
    shutil.copytree(ROOT / "models" / "basic_lstm" / "1.0", to)
    text = (to / "model.toml").read_text().replace("basic_lstm", model_id)
    assert old in text
    text = text.replace(old, new, 1).replace("version =", f'company = "{model_id}"\nversion =', 1)
    (to / "model.toml").write_text(text)
    return to / "model.toml"


def test_each_version_is_opened_as_a_worker_does_and_told_with_its_owner(tmp_path: Path) -> None:
    settings = store_of(tmp_path, "basic_lstm")
    spoilt(tmp_path, "fine", "weight", "weight")
    bands = spoilt(tmp_path, "bands", "\nq = ", "\n# q = ")
    mistyped = spoilt(tmp_path, "mistyped", '"rsi_14"', '"rsi14"')
    narrow = spoilt(tmp_path, "narrow", '"rsi_14", ', "")
    ranges = spoilt(tmp_path, "ranges", "[range]\nlow = [", "[range]\nlow = [0.0, ")
    golden = spoilt(tmp_path, "golden", "closed_minutes", "closed_minutes")
    rows = json.loads((golden.parent / "golden.json").read_text())
    rows["rows"][2]["expected"]["rise"][0] += 0.01
    data = json.dumps(rows)
    (golden.parent / "golden.json").write_text(data)
    text, sha256 = golden.read_text(), hashlib.sha256(data.encode()).hexdigest()
    golden.write_text(text[: text.rindex('sha256 = "')] + f'sha256 = "{sha256}"\n')
    findings = list(checks_models.models(settings))
    told = [str(each) for each in findings if each.level != WARN]
    names = "move_1, move_5, move_15, move_60, place_15, range_15, range_60, volatility_ratio, sma_20_gap, ema_12_gap, "
    names += "ema_26_gap, macd, rsi_14, atr, spread, gap"
    others = "; all other versions answer without it"
    low, high = min(rows_of(ranges, "low")), max(rows_of(ranges, "low"))
    assert told[0] == (
        f"FAIL  models — bands 1.0 (bands's price): {bands}: calibration.q: expected 4 numbers from 0.05 to 50, "
        f"found []; correct the manifest{others}"
    )
    assert told[1].startswith(
        f"FAIL  models — golden 1.0 (golden's price): {golden.parent / 'golden.json'}: row 3: rise: expected ["
    )
    assert told[2] == (
        f"FAIL  models — mistyped 1.0 (mistyped's price): {mistyped}: features: rsi14 is not a feature of the engine "
        f"for this role; did you mean rsi_14?{others}"
    )
    assert told[3] == (
        f"FAIL  models — narrow 1.0 (narrow's price): {narrow.parent / 'model.onnx'}: rows: expected tensor(float) of "
        f"shape (1, 50, 15), found tensor(float) of (1, 50, 16); export it so{others}"
    )
    assert told[4] == (
        f"FAIL  models — ranges 1.0 (ranges's price): {ranges}: range.low: expected 17 numbers from -1e+06 to 1e+06: "
        f"of {names} and sigma, in this order, whatever `features` names, "
        f"found 18 numbers from {low:g} to {high:g}; correct the manifest{others}"
    )
    assert told[5:] == ["ok    models — basic_lstm 1.0, fine 1.0 (fine's price)"]


def rows_of(manifest: Path, name: str) -> list[float]:
    found: list[float] = tomllib.loads(manifest.read_text())["range"][name]
    return found


def test_a_changed_artefact_and_a_missing_model_are_told(tmp_path: Path) -> None:
    settings = store_of(tmp_path, "basic_lstm", "simple_pattern")
    (artefact,) = (tmp_path / "models" / "basic_lstm").glob("*/model.onnx")
    artefact.write_bytes(artefact.read_bytes() + b"x")
    changed, whole, *missing = checks_models.models(settings)
    assert changed.level == FAIL
    assert changed.detail.startswith(f"basic_lstm 1.0: {artefact}: expected sha256 ")
    assert whole.level == OK
    assert whole.detail.startswith("simple_pattern ")
    assert (
        "warn  models — xgboost_direction is not in the store: baseline answers in its place, marked DEGRADED; "
        "add it, for answers of full quality"
    ) in map(str, missing)


def test_an_address_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        (finding,) = checks_outside.http(settings_of(tickpath_http__listen=address))
    assert str(finding) == (
        f"FAIL  http — http.listen = {address}: Address already in use; "
        "end what listens there, or choose another address"
    )


def test_a_running_engine_of_the_same_name_is_told() -> None:
    name = f"check-{os.getpid()}-{threading.get_native_id()}"
    settings = settings_of(tickpath_engine__name=name)
    with socket.socket(socket.AF_UNIX) as holder:
        holder.bind(f"\0tickpath/{name}")
        assert [str(each) for each in checks_host.name(settings)] == [
            f"FAIL  name — an engine named {name} runs on this host; end it, or choose another engine.name"
        ]
    assert [str(each) for each in checks_host.name(settings)] == [f"ok    name — no other engine is named {name}"]


def test_too_little_shared_memory_tells_need_and_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastpath.arena.available_bytes", lambda: 100 << 20)
    (finding,) = checks_host.memory(settings_of(tickpath_limits__keys_total="65536", tickpath_engine__workers="1"))
    need = int(finding.detail.split()[3])
    assert need > 65536 * 256 * 256 >> 20
    assert str(finding) == (
        f"FAIL  memory — shared memory: need {need} MiB, have 100 MiB; lower limits.keys_total, "
        "engine.requests_slots or engine.workers, or give the host or control group more"
    )
    (finding,) = checks_host.memory(settings_of(tickpath_limits__keys="16", tickpath_limits__keys_total="16"))
    assert finding.level == OK


@pytest.mark.parametrize(
    ("cores", "environ", "expected"),
    [
        (8, {"tickpath_engine__workers": "2"}, "ok    cores — 8 for ingress, egress and 2 workers; at rings 4 spin"),
        (
            4,
            {"tickpath_engine__workers": "2"},
            "ok    cores — 4 for ingress, egress and 2 workers; at rings 2 spin and 2 block",
        ),
        (
            2,
            {"tickpath_engine__workers": "1"},
            "warn  cores — 2 for ingress, egress and 1 worker; at rings 3 block; they take turns, which costs latency",
        ),
        (
            4,
            {"tickpath_engine__workers": "4"},
            "warn  cores — 4 for ingress, egress and 4 workers; at rings 2 spin and 4 block; they take turns, "
            "which costs latency; allow more cores, or set engine.workers lower",
        ),
        (
            3,
            {"tickpath_engine__workers": "1", "tickpath_engine__wait": "spin"},
            "warn  cores — 3 for ingress, egress and 1 worker; at rings 3 spin; processes that spin would take every "
            'core from the others; set engine.wait = "auto"',
        ),
    ],
)
def test_cores_say_what_waiting_will_be(
    monkeypatch: pytest.MonkeyPatch, cores: int, environ: dict[str, str], expected: str
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(checks_host, "cores_for", lambda _: cores)
    assert [str(each) for each in checks_host.cores(settings_of(**environ))] == [expected]


def test_processors_that_are_not_ours_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 6})
    first, *_ = checks_host.cores(settings_of(tickpath_engine__cpus="1,4,5,6"))
    assert str(first) == (
        "FAIL  cores — engine.cpus names 4, 5; this process may run on 0-3, 6; name some of those, or none"
    )


def test_a_processor_without_avx2_is_told(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Old One\nflags\t\t: fpu sse2 avx\n")
    (finding,) = checks_host.processor(Settings(), tmp_path / "cpuinfo")
    assert str(finding) == (
        "warn  processor — Old One is without AVX2 and FMA; models run on their portable code, which is slower"
    )
    (tmp_path / "cpuinfo").write_text("model name\t: New One\nflags\t\t: fpu sse2 avx avx2 fma\n")
    (finding,) = checks_host.processor(Settings(), tmp_path / "cpuinfo")
    assert str(finding) == "ok    processor — New One, AVX2 and FMA"
