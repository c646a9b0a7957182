"""Where the time of a vector goes: that the stages are parts of the total, and how it looks."""

import io

import pytest
from rich.console import Console

from engine.cli import top
from engine.cli.scrape import Look, Process, parse
from engine.cli.top import Shown, Watched
from engine.shared import EGRESS, INGRESS, Stage
from fastpath.histogram import Histogram
from tests.control.conftest import serving, settings, shared  # noqa: F401  # fixtures

INPUTS = [(40, 25, 100, 60), (30, 35, 80, 90), (50, 15, 300, 45)]  # us: ingress, wait, worker, egress


def record(shared, inputs):  # noqa: F811
    """As ingress and egress count them."""
    for ingress, wait, worker, egress in inputs:
        for seat, stage, us in (
            (INGRESS, Stage.INGRESS, ingress),
            (EGRESS, Stage.WORKER, worker),
            (EGRESS, Stage.EGRESS, egress),
            (EGRESS, Stage.ENGINE, ingress + wait + worker + egress),
            (EGRESS, Stage.CONFIRM, 500),
        ):
            Histogram(shared.histograms[seat.row, stage : stage + 1]).record(us * 1000)


def means(shown):
    return [each.mean_us for each in shown.stages]


def test_stages_add_up_to_the_total_and_are_those_of_each_input(shared, settings):  # noqa: F811
    record(shared, INPUTS)
    with serving(shared, settings) as (host, port, _):
        watched = Watched(f"http://{host}:{port}")
        first = watched.look()
        record(shared, [(10, 20, 30, 40)])
        second = watched.look()
        third = watched.look()
    assert (first.seconds, first.inputs, third.seconds, third.inputs) == (0.0, 3, 0.0, 4)
    assert means(first) == pytest.approx([sum(column) / 3 for column in zip(*INPUTS, strict=True)])
    assert sum(means(first)) == pytest.approx(first.total.mean_us)
    assert (second.inputs, second.seconds > 0) == (1, True)
    assert means(second) == pytest.approx([10, 20, 30, 40])
    assert second.total.mean_us == pytest.approx(100)
    assert second.confirm.mean_us == pytest.approx(500)


def test_an_engine_that_was_never_asked_has_noughts(shared, settings):  # noqa: F811
    with serving(shared, settings) as (host, port, _):
        shown = Watched(f"http://{host}:{port}").look()
    assert (shown.inputs, means(shown), shown.total.mean_us) == (0, [0.0] * 4, 0.0)


def test_it_looks_like_this():
    page = "".join(
        f'tickpath_stage_duration_seconds_{kind}{{process="x",stage="{stage}"{more}}} {value}\n'
        for stage, us in (("ingress", 100), ("worker", 50), ("egress", 200), ("engine", 500), ("confirm", 900))
        for kind, more, value in (
            ("bucket", ',le="0.001"', 4),
            ("bucket", ',le="+Inf"', 4),
            ("sum", "", 4 * us * 1e-6),
            ("count", "", 4),
        )
    )
    samples = parse(page)
    stages, total, confirm = top.parts({name: top.sums_of(samples, name) for name in top.STAGES})
    look = Look("healthy", {}, [Process("ingress", "ready", 123 << 20, 0.125, 1)])
    console = Console(file=io.StringIO(), width=80, force_terminal=False, color_system=None)
    console.print(top.frame("http://x", Shown(2.0, 4, 2.0, stages, total, confirm, look)))
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == [
        " Tickpath top   ● healthy   4 inputs: the last 2.0 s, 2/s",
        "",
        "us of an input                      mean  share      p50      p99",
        "ingress: received -> in a ring       100    20%      500      990  ━━",
        "in a ring -> taken by a worker       150    30%        -        -  ━━━",
        "worker: taken -> answered             50    10%      500      990  ━",
        "egress: answered -> handed over      200    40%      500      990  ━━━━",
        "received -> handed to the bus        500   100%      500      990",
        "handed to the bus -> confirmed       900             500      990",
        "",
        "process     state    memory   cpu  restarts",
        "ingress     ready    123 MB   12%         0",
    ]


def test_nobody_there_is_told(engine):
    done = engine("top", "--once", "--url", "http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (1, "")
    told = "top: http://127.0.0.1:9: no engine answers there; start it, or say where it is by --url or --config\n"
    assert done.stderr == told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--every", "0"], "top: --every: expected 0.05 to 3600 seconds, found 0\n"),
        (
            [],
            "top: http.listen: port 0 is any free one; give --url with the one that the engine's log names\n",
        ),
    ],
)
def test_what_cannot_be_is_refused(engine, key, words, told):
    done = engine("top", "--once", "--config", key.with_name("engine.toml"), *words)
    assert (done.returncode, done.stderr) == (1, told)
