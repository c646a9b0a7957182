"""The control role over HTTP, on a real socket."""

import json
import re
import socket
import time
from dataclasses import replace

import pytest

from engine.control import main
from engine.errors import SettingsError
from engine.settings import Http
from engine.shared import CONTROL, INGRESS, BusState, Life, Phase, worker_seat
from tests.control.conftest import ask, serving, until


def test_health_is_answered_with_200_while_predictions_go_on(shared, settings):
    with serving(shared, settings) as (host, port, _):
        status, headers, body = ask(host, port, "/health")
        assert (status, headers["content-type"], headers["cache-control"]) == (200, "application/json", "no-store")
        found = json.loads(body)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("timestamp"))
        assert 0 <= found.pop("cpu_usage") < 100
        assert found == {
            "service": "ml-processing",
            "status": "healthy",
            "version": "0.1.0",
            "model_basic_lstm": {"status": "healthy", "version": "1.0", "breaker": "closed"},
            "model_xgboost_direction": {"status": "healthy", "version": "3.2", "breaker": "closed"},
            "gpu_memory": [],
            "avg_inference_time_ms": 0.0,
            "throughput_predictions_per_second": 0.0,
            "circuit_breakers": {"basic_lstm": "closed", "xgboost_direction": "closed"},
            "active_tenants": 0,
            "buses": {"nats": "up", "local": "up"},
        }
        shared.children[INGRESS.row]["bus_nats"] = BusState.DOWN
        shared.supervisor[0]["tick_ns"] = time.monotonic_ns()
        status, _, body = ask(host, port, "/health")
        assert (status, json.loads(body)["status"]) == (200, "degraded")


def test_health_is_answered_with_503_when_unhealthy(shared, settings):
    shared.supervisor[0]["lives"][worker_seat(0).row] = Life.SPENT
    with serving(shared, settings) as (host, port, _):
        status, _, body = ask(host, port, "/health")
        assert (status, json.loads(body)["status"]) == (503, "unhealthy")


def test_live_and_ready_are_told_apart(shared, settings):
    with serving(shared, settings) as (host, port, _):
        shared.supervisor[0]["tick_ns"] = time.monotonic_ns()
        assert ask(host, port, "/v2/health/live")[::2] == (200, b'{"live":true}')
        assert ask(host, port, "/v2/health/ready")[::2] == (200, b'{"ready":true}')
        for number in range(3):
            shared.supervisor[0]["lives"][worker_seat(number).row] = Life.LOADING
        shared.supervisor[0]["tick_ns"] = time.monotonic_ns()
        assert ask(host, port, "/v2/health/live")[::2] == (200, b'{"live":true}')
        assert ask(host, port, "/v2/health/ready")[::2] == (503, b'{"ready":false}')
        shared.supervisor[0]["tick_ns"] = time.monotonic_ns() - 1_100_000_000
        assert ask(host, port, "/v2/health/live")[::2] == (503, b'{"live":false}')


def test_metrics_are_served_as_prometheus_text(shared, settings):
    with serving(shared, settings) as (host, port, _):
        status, headers, body = ask(host, port, "/metrics")
        assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert b'\ntickpath_process_cpu_seconds_total{process="supervisor"} ' in body


PROBLEMS = {
    ("GET", "/nothing"): (404, "Not Found", "There is nothing at this path."),
    ("POST", "/health"): (
        405,
        "Method Not Allowed",
        "This path does not take this method; the Allow header names those that it takes.",
    ),
}


@pytest.mark.parametrize(("request_", "problem"), PROBLEMS.items(), ids=lambda each: " ".join(map(str, each[:2])))
def test_errors_are_problem_json(shared, settings, request_, problem):
    (method, path), (status, title, detail) = request_, problem
    with serving(shared, settings) as (host, port, _):
        found, headers, body = ask(host, port, path, method)
        assert (found, headers["content-type"]) == (status, "application/problem+json")
        assert json.loads(body) == {"type": "about:blank", "title": title, "status": status, "detail": detail}
        assert status != 405 or set(headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_a_fault_of_ours_is_one_neutral_sentence(shared, settings):
    with serving(shared, settings) as (host, port, _):
        shared.versions[0]["version"] = b"\xff"  # no text
        status, headers, body = ask(host, port, "/health")
        assert (status, headers["content-type"]) == (500, "application/problem+json")
        assert json.loads(body)["detail"] == "The question could not be answered; the engine's log says why."


def test_it_says_where_it_listens_pulses_and_is_ready(shared, settings):
    with serving(shared, settings) as (_, port, log):
        assert f"listening on http://127.0.0.1:{port}" in log.lines
        row = shared.children[CONTROL.row]
        until(lambda: row["ready"], "ready")
        assert row["phase"] == Phase.IDLE
        for _ in range(3):
            before = int(row["pulse_ns"])
            until(lambda before=before: int(row["pulse_ns"]) > before, "the next pulse", seconds=1.0)


def test_a_change_of_health_is_logged_once_with_its_reasons(shared, settings):
    with serving(shared, settings) as (_, _, log):
        shared.supervisor[0]["tick_ns"] = time.monotonic_ns() + 3_600_000_000_000
        shared.children[INGRESS.row]["bus_nats"] = BusState.DOWN
        until(lambda: "health: degraded; bus nats is down" in log.lines, "the change in the log")
        assert log.lines.count("health: degraded; bus nats is down") == 1


def test_the_port_is_free_at_once_for_a_successor(shared, settings):
    with serving(shared, settings) as (host, port, _):
        connection = socket.create_connection((host, port))  # left open: its server side lingers
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    successor = main.listen(f"127.0.0.1:{port}")
    successor.close()
    connection.close()


def test_a_port_in_use_is_told_with_what_to_do():
    with main.listen("127.0.0.1:0") as taken:
        where = "{}:{}".format(*taken.getsockname())
        with pytest.raises(SettingsError) as caught:
            main.listen(where)
    assert str(caught.value) == (
        f'http.listen = "{where}": expected an address of this host with a free port, found: Address already in use; '
        "stop what listens there or set another port"
    )


def test_addresses_are_shown_as_they_are_typed(settings):
    with main.listen("[::1]:0") as listener:
        assert main.url(listener, settings) == f"http://[::1]:{listener.getsockname()[1]}"
        tls = replace(settings, http=Http(tls_cert="cert.pem", tls_key="key.pem"))
        assert main.url(listener, tls).startswith("https://")
