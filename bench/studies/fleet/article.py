"""The published arithmetic beside ours, factor by factor: 720,000 H100s by three guesses."""

from dataclasses import dataclass

from bench.core.quantity import Provenance
from bench.core.specs.demand import Demand
from bench.studies.fleet.plan import Fleet, Server

MINUTES_PER_HOUR = 5.0
HOURS_PER_DAY = 24.0


@dataclass(frozen=True)
class Article:
    """The published numbers (A15 to A17)."""

    minutes_per_day: float
    """Summed right."""
    printed_minutes_per_day: float
    """As one article prints the sum."""
    utilisation: float
    peak_over_mean: float
    candidates_per_upload: float

    @property
    def headroom(self) -> float:
        """Its three factors together."""
        return self.peak_over_mean * self.candidates_per_upload / self.utilisation

    def gpus(self) -> dict[str, float]:
        """That the article and its corrections give."""
        busy = self.minutes_per_day / (MINUTES_PER_HOUR * HOURS_PER_DAY)
        printed = self.printed_minutes_per_day / (MINUTES_PER_HOUR * HOURS_PER_DAY)
        return {
            "busy all the time, the right sum": busy,
            "with three times 2, as printed": printed * self.headroom,
            "with three times 2, the right sum": busy * self.headroom,
        }


@dataclass(frozen=True)
class Line:
    """A factor of the fleet."""

    what: str
    article: float
    here: float
    why: str
    provenance: Provenance
    """Of ours: claimed where the demand's file says it, with its source or "assumed"."""


def lines(article: Article, demand: Demand, server: Server, planned: Fleet) -> list[Line]:
    """GPUs = minutes a day / (minutes a GPU-hour x 24) x the factors below."""
    gpu_s = sum(c.share * c.service_s.value / c.video_s for c in server.clips) * server.gpus
    peak = planned.busiest_utilisation / planned.utilisation
    spare = 1 / planned.busiest_utilisation
    made = demand.candidates_per_upload.value * demand.retries.value
    return [
        Line(
            "minutes uploaded a day",
            article.minutes_per_day,
            demand.minutes_per_day,
            "the article's numbers, summed right",
            "claimed",
        ),
        Line(
            "minutes of video a GPU-hour",
            MINUTES_PER_HOUR,
            60 / gpu_s,
            "what `predict` says, in the place of the datasheet's rate",
            server.provenance,
        ),
        Line(
            "spare in the busiest hour",
            1 / article.utilisation,
            spare,
            "a large pool needs the square root of its servers, not half of them",
            server.provenance,
        ),
        Line(
            "busiest time over the mean",
            article.peak_over_mean,
            peak,
            f"over the time that a clip takes; the curve: {demand.curve_source}",
            "claimed",
        ),
        Line(
            "clips made for each upload",
            article.candidates_per_upload,
            made,
            "candidates and retries",
            "claimed",
        ),
        Line(
            "GPUs for each that is up",
            1.0,
            1 / demand.availability.value,
            "broken nodes",
            "claimed",
        ),
    ]


def product(rows: list[Line], which: str) -> float:
    """GPUs: the first over the second, times all others."""
    minutes, rate, *factors = (getattr(row, which) for row in rows)
    gpus = minutes / (rate * HOURS_PER_DAY)
    for factor in factors:
        gpus *= factor
    return gpus
