"""The pencil estimate, rows A1 to A17: as printed, as computed from its own assumptions, and with
the arithmetic corrected.

Sources: the Factorial Funds analysis of Sora (2024) as retold in two Chinese articles, a panel's
notes, two press pieces.  Torch-free: counts come from the closed form, which the tests hold against
the traced counts.  A row agrees with what is printed when it is within 1.5 % or rounds to the
printed digits.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from bench.core.quantity import Quantity
from bench.core.row import Row
from bench.core.units import SECONDS_PER_MINUTE
from bench.studies.pencil.assumptions import Assumptions
from bench.studies.pencil.counts import Corrected, corrected_counts, token_by_token_flops
from bench.studies.pencil.demand import Demand, Headroom
from bench.studies.pencil.demand_rows import (
    busy_fleet_rows,
    generated_rows,
    meta_rows,
    serving_fleet_rows,
    upload_rows,
)
from bench.studies.pencil.facts import Facts
from bench.studies.pencil.scenario import Scenario
from bench.studies.pencil.training import calibrated_seconds
from bench.studies.pencil.training_rows import dit_rows, dit_training_rows, sora_training_rows

if TYPE_CHECKING:  # it brings scipy
    from bench.studies.pencil.measured import MeasuredChain
    from bench.studies.pencil.published import PublishedChain


def chain(
    a: Assumptions,
    demand: Demand,
    headroom: Headroom,
    calibrated_minutes: Quantity | None = None,
    measured: "MeasuredChain | PublishedChain | None" = None,
    corrected: Corrected | None = None,
) -> list[Row]:
    """All rows.  corrected: counts of another model and video than the published ones.

    calibrated_minutes: of video per GPU-hour, guidance off; measured: those and the seconds of the
    other rows, by a calibration or by published evidence."""
    counts = corrected or corrected_counts()
    seconds = calibrated_seconds(a, counts, measured)
    minutes = measured.minutes if measured is not None else calibrated_minutes
    facts = Facts(a, demand, headroom, seconds, minutes, counts)
    groups = (
        dit_rows,
        dit_training_rows,
        sora_training_rows,
        _sora_video_rows,
        _unit_rows,
        _ratio_rows,
        upload_rows,
        generated_rows,
        busy_fleet_rows,
        serving_fleet_rows,
        meta_rows,
    )
    return [row for group in groups for row in group(facts)]


def rows_from(calibrated_minutes: Quantity | None = None) -> list[Row]:
    """All rows at the assumptions that were published."""
    return chain(Assumptions(), Demand(), Headroom(), calibrated_minutes)


def scenario_rows(
    s: Scenario, measured: "MeasuredChain | PublishedChain | None" = None
) -> list[Row]:
    """All rows under a scenario.  What was printed is of the published assumptions, and is left out
    under others."""
    corrected = corrected_counts(s.model, s.workload)
    rows = chain(s.a, s.demand, s.headroom, measured=measured, corrected=corrected)
    if s.is_published:
        return rows
    length = f"{s.a.video_s} s"
    return [
        replace(row, printed=None, note="", quantity=_of_length(row.quantity, length))
        for row in rows
    ]


def _of_length(quantity: str, length: str) -> str:
    """A row's words for a video of another length."""
    for words, others in (
        ("one-minute Sora video", f"Sora video of {length}"),
        ("one minute of video", f"a video of {length}"),
        ("the same minute", "the same video"),
        ("a minute of video", f"a video of {length}"),
        ("a Sora minute", f"a Sora video of {length}"),
    ):
        quantity = quantity.replace(words, others)
    return quantity


def published_rows(gpu: str) -> tuple[list[Row], Quantity, list[str]]:
    """All rows by a card's published evidence, its minutes of video per GPU-hour, and warnings.
    Raises UserError for a card without evidence."""
    from bench.studies.pencil.published import published_chain

    found = published_chain(gpu)
    rows = chain(Assumptions(), Demand(), Headroom(), measured=found)
    return rows, found.minutes, found.warnings


