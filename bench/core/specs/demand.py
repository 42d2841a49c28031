"""A demand for video: minutes a day by platform, when they are asked for, which clips, how soon."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bench.core.quantity import Quantity
from bench.core.specs.base import MAX_SECONDS, Spec, positive

HOURS, DAYS = 24, 7
Share = Annotated[float, Field(strict=True, ge=0.0, le=1.0)]
Ratio = Annotated[float, Field(strict=True, ge=0.0, le=1000.0)]


class Part(BaseModel):
    """A piece of a demand."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Uncertain(Part):
    """A number, its range and where it comes from."""

    value: positive(1e12)
    low: positive(1e12)
    high: positive(1e12)
    source: str
    """Where it was published; or "assumed"."""

    @model_validator(mode="after")
    def _in_range(self) -> "Uncertain":
        if not self.low <= self.value <= self.high:
            raise ValueError(f"value {self.value:g} is not from low {self.low:g} to {self.high:g}")
        return self

    @property
    def quantity(self) -> Quantity:
        return Quantity(self.value, self.low, self.high)


class Platform(Part):
    """Where videos are uploaded."""

    name: str
    minutes_per_day: Uncertain
    generated: Uncertain
    """Share of them that a model makes."""

    @model_validator(mode="after")
    def _a_share(self) -> "Platform":
        if self.generated.high > 1:
            raise ValueError(f"generated.high {self.generated.high:g} is over 1")
        return self


class Clip(Part):
    """A kind of clip."""

    workload: str
    """A name in configs/workloads, or a YAML file."""
    share: Annotated[float, Field(strict=True, gt=0.0, le=1.0)]
    """Of the minutes."""


class Objective(Part):
    """How soon a clip must be there."""

    share: Annotated[float, Field(strict=True, gt=0.0, lt=1.0)]
    """Of the clips."""
    starts_within_s: positive(MAX_SECONDS)
    """From the request to the first step."""
    done_within_s: positive(MAX_SECONDS) | None = None
    """From the request to the finished clip; null: whenever it is."""


class Demand(Spec):
    """What a fleet is asked for."""

    platforms: Annotated[tuple[Platform, ...], Field(min_length=1, max_length=32)]
    candidates_per_upload: Uncertain
    """Clips made for each that is uploaded."""
    retries: Uncertain
    """Clips made, over clips that come out: 1.02 where 2 % fail and are made again."""
    availability: Uncertain
    """Share of the GPUs that are up."""
    hours: Annotated[tuple[Ratio, ...], Field(min_length=HOURS, max_length=HOURS)]
    """Demand by hour of the day, in any unit."""
    days: Annotated[tuple[Ratio, ...], Field(min_length=DAYS, max_length=DAYS)]
    """Demand by day of the week, in any unit."""
    curve_source: str
    clips: Annotated[tuple[Clip, ...], Field(min_length=1, max_length=16)]
    objective: Objective

    @model_validator(mode="after")
    def _adds_up(self) -> "Demand":
        total = sum(clip.share for clip in self.clips)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"clips: their shares sum up to {total:g}, not to 1")
        if self.availability.high > 1:
            raise ValueError(f"availability.high {self.availability.high:g} is over 1")
        for name in ("hours", "days"):
            if not sum(getattr(self, name)):
                raise ValueError(f"{name}: all are 0")
        return self

    @property
    def minutes_per_day(self) -> float:
        """Generated minutes that are uploaded."""
        return sum(p.minutes_per_day.value * p.generated.value for p in self.platforms)

    @property
    def curve(self) -> list[float]:
        """Demand of each hour of a week over its mean, 168 numbers."""
        hour_mean, day_mean = sum(self.hours) / HOURS, sum(self.days) / DAYS
        return [h / hour_mean * d / day_mean for d in self.days for h in self.hours]
