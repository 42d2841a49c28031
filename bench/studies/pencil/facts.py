"""The facts that the rows of the pencil estimate are computed from."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from bench.core.quantity import Quantity
from bench.core.units import SECONDS_PER_HOUR, SECONDS_PER_MINUTE
from bench.studies.pencil.assumptions import Assumptions
from bench.studies.pencil.counts import Corrected, corrected_counts
from bench.studies.pencil.demand import Demand, Headroom
from bench.studies.pencil.training import CalibratedSeconds


@dataclass(frozen=True)
class Facts:
    """The rows are computed from these: the assumptions, the counts, the measurement."""

    a: Assumptions
    demand: Demand
    headroom: Headroom
    seconds: CalibratedSeconds
    minutes: Quantity | None
    """Measured or predicted minutes of video per GPU-hour, guidance off."""
    c: Corrected = field(default_factory=corrected_counts)

    @property
    def images(self) -> float:
        """Seen in the training of DiT-XL/2."""
        return self.a.dit_batch * self.a.dit_training_steps

    @property
    def month_flops(self) -> float:
        """FLOPs that an H100 makes in a month at 100 % of its datasheet."""
        return self.a.h100_flops_per_s * self.a.seconds_per_month

    @property
    def dit_image(self) -> float:
        return self.a.dit_step * self.a.steps

    @property
    def true_dit_image(self) -> float:
        return self.c.dit_step * self.a.steps

    @property
    def true_dit_training(self) -> float:
        return self.a.training_passes * self.c.dit_step * self.images

    @property
    def true_sora_video(self) -> float:
        return self.c.sora_step * self.a.steps

    @cached_property
    def true_sora_training(self) -> tuple[float, float]:
        """Low and high.  Half the samples are one-minute videos, half are images."""
        share = self.a.video_share
        step = share * self.c.sora_step + (1 - share) * self.c.sora_image_step
        sample = self.a.training_passes * step
        return tuple(self.images * k * sample for k in (self.a.data_low, self.a.data_high))

    @property
    def true_minutes(self) -> float:
        """Minutes of video per H100-hour at 100 % of the datasheet, attention in full."""
        a = self.a
        per_hour = a.h100_flops_per_s * SECONDS_PER_HOUR / self.true_sora_video
        return per_hour * a.video_s / SECONDS_PER_MINUTE

    def calibrated(self, of_minutes: Callable[[float], float]) -> Quantity | None:
        """A figure that follows from the measured minutes of video per GPU-hour."""
        if self.minutes is None:
            return None
        ends = sorted((of_minutes(self.minutes.low), of_minutes(self.minutes.high)))
        return Quantity(of_minutes(self.minutes.value), *ends)
