"""What others published of a card, in the place of the datasheet at 100 %: the chain's minute as
their runs would make it."""

from dataclasses import dataclass

from bench.calibrate.evidence.conditions import Conditions
from bench.calibrate.evidence.forecast import Forecast, forecast
from bench.calibrate.training import TrainingCost
from bench.core.load import load_point
from bench.core.quantity import Quantity
from bench.core.reference import MODEL, WORKLOAD
from bench.core.specs.model import Model
from bench.core.specs.workload import Workload

RECIPE = "eager-bf16"  # its dtype alone matters: the two ways of running are given
TRAINING = Quantity(1.2, 1.0, 1.5)
"""Seconds of a training FLOP over those of a generating FLOP: assumed.  A backward's products run
as fast as a forward's, and FlashAttention's backward at about 0.7 of its forward (arXiv
2307.08691)."""


@dataclass(frozen=True)
class PublishedChain:
    """The chain's minute by published evidence, run in the two ways that differ most."""

    gpu: str
    flash2: Forecast
    """FlashAttention-2, nothing compiled: as most published rows."""
    fast: Forecast
    """FlashAttention-3 or cuDNN, compiled: the best that is published."""
    training: TrainingCost
    one_speed: bool = True
    """Training is taken at the speed of generation, whatever that is: see CalibratedSeconds."""
    training_missing: str | None = None
    dit_step_s: Quantity | None = None
    """None: published rows are of videos, and an image at batch 1 is bound by launches."""
    dit_image_s: Quantity | None = None

    @property
    def minutes(self) -> Quantity:
        """Minutes of video per GPU-hour with fast attention; from the lowest of either way of
        running to the highest."""
        fast, slow = self.fast.minutes_per_gpu_hour, self.flash2.minutes_per_gpu_hour
        return Quantity(fast.value, slow.low, fast.high, provenance="extrapolated")

    @property
    def sora_step_s(self) -> Quantity:
        """A step of the same minute."""
        fast, slow = self.fast.step_s, self.flash2.step_s
        return Quantity(fast.value, fast.low, slow.high, provenance="extrapolated")

    @property
    def warnings(self) -> list[str]:
        return list(dict.fromkeys([*self.flash2.warnings, *self.fast.warnings]))


def published_chain(gpu: str, of: tuple[Model, Workload] | None = None) -> PublishedChain:
    """of: another model and video than the published estimate's, which are counted then (imports
    torch).  Raises UserError for a card without evidence."""
    point = load_point(MODEL, WORKLOAD, RECIPE)
    if of is not None:
        point = point.model_copy(update={"model": of[0], "workload": of[1]})
    return PublishedChain(
        gpu=gpu,
        flash2=forecast(point, gpu, Conditions()),
        fast=forecast(point, gpu, Conditions(fast_attention=True, compiled=True)),
        training=TrainingCost(TRAINING, ()),
    )