def _sora_video_rows(f: Facts) -> list[Row]:
    """A minute of video, and how many a GPU-hour makes."""
    low, high = f.a.sora_training_flop
    true_low, true_high = f.true_sora_training
    per_minute = f.a.sora_video / (f.a.video_s / SECONDS_PER_MINUTE)
    true_per_minute = f.true_sora_video / (f.a.video_s / SECONDS_PER_MINUTE)
    return [
        Row(
            "A10",
            "one step of a one-minute Sora video",
            2.8e15,
            f.a.sora_step,
            "FLOP",
            "linear in frames; attention over 184,320 tokens is quadratic",
            corrected=f.c.sora_step,
        ),
        Row(
            "A10",
            "a one-minute Sora video",
            708e15,
            f.a.sora_video,
            "FLOP",
            "707.4e15, rounded up in print; one article misprints 7.08e15",
            corrected=f.true_sora_video,
        ),
        Row(
            "A11",
            "video per H100-hour",
            5.03,
            f.a.minutes_per_h100_hour,
            "minutes of video per H100-hour",
            "printed as about 5; 5.03 from the rounded 708e15",
            corrected=f.true_minutes,
            calibrated=f.minutes,
        ),
        Row(
            "A12",
            "minutes at which inference costs what training did, low",
            15.3e6,
            low / per_minute,
            "minutes of video",
            f.seconds.note(""),
            corrected=true_low / true_per_minute,
            calibrated=f.seconds.break_even(f.seconds.sora_low),
        ),
        Row(
            "A12",
            "minutes at which inference costs what training did, high",
            38.1e6,
            high / per_minute,
            "minutes of video",
            f.seconds.note("38.17, cut off in print"),
            corrected=true_high / true_per_minute,
            calibrated=f.seconds.break_even(f.seconds.sora_high),
        ),
    ]


def _unit_rows(f: Facts) -> list[Row]:
    """One unit of output across models."""
    llama, gpt4 = _document_flops(f.a)
    tokens = token_by_token_flops()
    return [
        Row(
            "A13",
            "Sora, one minute of video",
            708e15,
            f.a.sora_video,
            "FLOP",
            corrected=f.true_sora_video,
        ),
        Row(
            "A13",
            "DiT-XL/2, one 512x512 image",
            131e12,
            f.dit_image,
            "FLOP",
            corrected=f.true_dit_image,
        ),
        Row(
            "A13",
            "Llama 2 70B, 1,000 tokens",
            140e12,
            llama,
            "FLOP",
            "2 x parameters x tokens: this one does count 2 FLOPs a MAC",
            corrected=llama,
        ),
        Row(
            "A13",
            "GPT-4, 1,000 tokens",
            None,
            gpt4,
            "FLOP",
            "two experts of 220 B active; drawn on a log scale, not printed",
            corrected=gpt4,
        ),
        Row(
            "A13",
            "VideoPoet-like 8 B, the same minute token by token",
            None,
            tokens,
            "FLOP",
            "our row: few FLOPs, each with its own bytes; the cross-model table has the time",
            corrected=tokens,
        ),
    ]


def _ratio_rows(f: Facts) -> list[Row]:
    """The ratios that the article concludes from these."""
    llama, gpt4 = _document_flops(f.a)
    return [
        Row(
            "A14",
            "a DiT image over a Llama 2 70B document",
            131 / 140,
            f.dit_image / llama,
            "ratio",
            "unlike units: MAC over FLOP; about 1.9 once both count FLOPs",
            corrected=f.true_dit_image / llama,
        ),
        Row(
            "A14",
            "a Sora minute over a GPT-4 document",
            None,
            f.a.sora_video / gpt4,
            "ratio",
            "printed as orders of magnitude",
            corrected=f.true_sora_video / gpt4,
        ),
    ]


def _document_flops(a: Assumptions) -> tuple[float, float]:
    """FLOPs of 1,000 tokens by Llama 2 70B and by GPT-4."""
    return tuple(2 * p * a.document_tokens for p in (a.llama_params, a.gpt4_active_params))
