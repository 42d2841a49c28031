"""GPU-seconds of the chain's trainings, from what a calibration measured."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.core.quantity import Quantity
from bench.studies.pencil.assumptions import Assumptions
from bench.studies.pencil.counts import Corrected

if TYPE_CHECKING:  # it brings scipy
    from bench.studies.pencil.measured import MeasuredChain
    from bench.studies.pencil.published import PublishedChain


@dataclass(frozen=True)
class CalibratedSeconds:
    """GPU-seconds of the chain's trainings; None where they were not measured."""

    dit_training: Quantity | None = None
    dit_break_even: Quantity | None = None
    """Images at which inference costs what training did."""
    sora_low: Quantity | None = None
    sora_high: Quantity | None = None
    minutes: Quantity | None = None
    ratio: Quantity | None = None
    """Seconds of a training FLOP over those of a generating FLOP, where it alone is uncertain of a
    break-even: training and generation run at one speed, whatever it is."""
    missing: str | None = None
    """Why the trainings have no seconds, with a calibration."""

    def note(self, text: str, calibrated: str = "") -> str:
        """The row's note, and why it is not calibrated, or what its calibrated value holds for."""
        return "; ".join(
            filter(
                None,
                [
                    text,
                    f"not calibrated: {self.missing}" if self.missing else "",
                    f"calibrated: {calibrated}" if calibrated and self.dit_training else "",
                ],
            )
        )

    def per(self, seconds: Quantity | None, unit_s: float) -> Quantity | None:
        return None if seconds is None else seconds.scaled(1 / unit_s)

    def break_even(self, training: Quantity | None) -> Quantity | None:
        """Minutes of video that take as long as the training: both are made on the same card."""
        if training is None or self.minutes is None:
            return None
        if self.ratio is not None:
            at_one = training.value / self.ratio.value * self.minutes.value / 3600
            return self.ratio.scaled(at_one)
        return training.times(self.minutes).scaled(1 / 3600)


def calibrated_seconds(
    a: Assumptions, c: Corrected, measured: "MeasuredChain | PublishedChain | None"
) -> CalibratedSeconds:
    """Training FLOPs x measured seconds of a forward FLOP x the measured cost of a training FLOP.

    Of Sora's samples the images are taken at the video's rate: they are a thousandth of the
    work."""
    if measured is None:
        return CalibratedSeconds()
    if measured.training is None:
        return CalibratedSeconds(minutes=measured.minutes, missing=measured.training_missing)
    ratio, images = measured.training.ratio, a.dit_batch * a.dit_training_steps
    sample = a.training_passes * (
        a.video_share + (1 - a.video_share) * c.sora_image_step / c.sora_step
    )
    sora = measured.sora_step_s.times(ratio).scaled(images * sample)
    dit = None
    if measured.dit_step_s:
        dit = measured.dit_step_s.times(ratio).scaled(images * a.training_passes)
    return CalibratedSeconds(
        dit_training=dit,
        dit_break_even=dit.ratio(measured.dit_image_s) if dit and measured.dit_image_s else None,
        sora_low=sora.scaled(a.data_low),
        sora_high=sora.scaled(a.data_high),
        minutes=measured.minutes,
        ratio=ratio if measured.one_speed else None,
    )
