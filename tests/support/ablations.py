"""A recipe beside its baseline, in one record."""

from bench.core.load import load_point
from bench.measure.timing.sampling import summarise
from bench.results.records import Against, Divergence, PointRecord
from support.records import count, environment

STAGES = ("trajectory", "vae_decode")


def timing(seconds: float):
    return summarise([0.99 * seconds, seconds, 1.01 * seconds] * 3, [seconds], "converged", True)


def record(
    recipe: str,
    trajectory: float,
    base: float = 10.0,
    divergence: float | None = 0.1,
    outcome: str = "ok",
    overrides: dict | None = None,
) -> PointRecord:
    """A recipe whose trajectory takes so long, beside eager-bf16's; decoding takes both two
    seconds."""
    point = load_point("tiny", "tiny-video", recipe, overrides, STAGES)
    baseline = load_point("tiny", "tiny-video", "eager-bf16", None, STAGES)
    times = {"trajectory": timing(trajectory), "vae_decode": timing(2.0)} if outcome == "ok" else {}
    against = Against(
        baseline="eager-bf16",
        point=baseline.model_dump(mode="json"),
        in_turns=outcome == "ok",
        reason=None,
        timings={"trajectory": timing(base), "vae_decode": timing(2.0)} if outcome == "ok" else {},
        divergence=None
        if divergence is None or outcome != "ok"
        else Divergence(
            relative_l2=divergence, cosine=1.0, psnr_db=40.0, identical=divergence == 0, samples=1
        ),
        divergence_missing=None,
    )
    return PointRecord(
        fingerprint=recipe,
        suite="s",
        started_utc="2026-01-01T00:00:00+00:00",
        wall_s=1.0,
        outcome=outcome,
        reason=None if outcome == "ok" else "needs a card",
        environment=environment(),
        model="tiny",
        workload="tiny-video",
        recipe=recipe,
        point=point.model_dump(mode="json"),
        tokens=1280,
        counts={stage: count(linear_flops=10**9) for stage in (*STAGES, "forward")},
        timings=times,
        memory=None,
        telemetry=None,
        against=against,
    )
