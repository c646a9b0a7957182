"""The demo's last word: what was sent, what came back, and whether it adds up.

Owns nothing; pure functions that the demo runs at its end. What must stay true: it adds up only if
every vector that was sent has exactly one answer, in order, and the engine ended well; whatever is
missing is named.
"""

from typing import Any

from engine.cli.ledger import Account
from engine.cli.view import milliseconds
from engine.contract.names import Status

MEANINGS = {
    Status.OK: "every model that the company may use answered",
    Status.DEGRADED: "a model answered by its fallback",
    Status.WARMING: "a window was not full yet",
    Status.EXPIRED: "its turn came after its deadline",
    Status.REJECTED: "refused, with a reason",
}


def settle(books: dict[str, Any], engine_status: int, drained_s: float) -> dict[str, Any]:
    """The summary, as it goes to programs. `books` are the traffic's last."""
    accounts: list[Account] = books["accounts"]
    total = {name: sum(account[name] for account in accounts) for name in TOTALS}  # type: ignore[literal-required]
    answers = {status.name: sum(account["answers"][status.name] for account in accounts) for status in Status}
    missing = _missing(total, sum(answers.values()), engine_status)
    return {
        "adds_up": not missing,
        "missing": missing,
        "vectors_sent": total["sent"],
        "messages_sent": total["messages"],
        "answers": answers,
        **{name: total[name] for name in ("unanswered", "doubled", "disordered", "misfit")},
        "seconds": round(books["seconds"], 3),
        "vectors_per_s": round(sum(answers.values()) / books["seconds"], 1) if books["seconds"] else 0.0,
        "wire_to_wire_ms": _named(books["wire_ms"]),
        "wire_to_wire_count": books["wire_count"],
        "engine_ms": _named(books["engine_ms"]),
        "companies": [
            {
                "company": account["company"],
                "tier": account["tier"],
                "sent": account["sent"],
                "answers": account["answers"],
            }
            for account in accounts
        ],
        "engine_exit_status": engine_status,
        "drain_s": round(drained_s, 3),
    }


def _named(quantiles: list[float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in zip(("p50", "p90", "p99", "max"), quantiles, strict=False)}


TOTALS = ("sent", "messages", "unanswered", "doubled", "disordered", "misfit")


def _missing(total: dict[str, int], answers: int, engine_status: int) -> list[str]:
    """A sentence for each thing that does not add up."""
    checks = (
        (total["sent"] > 0, "no vector was sent"),
        (total["sent"] == answers, f"{total['sent']:,} vectors were sent, {answers:,} answers counted"),
        (not total["unanswered"], f"{total['unanswered']:,} vectors have no answer"),
        (not total["doubled"], f"{total['doubled']:,} answers came again under their name"),
        (not total["disordered"], f"{total['disordered']:,} answers came out of their stream's order"),
        (not total["misfit"], f"{total['misfit']:,} answers name nothing that was sent, or hold other vectors"),
        (engine_status == 0, f"the engine ended with status {engine_status}, expected 0 after SIGTERM"),
    )
    return [sentence for holds, sentence in checks if not holds]


def lines(result: dict[str, Any]) -> list[str]:
    """For people."""
    companies = len(result["companies"])
    told = [
        "",
        f"{result['vectors_sent']:,} vectors of {companies} companies in {result['seconds']:.1f} s, "
        f"{result['vectors_per_s']:,.0f} answers a second",
        "",
    ]
    told += [f"  {status.name:<9}{result['answers'][status.name]:>8,}  {text}" for status, text in MEANINGS.items()]
    told += [f"  {'answers':<9}{sum(result['answers'].values()):>8,}  of {result['vectors_sent']:,} vectors sent", ""]
    told.append(
        f"  {result['unanswered']:,} unanswered, {result['doubled']:,} doubled, {result['disordered']:,} out of order"
    )
    told.append(f"  latency in ms, {result['wire_to_wire_count']:,} messages")
    for name, text in (("wire_to_wire_ms", "from due to read"), ("engine_ms", "of that within the engine")):
        quantiles = ", ".join(f"{share} {milliseconds(value)}" for share, value in result[name].items())
        told.append(f"    {text:<27}{quantiles or 'nothing was answered'}")
    told.append(f"  SIGTERM to exit status {result['engine_exit_status']}: {result['drain_s']:.2f} s")
    told.append("")
    told += ["The counts add up."] if result["adds_up"] else [f"Missing: {each}." for each in result["missing"]]
    return told
