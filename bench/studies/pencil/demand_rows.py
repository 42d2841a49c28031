"""Rows A15 to A17: the demand, and the fleet that would serve it."""

from bench.core.row import Row
from bench.studies.pencil.demand import fleet
from bench.studies.pencil.facts import Facts


def upload_rows(f: Facts) -> list[Row]:
    """Daily uploads, and the share of them that would be generated."""
    pencil = f.a.minutes_per_h100_hour_rounded
    return [
        Row(
            "A15",
            "uploads to TikTok",
            17e6,
            f.demand.tiktok_minutes_per_day,
            "minutes per day",
            "34 M videos of 30 s",
        ),
        Row("A15", "of them generated, 50 %", 8.5e6, f.demand.tiktok_generated, "minutes per day"),
        Row("A15", "uploads to YouTube", 43e6, f.demand.youtube_minutes_per_day, "minutes per day"),
        Row(
            "A15", "of them generated, 15 %", 6.45e6, f.demand.youtube_generated, "minutes per day"
        ),
        Row(
            "A15",
            "one H100 makes",
            120,
            pencil * 24,
            "minutes per day",
            corrected=f.true_minutes * 24,
            calibrated=f.calibrated(lambda m: m * 24),
        ),
    ]


def generated_rows(f: Facts) -> list[Row]:
    """Minutes that would be generated a day, as each article sums them."""
    right = f.demand.minutes_per_day
    return [
        Row(
            "A16",
            "generated minutes, right sum (one article)",
            14.95e6,
            right,
            "minutes per day",
            corrected=right,
        ),
        Row(
            "A16",
            "generated minutes, as the other article sums",
            10.7e6,
            f.demand.tiktok_generated + 0.05 * f.demand.youtube_minutes_per_day,
            "minutes per day",
            "a wrong sum: 8.5 + 6.45 is 14.95; computed here with a YouTube share of 5 %, our guess"
            " at the slip",
            corrected=right,
        ),
    ]


def busy_fleet_rows(f: Facts) -> list[Row]:
    """The GPUs that would make them without a pause."""
    pencil = f.a.minutes_per_h100_hour_rounded
    right, printed = f.demand.minutes_per_day, f.a.demand_printed
    return [
        Row(
            "A16",
            "fleet always busy, right sum",
            124.6e3,
            fleet(right, pencil),
            "H100s",
            corrected=fleet(right, f.true_minutes),
            calibrated=f.calibrated(lambda m: fleet(right, m)),
        ),
        Row(
            "A16",
            "fleet always busy, the 10.7 M",
            89e3,
            fleet(printed, pencil),
            "H100s",
            "from the wrong sum",
            corrected=fleet(right, f.true_minutes),
            calibrated=f.calibrated(lambda m: fleet(right, m)),
        ),
    ]


def serving_fleet_rows(f: Facts) -> list[Row]:
    """The GPUs that would serve them: half used, at the peak, two candidates for each upload."""
    pencil, factor = f.a.minutes_per_h100_hour_rounded, f.headroom.factor
    right, printed = f.demand.minutes_per_day, f.a.demand_printed
    note = "x2 for 50 % utilisation, x2 for the peak, x2 candidates per upload"
    return [
        Row(
            "A16",
            "fleet that serves, the 10.7 M",
            720e3,
            fleet(printed, pencil, factor),
            "H100s",
            f"{note}; 713 k, rounded up in print; from the wrong sum",
            corrected=fleet(right, f.true_minutes, factor),
            calibrated=f.calibrated(lambda m: fleet(right, m, factor)),
        ),
        Row(
            "A16",
            "fleet that serves, right sum",
            None,
            fleet(right, pencil, factor),
            "H100s",
            f"{note}; nobody prints it: 997 k, beside the 720 k",
            corrected=fleet(right, f.true_minutes, factor),
            calibrated=f.calibrated(lambda m: fleet(right, m, factor)),
        ),
    ]


def meta_rows(f: Facts) -> list[Row]:
    """That fleet beside what one company said it would own."""
    pencil, factor = f.a.minutes_per_h100_hour_rounded, f.headroom.factor
    right, printed = f.demand.minutes_per_day, f.a.demand_printed
    return [
        Row(
            "A17",
            "H100-equivalents Meta said it would own",
            650e3,
            f.a.meta_h100,
            "H100s",
            "an input, to compare with",
        ),
        Row(
            "A17",
            "the fleet over Meta's",
            720 / 650,
            fleet(printed, pencil, factor) / f.a.meta_h100,
            "ratio",
            corrected=fleet(right, f.true_minutes, factor) / f.a.meta_h100,
            calibrated=f.calibrated(lambda m: fleet(right, m, factor) / f.a.meta_h100),
        ),
    ]
