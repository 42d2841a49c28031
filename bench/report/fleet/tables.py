"""A fleet as tables, a closing line and a document."""

from collections.abc import Sequence
from typing import Any

from bench.core.quantity import Provenance, Quantity
from bench.core.specs.demand import Demand
from bench.core.units import seconds
from bench.report.numbers import percent, three
from bench.report.tables.table import Cell, Table, claimed, number, numbers, quantity, table
from bench.studies.fleet.article import Article, Line, product
from bench.studies.fleet.plan import Plan
from bench.studies.fleet.policies import Check, Outcome
from bench.studies.fleet.tornado import Swing


def people(value: float) -> str:
    """As people write it: 124,600; 1.25 M."""
    if value >= 1e9:
        return f"{value / 1e9:,.3g} bn"
    if value >= 1e6:
        return f"{value / 1e6:,.3g} M"
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"


def plans_table(plans: Sequence[Plan]) -> Table:
    """A line a card, mesh and recipe."""
    demand = plans[0].demand
    wanted, how = demand.objective, provenance_of(plans)
    done = "" if wanted.done_within_s is None else f", done within {seconds(wanted.done_within_s)}"
    return table(
        f"{people(demand.minutes_per_day)} minutes of video wanted a day ({_made_of(demand)})",
        [
            "card",
            "a clip on",
            numbers("GPUs at the peak", how),
            numbers("on average", how),
            numbers("busy", how),
            numbers("clip", how),
            numbers("USD a day", how),
            numbers("USD a minute", how),
            numbers("MWh a day, at most", how),
            "evidence",
        ],
        [_plan_cells(p) for p in plans],
        note=(
            f"{wanted.share:.0%} of clips start within {seconds(wanted.starts_within_s)}{done};"
            " intervals of 90 %"
        ),
    )


def _made_of(demand: Demand) -> str:
    """E.g. "uploads: sora-20b, sora-1min-512": other clips of a demand cost other seconds."""
    clips = ", ".join(clip.workload for clip in demand.clips)
    return f"{demand.name}: {clips}"


def provenance_of(plans: Sequence[Plan]) -> Provenance:
    """Of what follows from the predicted seconds and the demand's own (claimed) numbers."""
    fitted = all(p.server.provenance == "fitted" for p in plans)
    return "fitted" if fitted else "extrapolated"


def _plan_cells(p: Plan) -> list[Cell | str]:
    return [
        p.server.gpu.name,
        p.server.how,
        quantity(p.gpus, people),
        quantity(p.mean_gpus, people),
        number(p.fleet.utilisation, percent(0)),
        number(p.fleet.latency_s, seconds, "wait and service of the objective's share of clips"),
        quantity(p.usd_per_day, people),
        number(p.usd_per_minute.value if p.usd_per_minute else None, three),
        number(p.mwh_per_day.value if p.mwh_per_day else None, people),
        p.server.provenance,
    ]


def article_table(article: Article, rows: Sequence[Line], how: Provenance) -> Table:
    """The article's arithmetic beside ours."""
    listed = list(rows)
    return table(
        "From minutes to GPUs, factor by factor",
        ["", claimed("the article"), numbers("here"), "why"],
        [
            *(
                [
                    r.what,
                    number(r.article, people),
                    number(r.here, people, None, r.provenance),
                    r.why,
                ]
                for r in listed
            ),
            [
                "GPUs",
                number(product(listed, "article"), people),
                number(product(listed, "here"), people, None, how),
                f"printed: {people(article.gpus()['with three times 2, as printed'])}, from a sum"
                f" of {people(article.printed_minutes_per_day)} minutes",
            ],
        ],
    )


def tornado_table(swings: Sequence[Swing], how: Provenance) -> Table:
    """What moves the fleet, the most first."""
    return table(
        "What moves the number of GPUs most",
        [
            "",
            claimed("low"),
            claimed("high"),
            numbers("GPUs at low", how),
            numbers("at high", how),
            "source",
        ],
        [
            [
                s.name,
                number(s.low, people),
                number(s.high, people),
                number(s.gpus_at_low, people),
                number(s.gpus_at_high, people),
                s.source,
            ]
            for s in swings
        ],
        note="one at a time, all others at their middle",
    )


def policies_table(outcomes: Sequence[Outcome], share: float, how: Provenance) -> Table:
    """Ways to run it."""
    return table(
        "Ways to run it",
        [
            "policy",
            "a clip on",
            numbers("GPUs", how),
            numbers("USD a minute", how),
            numbers("clip", how),
            "by",
        ],
        [
            [
                f"{o.name}{' *' * o.on_front}",
                o.how,
                number(o.gpus, people),
                number(o.usd_per_minute, three),
                number(o.latency_s, seconds),
                o.by,
            ]
            for o in outcomes
        ],
        note=f"* on the front; clip: {share:.0%} take at most this long, in the busiest hour",
    )


def check_line(check: Check) -> str:
    """The simulation beside theory."""
    size = f"{check.servers:,} servers"
    part = f" (1 : {1 / check.scale:,.0f} of the load)" if check.scale < 1 else ""
    whole_fleet = (
        f"; so small a fleet needs {check.more_servers:.1%} more of them a clip than the whole one"
        if check.scale < 1
        else ""
    )
    return (
        f"simulated by events: {check.requests:,} clips on {size}{part}: {check.share:.0%} wait at"
        f" most {seconds_or_0(check.simulated_s)}; theory says"
        f" {seconds_or_0(check.theory_s)} there{whole_fleet}"
    )


def seconds_or_0(value: float) -> str:
    return seconds(value) if value > 0 else "0 s"


def fleet_document(
    plans: Sequence[Plan],
    article: Article,
    rows: Sequence[Line],
    swings: Sequence[Swing],
    outcomes: Sequence[Outcome],
    check: Check | None,
    files: dict[str, str],
) -> dict[str, Any]:
    """`fleet --json`."""
    return {
        "demand": plans[0].demand.model_dump(mode="json"),
        "plans": [_plan_document(p) for p in plans],
        "article": {
            "gpus": article.gpus(),
            "factors": [vars(row) for row in rows],
            "product": {which: product(list(rows), which) for which in ("article", "here")},
        },
        "tornado": [
            vars(s) | {"factor": s.factor, "provenance": provenance_of(plans)} for s in swings
        ],
        "policies": [vars(o) | {"provenance": provenance_of(plans)} for o in outcomes],
        "simulation": None if check is None else vars(check),
        "files": files,
    }


def _plan_document(p: Plan) -> dict[str, Any]:
    def said(q: Quantity | None) -> dict[str, float] | None:
        return None if q is None else q.as_dict()

    return {
        "gpu": p.server.gpu.name,
        "how": p.server.how,
        "gpus_of_a_clip": p.server.gpus,
        "clips": [vars(c) | {"service_s": c.service_s.as_dict()} for c in p.server.clips],
        "gpus": said(p.gpus),
        "mean_gpus": said(p.mean_gpus),
        "usd_per_day": said(p.usd_per_day),
        "usd_per_minute": said(p.usd_per_minute),
        "mwh_per_day": said(p.mwh_per_day),
        **vars(p.fleet),
        "provenance": p.server.provenance,
    } | {"gpus": said(p.gpus), "mean_gpus": said(p.mean_gpus)}
