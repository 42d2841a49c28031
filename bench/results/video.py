"""Seconds, minutes, dollars and kWh of a whole video, from the seconds of its stages.

    video_s = steps * step_s + vae_decode_s + prompts * text_encode_s + condition_encode_s

with two prompts under guidance (the empty one too), else one; condition_encode where frames or a
control video are given.
"""

from collections.abc import Container, Iterable, Mapping

from bench.core.quantity import Quantity
from bench.core.specs.gpu import Price
from bench.core.specs.workload import Workload
from bench.core.units import SECONDS_PER_HOUR, SECONDS_PER_MINUTE
from bench.results.readings import Timing

MEASURED = ("ok", "unstable")
"""Outcomes with timings: a robust fit bears a noisy point better than the loss of one."""
JOULES_PER_KWH = 3.6e6


def calls_per_video(workload: Workload, stages: Container[str]) -> dict[str, int]:
    """Calls of each stage for one batch of videos.  stages: those that the point has."""
    calls = {"denoise_step": workload.steps, "vae_decode": 1}
    if "condition_encode" in stages:
        calls["condition_encode"] = 1
    if "text_encode" in stages:
        calls["text_encode"] = workload.forwards_per_step  # the prompt, and under guidance ""
    return calls


def calls_with_trajectory(workload: Workload, stages: Iterable[str]) -> dict[str, int]:
    """The same for a point whose steps are timed as one trajectory, of those stages alone."""
    once = dict.fromkeys(("trajectory", "vae_decode", "condition_encode"), 1)
    calls = once | {"text_encode": workload.forwards_per_step}
    return {stage: calls[stage] for stage in stages if stage in calls}


def stage_seconds(
    calls: Mapping[str, int], timings: Mapping[str, Timing]
) -> dict[str, Quantity] | None:
    """Seconds of one batch of videos, by stage; None where a stage was not timed."""
    if not calls.keys() <= timings.keys():
        return None
    return {stage: _seconds(timings[stage]).scaled(n) for stage, n in calls.items()}


def video_seconds(calls: Mapping[str, int], timings: Mapping[str, Timing]) -> Quantity | None:
    """Seconds of one batch of videos; None where a stage was not timed."""
    stages = stage_seconds(calls, timings)
    return None if stages is None else Quantity.sum(stages.values())


def _seconds(timing: Timing) -> Quantity:
    """Takes anything that has the fields of a Timing: the explore page reads those alone."""
    return Quantity(timing.median_s, timing.low_s, timing.high_s)


def minutes_per_gpu_hour(workload: Workload, seconds_per_batch: float) -> float:
    """Minutes of video an hour makes, when one batch takes so many seconds."""
    return workload.video_s / SECONDS_PER_MINUTE * SECONDS_PER_HOUR / seconds_per_batch


def minutes_from(workload: Workload, batch_s: Quantity) -> Quantity:
    """Minutes of video an hour makes, from the seconds of one batch."""
    return batch_s.inverse(minutes_per_gpu_hour(workload, 1.0))


def usd_per_minute(minutes: Quantity | None, price: Price | None) -> Quantity | None:
    """Dollars a minute of video, at the middle of the price range; the ends take the range's ends
    too.  None where either is unknown."""
    if minutes is None or price is None:
        return None
    return Quantity(
        (price.low + price.high) / 2 / minutes.value,
        price.low / minutes.high,
        price.high / minutes.low,
    )


def video_joules(calls: Mapping[str, int], joules: Mapping[str, float]) -> float | None:
    """Energy of one batch of videos; None where a stage has no reading.

    joules: of one call of each stage."""
    if not calls.keys() <= joules.keys():
        return None
    return sum(n * joules[stage] for stage, n in calls.items())


def kwh_per_minute(batch_joules: Quantity, video_s: float) -> Quantity:
    """kWh a minute of video, from the energy of a batch that holds so many seconds of video."""
    return batch_joules.scaled(1 / JOULES_PER_KWH / (video_s / SECONDS_PER_MINUTE))
