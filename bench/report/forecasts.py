"""A forecast from published evidence, in words and as a document of --json."""

from collections.abc import Sequence
from typing import Any

from bench.calibrate.evidence.card import CardEvidence, HeldOutErrors
from bench.calibrate.evidence.forecast import Forecast
from bench.calibrate.evidence.observation import Observation
from bench.core.quantity import Quantity
from bench.report.numbers import three

NEW = {"row": "another row", "size": "a new size", "model": "a new model", "source": "a new source"}


def headline(f: Forecast) -> str:
    """Seconds, minutes an hour and dollars in one line."""
    s = f.video_s
    parts = [
        f"{s.value:,.0f} s for the clip ({s.low:,.0f} to {s.high:,.0f}; 90 %)",
        f"{three(f.minutes_per_gpu_hour.value)} minutes of video per GPU-hour",
        dollars(f.usd_per_minute),
    ]
    return ", ".join(part for part in parts if part)


def dollars(usd: Quantity | None) -> str:
    """The whole range: price and seconds at their ends."""
    return "" if usd is None else f"${three(usd.low)} to ${three(usd.high)} per minute"


def resting_on(f: Forecast) -> str:
    """What the forecast rests on, and how wrong such forecasts were."""
    e = f.evidence
    if e.kind == "published":
        words = f"fitted to {e.n} latencies measured by others on this card"
        words += f" and {e.n_all - e.n} on others"
    elif e.kind == "sibling":
        words = (
            f"extrapolated from {e.n_architecture} latencies measured by others on"
            f" {', '.join(e.siblings)}"
        )
    else:
        words = f"extrapolated from {e.n_all} latencies of other cards and the datasheet of {e.gpu}"
    errors = "; ".join(filter(None, (_error(e, by) for by in _ways(e))))
    return f"{words} (held-out error: {errors})"


def _ways(e: CardEvidence) -> tuple[str, ...]:
    return ("size", "model", "source") if e.n else ("card",)


def _error(e: CardEvidence, by: str) -> str:
    found = e.held_out_by(by)
    if found is None:
        return ""
    of = NEW.get(by, "a card without rows")
    simple = "" if found.one_mfu is None else f", one MFU {found.one_mfu:.1%}"
    return f"{found.error:.1%} for {of}{simple}"


def published_here(o: Observation) -> str:
    """A row of this very point."""
    run = "FlashAttention-3 or cuDNN" if o.fast_attention else "FlashAttention-2 or not said"
    compiled = "not compiled" if o.unfused else "compiled or not said"
    return (
        f"published of this very point: {o.seconds:,.0f} s ({o.id}, {o.named}, {run}, {compiled};"
        f" {o.source})"
    )


def evidence_document(e: CardEvidence) -> dict[str, Any]:
    """evidence of `--json`."""
    return {
        "kind": e.kind,
        "gpu": e.gpu,
        "n": e.n,
        "n_architecture": e.n_architecture,
        "n_all": e.n_all,
        "sources": e.sources,
        "heldout": {h.by: _errors(h) for h in e.held_out if h.of == (e.gpu if e.n else "all")},
        "disagreeing": e.disagreeing,
    }


def _errors(h: HeldOutErrors) -> dict[str, Any]:
    return h.model_dump(exclude={"by", "of"})


def forecast_document(f: Forecast) -> dict[str, Any]:
    """`predict --json` of one point on one card."""
    usd = f.usd_per_minute
    return {
        "model": f.point.model.name,
        "workload": f.point.workload.name,
        "recipe": f.point.recipe.name,
        "run_as": f.conditions.words(),
        "gpu": f.gpu.name,
        "step_s": f.step_s.as_dict(),
        "video_s": f.video_s.as_dict(),
        "stages": {name: q.as_dict() for name, q in f.stages.items()},
        "video_s_by_term": f.by_term,
        "minutes_per_gpu_hour": f.minutes_per_gpu_hour.as_dict(),
        "usd_per_minute": usd.as_dict() if usd else None,
        "price": f.gpu.price_usd_per_hour and f.gpu.price_usd_per_hour.model_dump(),
        "kwh_per_minute": f.kwh_per_minute.as_dict(),
        "fits_memory": f.fits_memory,
        "provenance": f.provenance,
        "evidence": evidence_document(f.evidence),
        "published": [
            o.model_dump(include={"id", "named", "seconds", "source", "fast_attention", "unfused"})
            for o in f.same_point
        ],
        "warnings": list(f.warnings),
    }


def paragraph(rows: Sequence[Forecast], command: str) -> str:
    """The finding as three sentences for a report: what, how sure and from whom, how made."""
    best, *others = rows
    what = (
        f"A {best.point.workload.video_s:.3g} s clip of {best.point.model.name}"
        f" ({best.point.workload.name}) takes {_span(best.video_s)} s on one {best.gpu.name}"
        f" ({best.conditions.words()}), {three(best.minutes_per_gpu_hour.value)} minutes of video"
        f" per GPU-hour"
    )
    price = best.gpu.price_usd_per_hour
    if best.usd_per_minute is not None and price is not None:
        what += f" at {dollars(best.usd_per_minute)} (prices of {price.date})"
    if others:
        what += "; " + ", ".join(
            f"{f.gpu.name} ({f.point.recipe.name}) {_span(f.video_s)} s" for f in others
        )
    sure = (
        f"The interval is 90 %: {resting_on(best)}, published by {_listed(best.evidence.sources)}"
    )
    return f"{what}. {sure}. Made by `{command}` with ldt-bench."


def _span(q: Quantity) -> str:
    return f"{q.value:,.0f} ({q.low:,.0f} to {q.high:,.0f})"


def _listed(names: Sequence[str]) -> str:
    shown, more = list(names[:4]), len(names) - 4
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
