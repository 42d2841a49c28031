"""The factors that move the answer most.  Each is varied alone, within its measured interval or a
stated range.

Two answers: minutes of video per GPU-hour, and the fleet of row A16 that serves the demand.
Without a calibration the base is the corrected chain, at 100 % of the datasheet and without VAE or
text encoder.  A range that was measured or fitted says so; one that nobody published is `chosen`,
by this project, and is there to be disagreed with.

A result's own headline has no demand: there the minutes alone are varied (`headline_swings`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log
from typing import TYPE_CHECKING, Any

from bench.core.load import load
from bench.core.quantity import Quantity
from bench.core.reference import MODEL, WORKLOAD
from bench.core.specs.model import Model
from bench.core.specs.workload import Workload
from bench.core.units import seconds
from bench.count.closed import dit as closed_form
from bench.results.video import minutes_per_gpu_hour
from bench.studies.pencil.assumptions import Assumptions
from bench.studies.pencil.counts import corrected_counts
from bench.studies.pencil.demand import Demand, Headroom, fleet
from bench.studies.pencil.waterfall import class_seconds

if TYPE_CHECKING:
    from bench.calibrate.calibration import Fit
    from bench.calibrate.predict import Estimate

# Stated ranges.  (low, high, where from)
UTILISATION = (
    0.3,
    0.9,
    'stated: 0.9 is the panel\'s "90 % compute density", 0.3 what is common at few tokens (chosen)',
)
STEPS_FEW = 50
PEAK, CANDIDATES, BUSY = (1.5, 3.0, "chosen"), (1.0, 4.0, "chosen"), (0.4, 0.8, "chosen")
TIKTOK_SHARE = (0.25, 0.75, "chosen")
YOUTUBE_SHARE = (
    0.05,
    0.30,
    "stated: 5 % makes one article's 10.7 M; twice the printed 15 % (chosen)",
)


@dataclass(frozen=True)
class Base:
    """Seconds of one minute of video, guidance off.  Provenance of each range beside it."""

    linear_s: float
    attention_s: float
    rest_s: float
    """Norms, elementwise work, launches."""
    decode_s: float
    text_s: float
    steps: int
    linear_range: tuple[float, float, str]
    """Multipliers of linear_s, and where from."""
    attention_range: tuple[float, float, str]
    decode_range: tuple[float, float, str]
    """Seconds."""

    def minutes(
        self,
        *,
        linear: float = 1.0,
        attention: float = 1.0,
        forwards: int = 1,
        steps: int | None = None,
        decode_s: float | None = None,
    ) -> float:
        """Minutes of video per GPU-hour with some of it changed."""
        denoise = (linear * self.linear_s + attention * self.attention_s + self.rest_s) * forwards
        denoise *= 1.0 if steps is None else steps / self.steps
        return 3600 / (
            denoise + (self.decode_s if decode_s is None else decode_s) + forwards * self.text_s
        )


def pencil_base(a: Assumptions) -> Base:
    """The corrected chain: counted work at 100 % of the datasheet."""
    c, model = corrected_counts(), load(Model, MODEL)
    decode = closed_form.vae_decode(model.vae, model.latent_shape(load(Workload, WORKLOAD)), 1)
    slower = (1 / UTILISATION[1], 1 / UTILISATION[0], UTILISATION[2])
    return Base(
        linear_s=c.sora["linear"] * a.steps / a.h100_flops_per_s,
        rest_s=0.0,
        text_s=0.0,
        steps=a.steps,
        decode_s=0.0,
        attention_s=c.sora["attention"] * a.steps / a.h100_flops_per_s,
        linear_range=slower,
        attention_range=slower,
        decode_range=(
            0.0,
            sum(decode.values()) / a.h100_flops_per_s,
            "counted: none, or its FLOPs at 100 %",
        ),
    )


def calibrated_base(a: Assumptions, estimate: "Estimate", fit: "Fit") -> Base:
    """The seconds that the calibration predicts for the chain's minute."""
    classes, decode = class_seconds(estimate, a.steps), estimate.stages["vae_decode"]
    text = estimate.stages.get("text_encode")
    return Base(
        linear_s=classes["linear"],
        attention_s=classes["attention"],
        rest_s=classes["rest"],
        decode_s=decode.value,
        text_s=text.value if text else 0.0,
        steps=a.steps,
        linear_range=_class_range("linear", estimate, fit),
        attention_range=_class_range("attention", estimate, fit),
        decode_range=(decode.low, decode.high, f"{estimate.provenance}, 90 %"),
    )


def _class_range(kind: str, estimate: "Estimate", fit: "Fit") -> tuple[float, float, str]:
    """Multipliers of a class's seconds: its efficiency's interval, or the step's where it has no
    parameter of its own."""
    for name, p in fit.parameters.items():
        if name.endswith("_efficiency") and kind in name and None not in (p.value, p.low, p.high):
            return p.value / p.high, p.value / p.low, f"fitted, 90 % ({name})"
    step = estimate.step_s
    return (
        step.low / step.value,
        step.high / step.value,
        f"{estimate.provenance}, 90 % of the whole step",
    )


@dataclass(frozen=True)
class Swing:
    """One factor varied alone."""

    factor: str
    settings: tuple[str, str]
    """In words; the answers below stand in the same order."""
    minutes: tuple[float, float]
    """Of video per GPU-hour."""
    fleet: tuple[float, float] | None
    """GPUs that serve the demand; None where none is asked for."""
    source: str

    @property
    def fold(self) -> float:
        """Largest fleet over smallest; of minutes where there is no fleet."""
        ends = self.fleet or self.minutes
        return max(ends) / min(ends)

    def as_dict(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "settings": list(self.settings),
            "fold": self.fold,
            "source": self.source,
            "minutes_per_gpu_hour": {
                "low": min(self.minutes),
                "high": max(self.minutes),
                "settings": list(self.minutes),
            },
            "fleet": self.fleet
            and {
                "low": min(self.fleet),
                "high": max(self.fleet),
                "settings": list(self.fleet),
            },
        }


