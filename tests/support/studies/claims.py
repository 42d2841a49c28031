"""Evidence for the ledger of claims."""

from types import SimpleNamespace

from bench.core.quantity import Quantity
from bench.studies.claims import ledger as claims_ledger
from bench.studies.claims.verdict import Evidence
from bench.studies.pencil.analytic import rows_from


def ledger(wanted: list[str], evidence: Evidence | None = None) -> claims_ledger.Ledger:
    """Of claims, with the pencil's own rows."""
    return claims_ledger.ledger(wanted, rows_from, evidence)


def evidence(
    gpu: str,
    video_s: float,
    *,
    spread: float = 0.02,
    recipes: tuple[str, ...] = ("eager-bf16-cudnn-chunks",),
    provenance: str = "fitted",
    heldout=True,
) -> Evidence:
    """A card on which the 250 steps of any video take nine tenths of `video_s`, and the rest is
    decode."""

    def estimate(point):
        def q(value):
            return Quantity(value, value / (1 + spread), value * (1 + spread))

        denoise = 0.9 * video_s * point.workload.steps / 250
        total = denoise + 0.1 * video_s
        minutes = Quantity(
            *(
                60 * point.workload.video_s / s
                for s in (total, total * (1 + spread), total / (1 + spread))
            )
        )
        return SimpleNamespace(
            step_s=q(denoise / point.workload.steps),
            video_s=q(total),
            stages={"denoise": q(denoise), "vae_decode": q(0.1 * video_s)},
            minutes_per_gpu_hour=minutes,
            usd_per_minute=Quantity(
                3 / minutes.value, 3 / minutes.high, 3 / minutes.low
            ),  # 3 USD an hour
            provenance=provenance,
            warnings=["a warning"],
            heldout_error={"mean": 0.03, "worst": 0.25} if heldout else None,
        )

    return Evidence(gpu, recipes, estimate)


def one(name: str, e: Evidence | None = None):
    (found,) = ledger([name], e).judged
    return found
