"""Rows of the chain, and an estimate of its minute."""

from bench.calibrate.predict import Estimate
from bench.core.quantity import Quantity
from bench.studies.pencil.analytic import chain
from bench.studies.pencil.assumptions import Assumptions
from bench.studies.pencil.demand import Demand, Headroom

ROWS = chain(Assumptions(), Demand(), Headroom())


def row(id_: str, part: str):
    return min(
        (r for r in ROWS if r.id == id_ and part in r.quantity), key=lambda r: len(r.quantity)
    )


def quantity(value):
    return Quantity(value, 0.9 * value, 1.2 * value)


def an_estimate(denoise=18_000.0, decode=900.0, text=3.0):
    """Of the chain's minute: by class 60 + 6 + 6 seconds a step."""
    video = denoise + decode + text
    return Estimate(
        gpu="h100-sxm",
        step_s=quantity(denoise / 250),
        video_s=quantity(video),
        stages={
            "denoise": quantity(denoise),
            "vae_decode": quantity(decode),
            "text_encode": quantity(text),
        },
        step_s_by_class={
            "linear": denoise / 250 / 12,
            "attention": denoise / 250 * 10 / 12,
            "conv": 0.0,
            "memory": denoise / 250 / 24,
            "kernel": denoise / 250 / 24,
        },
        minutes_per_gpu_hour=Quantity(3600 / video, 3600 / video / 1.2, 3600 / video / 0.9),
        usd_per_minute=None,
        kwh_per_minute=None,
        fits_memory=True,
        provenance="extrapolated",
        warnings=["a warning"],
        heldout_error=None,
    )