def sensitivity(base: Base, demand: Demand, headroom: Headroom) -> list[Swing]:
    """All factors, the one that moves the fleet most first."""
    swings = [
        *_swings_of_minutes(base, demand, headroom),
        *_swings_of_demand(base.minutes(), demand, headroom),
    ]
    return sorted(swings, key=lambda s: -log(s.fold))


def _swings_of_minutes(base: Base, demand: Demand, headroom: Headroom) -> list[Swing]:
    """Factors that change how many minutes of video an hour makes."""

    def swing(
        factor: str, settings: tuple[str, str], source: str, minutes: tuple[float, float]
    ) -> Swing:
        fleets = tuple(fleet(demand.minutes_per_day, m, headroom.factor) for m in minutes)
        return Swing(factor, settings, minutes, fleets, source)

    def twice(varied: str, ends: tuple[float, float]) -> tuple[float, float]:
        return tuple(base.minutes(**{varied: end}) for end in ends)

    swings = []
    for factor, varied, (low, high, source) in (
        ("utilisation of the linear layers", "linear", base.linear_range),
        ("utilisation of attention", "attention", base.attention_range),
    ):
        settings = (f"{low:.2f} x its seconds", f"{high:.2f} x")
        swings.append(swing(factor, settings, source, twice(varied, (low, high))))
    low, high, source = base.decode_range
    settings = (seconds(low), seconds(high))
    swings.append(swing("VAE decode", settings, source, twice("decode_s", (low, high))))
    swings.append(
        swing("guidance", ("off", "on"), "counted: two forwards", twice("forwards", (1, 2)))
    )
    steps = (base.steps, STEPS_FEW)
    source = "stated: the pencil's, and what samplers since need (chosen)"
    swings.append(swing("steps", (str(steps[0]), str(steps[1])), source, twice("steps", steps)))
    for kind in ("windowed", "factorised"):
        linear, attention = _attention_shares(kind)
        minutes = base.minutes(), base.minutes(linear=linear, attention=attention)
        source = f"counted from {MODEL}-{kind}, at full attention's rate"
        swings.append(swing(f"attention {kind}", ("full", kind), source, minutes))
    return swings


STAGE_WORDS = {"denoise_step": "denoising", "denoise": "denoising", "vae_decode": "VAE decode"}


def headline_swings(workload: Workload, stages: Mapping[str, Quantity], said: str) -> list[Swing]:
    """What moves the minutes of one video, the factor that moves them most first.

    stages: seconds of one batch of it, by stage, with their intervals; said: where those are
    from."""
    total = Quantity.sum(stages.values()).value

    def swing(
        factor: str, settings: tuple[str, str], source: str, ends: tuple[float, float]
    ) -> Swing:
        minutes = tuple(minutes_per_gpu_hour(workload, s) for s in ends)
        return Swing(factor, settings, minutes, None, source)

    swings = []
    for stage, q in stages.items():
        words = f"seconds of {STAGE_WORDS.get(stage, stage.replace('_', ' '))}"
        ends = total - q.value + q.low, total - q.value + q.high
        swings.append(swing(words, (seconds(q.low), seconds(q.high)), said, ends))
    denoise = sum(q.value for stage, q in stages.items() if STAGE_WORDS.get(stage) == "denoising")
    n = workload.steps
    if n > 1:
        settings = (str(n), str(n // 2))
        ends = total, total - denoise * (1 - n // 2 / n)
        swings.append(swing("steps", settings, "stated: half as many (chosen)", ends))
    once = 1 / workload.forwards_per_step
    text = stages["text_encode"].value if "text_encode" in stages else 0.0
    without = total - (denoise + text) * (1 - once)
    other = total + denoise + text if once == 1 else total
    swings.append(swing("guidance", ("off", "on"), "counted: two forwards", (without, other)))
    return sorted(swings, key=lambda s: -log(s.fold))


def _swings_of_demand(minutes: float, demand: Demand, headroom: Headroom) -> list[Swing]:
    """Factors that change how much is asked for, and how well a fleet is used."""
    swings = []
    for factor, field, (low, high, source), shown in (
        ("share of TikTok that is generated", "tiktok_share", TIKTOK_SHARE, ".0%"),
        ("share of YouTube that is generated", "youtube_share", YOUTUBE_SHARE, ".0%"),
        ("share of the day that the fleet is busy", "utilisation", BUSY, ".0%"),
        ("peak over mean", "peak_over_mean", PEAK, "g"),
        ("candidates per upload", "candidates_per_upload", CANDIDATES, "g"),
    ):
        fleets = []
        for end in (low, high):
            of_demand = hasattr(demand, field)
            asked = replace(demand, **{field: end}) if of_demand else demand
            room = headroom if of_demand else replace(headroom, **{field: end})
            fleets.append(fleet(asked.minutes_per_day, minutes, room.factor))
        settings = (format(low, shown), format(high, shown))
        swings.append(Swing(factor, settings, (minutes, minutes), tuple(fleets), source))
    return swings


def _attention_shares(kind: str) -> tuple[float, float]:
    """FLOPs of (linear, attention) with another kind of attention, over those with full."""
    full = corrected_counts().sora
    model, minute = load(Model, f"{MODEL}-{kind}"), load(Workload, WORKLOAD)
    other = closed_form.dit_forward(model.denoiser, model.latent_shape(minute), 1)
    return other["linear"] / full["linear"], other["attention"] / full["attention"]
