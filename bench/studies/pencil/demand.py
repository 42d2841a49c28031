"""The number of GPUs that a demand takes (rows A15 to A17), as torch-free arithmetic with named
factors."""

from dataclasses import dataclass

HOURS_PER_DAY = 24


@dataclass(frozen=True)
class Demand:
    """Minutes of video uploaded a day, and the share assumed to be generated.  As the analysis
    prints them."""

    tiktok_videos_per_day: float = 34e6
    tiktok_video_s: float = 30.0
    tiktok_share: float = 0.50
    youtube_minutes_per_day: float = 43e6
    youtube_share: float = 0.15

    @property
    def tiktok_minutes_per_day(self) -> float:
        return self.tiktok_videos_per_day * self.tiktok_video_s / 60

    @property
    def tiktok_generated(self) -> float:
        return self.tiktok_minutes_per_day * self.tiktok_share

    @property
    def youtube_generated(self) -> float:
        return self.youtube_minutes_per_day * self.youtube_share

    @property
    def minutes_per_day(self) -> float:
        """The right sum; one article prints 10.7 M."""
        return self.tiktok_generated + self.youtube_generated


@dataclass(frozen=True)
class Headroom:
    """Factors from a fleet that is always busy to one that serves."""

    utilisation: float = 0.5
    peak_over_mean: float = 2.0
    candidates_per_upload: float = 2.0

    @property
    def factor(self) -> float:
        return self.peak_over_mean * self.candidates_per_upload / self.utilisation


def fleet(minutes_per_day: float, minutes_per_gpu_hour: float, factor: float = 1.0) -> float:
    """GPUs that make so many minutes of video a day."""
    return minutes_per_day / (minutes_per_gpu_hour * HOURS_PER_DAY) * factor
