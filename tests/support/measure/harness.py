"""The harness on a fake card: a clock, quick sizes, and a step of a quarter of a second."""

from bench.core.load import load_point
from bench.core.specs.point import Point
from bench.measure.timing.clock import CudaClock
from support.measure.fake_cuda import Event

SIZES = {
    "workload.frames": 5,
    "workload.height": 32,
    "workload.width": 32,
    "workload.steps": 2,
    "denoiser.depth": 2,
}


STAGES = ("denoise_step", "vae_decode", "vae_encode", "text_encode")


class CardClock(CudaClock):
    """The harness's clock, whose limits too go by the card's time."""

    def now(self) -> float:
        return Event.now_ms / 1e3


def point(recipe: str = "eager-bf16", stages: tuple[str, ...] = STAGES, **more: object) -> Point:
    return load_point("tiny", "tiny-video", recipe, {**SIZES, **more}, stages)
