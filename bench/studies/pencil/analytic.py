"""The pencil estimate, rows A1 to A17: as printed, as computed from its own assumptions, and with
the arithmetic corrected.

Sources: the Factorial Funds analysis of Sora (2024) as retold in two Chinese articles, a panel's
notes, two press pieces. Torch-free: counts come from the closed form, which the tests hold against
the traced counts. A row agrees with what is printed when it is within 1.5 % or rounds to the
printed digits.
"""

from dataclasses import dataclass
from math import floor, log10
from typing import TYPE_CHECKING, Any

from bench.calibrate.training import over, times
from bench.core.load import load
from bench.core.specs.model import Model
from bench.core.specs.workload import Workload
from bench.count.closed import ar as closed_autoregressive
from bench.count.closed import dit as closed_form
from bench.studies.pencil.demand import Demand, Headroom, fleet

if TYPE_CHECKING:
    from bench.studies.pencil.measured import MeasuredChain

TOLERANCE = 0.015


@dataclass(frozen=True)
class Assumptions:
    """Everything the chain puts in by hand.  Units in the names."""

    h100_flops_per_s: float = 989.4e12  # bf16 dense datasheet rate, taken at 100 %
    seconds_per_month: float = 30 * 86_400.0  # implied: 1.08e25 over 4,211 months
    dit_params: float = 675e6
    dit_step: float = 524e9  # printed as FLOP; DiT's table counts multiply-accumulates
    steps: int = 250
    dit_training_flop: float = 1e21
    dit_batch: int = 256
    dit_training_steps: float = 3e6
    sora_params: float = 20e9
    params_ratio: float = 30.0  # 29.6, rounded
    video_s: int = 60
    fps: int = 24
    temporal_compression: int = 8
    sora_video_printed: float = 708e15  # 707.4e15 rounded: the printed 5.03 minutes come from it
    data_low: float = 4.0
    data_high: float = 10.0
    video_share: float = 0.5  # of training data; images are then not counted at all
    llama_params: float = 70e9
    gpt4_active_params: float = 2 * 220e9  # two experts
    document_tokens: int = 1000
    instagram_images_per_day: float = 95e6
    imagenet_images: float = 14e6
    minutes_per_h100_hour_rounded: float = 5.0
    demand_printed: float = 10.7e6
    meta_h100: float = 650e3
    training_passes: float = 3.0  # forward and backward: once and twice the forward's products

    @property
    def frames(self) -> int:
        return self.video_s * self.fps

    @property
    def latent_frames(self) -> float:
        return self.frames / self.temporal_compression

    @property
    def sora_step(self) -> float:
        return self.dit_step * self.params_ratio * self.latent_frames

    @property
    def sora_video(self) -> float:
        return self.sora_step * self.steps

    @property
    def minutes_per_h100_hour(self) -> float:
        """A11, with the unrounded FLOP of a video."""
        return self.h100_flops_per_s * 3600 / self.sora_video * self.video_s / 60

    @property
    def sora_training_flop(self) -> tuple[float, float]:
        scale = self.dit_training_flop * self.params_ratio * self.latent_frames * self.video_share
        return scale * self.data_low, scale * self.data_high


@dataclass(frozen=True)
class Row:
    """One quantity of the chain."""

    id: str
    quantity: str
    printed: float | None
    """As the source prints it; None for what it does not print."""
    computed: float | None
    """From the chain's own assumptions."""
    corrected: float | None
    """With the arithmetic put right (2 FLOPs a MAC, real attention, right sums), still at 100 % of
    the datasheet."""
    calibrated: dict[str, float] | None
    """From measurement, with its interval; None without a calibration or where time plays no
    part."""
    unit: str
    note: str

    @property
    def agreement(self) -> str | None:
        """How the computed value agrees with the printed one."""
        if self.printed is None or self.computed is None:
            return None
        off = self.computed / self.printed - 1
        if abs(off) <= TOLERANCE:
            return f"{off:+.2%}" if abs(off) >= 5e-5 else "equal"
        if any(abs(_round(self.computed, digits) / self.printed - 1) < 1e-9 for digits in (1, 2)):
            return f"{off:+.1%}: rounds to what is printed"
        return f"{off:+.1%}: differs"

    def as_dict(self) -> dict[str, Any]:
        return {
            **vars(self),
            "calibrated_interval": self.calibrated,
            "agreement": self.agreement,
            "provenance": (
                "extrapolated"
                if self.calibrated
                else "claimed"
                if self.computed is None
                else "counted"
            ),
        }


@dataclass(frozen=True)
class Corrected:
    """What the closed forms of the presets give, 1 MAC = 2 FLOPs."""

    dit_step: int
    """DiT-XL/2 on one 512x512 image."""
    sora: dict[str, int]
    """sora-20b's forward on sora-1min-512, by class."""
    sora_image_step: int
    """sora-20b's forward on one 512x512 image."""
    latent_frames: int
    latents: int
    """Of a 512x512 image."""

    @property
    def sora_step(self) -> int:
        return sum(self.sora.values())


def corrected_counts() -> Corrected:
    dit, sora = load(Model, "dit-xl-2"), load(Model, "sora-20b")
    image, minute = load(Workload, "image-512"), load(Workload, "sora-1min-512")
    t, h, w = dit.latent_shape(image)

    def step(model: Model, workload: Workload) -> dict[str, int]:
        return closed_form.dit_forward(model.denoiser, model.latent_shape(workload), workload.batch)

    return Corrected(
        dit_step=sum(step(dit, image).values()),
        sora=step(sora, minute),
        sora_image_step=sum(step(sora, image).values()),
        latent_frames=sora.latent_shape(minute)[0],
        latents=t * h * w,
    )


def chain(
    a: Assumptions,
    demand: Demand,
    headroom: Headroom,
    calibrated_minutes: dict[str, float] | None = None,
    measured: "MeasuredChain | None" = None,
) -> list[Row]:
    """All rows.  calibrated_minutes: {value, low, high} of minutes of video per GPU-hour, guidance
    off; measured: those and the seconds of the other rows."""
    c = corrected_counts()
    if measured is not None:
        calibrated_minutes = measured.minutes
    seconds = calibrated_seconds(a, c, measured)
    rows: list[Row] = []

    def row(
        id_: str,
        quantity: str,
        printed: float | None,
        computed: float | None,
        unit: str,
        note: str = "",
        *,
        corrected: float | None = None,
        calibrated: dict[str, float] | None = None,
    ) -> None:
        rows.append(Row(id_, quantity, printed, computed, corrected, calibrated, unit, note))

    images = a.dit_batch * a.dit_training_steps
    dit_training = a.training_passes * c.dit_step * images
    month = a.h100_flops_per_s * a.seconds_per_month
    dit_image = a.dit_step * a.steps
    low, high = a.sora_training_flop
    # Half the samples are one-minute videos, half are images.
    sora_sample = a.training_passes * (
        a.video_share * c.sora_step + (1 - a.video_share) * c.sora_image_step
    )
    true_low, true_high = (images * k * sora_sample for k in (a.data_low, a.data_high))
    true_minutes = a.h100_flops_per_s * 3600 / (c.sora_step * a.steps) * a.video_s / 60

    row("A1", "pixels of a 512x512 image", 262_144, 512 * 512, "pixels")
    row("A1", "latents of it, 8x down per side", 4096, c.latents, "latents")
    row(
        "A2",
        "parameters of DiT-XL/2",
        675e6,
        a.dit_params,
        "parameters",
        "counted from the module: 674,834,720",
        corrected=674_834_720,
    )
    row(
        "A2",
        "one step of DiT-XL/2 at 512x512",
        524e9,
        c.dit_step / 2,
        "MAC",
        "printed as FLOP, but DiT's table counts multiply-accumulates",
        corrected=c.dit_step / 2,
    )
    row(
        "A2",
        "the same step in FLOPs, 2 a multiply-accumulate",
        None,
        c.dit_step,
        "FLOP",
        corrected=c.dit_step,
    )
    row(
        "A2",
        "images seen in training",
        768e6,
        images,
        "images",
        f"{a.imagenet_images / 1e6:.0f} M in ImageNet, so {images / a.imagenet_images:.0f} epochs",
    )
    row(
        "A2",
        "training budget of DiT-XL/2",
        1e21,
        a.dit_training_flop,
        "FLOP",
        "an input of the chain; 3 passes x step x images is 1.2e21 MAC = 2.4e21 FLOP",
        corrected=dit_training,
    )
    row(
        "A3",
        "training of DiT-XL/2 on one H100",
        12,
        a.dit_training_flop / a.h100_flops_per_s / 86_400,
        "days",
        seconds.note("11.7, rounded up in print", "DiT at batch 1"),
        corrected=dit_training / a.h100_flops_per_s / 86_400,
        calibrated=seconds.per(seconds.dit_training, 86_400),
    )
    row(
        "A3",
        "the same in H100-months",
        0.4,
        a.dit_training_flop / month,
        "H100-months",
        seconds.note("0.39, rounded in print; a month has 30 days"),
        corrected=dit_training / month,
        calibrated=seconds.per(seconds.dit_training, a.seconds_per_month),
    )
    row(
        "A3",
        "rate it implies, from A9's 4,211 months",
        989.4e12,
        low / (4211 * a.seconds_per_month),
        "FLOP/s",
        "the H100's datasheet rate at 100 % utilisation",
    )
    row(
        "A4",
        "one DiT image",
        131e12,
        dit_image,
        "FLOP",
        "one article misprints 1.31e12",
        corrected=c.dit_step * a.steps,
    )
    row(
        "A5",
        "images at which inference costs what training did",
        7.6e6,
        a.dit_training_flop / dit_image,
        "images",
        seconds.note(
            f"Instagram gets {a.instagram_images_per_day / 1e6:.0f} M uploads a day: less than two"
            " hours of them"
        ),
        corrected=dit_training / (c.dit_step * a.steps),
        calibrated=seconds.dit_break_even,
    )
    row("A6", "frames of a minute of video", 1440, a.frames, "frames")
    row(
        "A6",
        "latent frames, 8x compressed",
        180,
        a.latent_frames,
        "latent frames",
        corrected=c.latent_frames,
    )
    row(
        "A7",
        "Sora's size over DiT-XL's",
        30,
        a.sora_params / a.dit_params,
        "ratio",
        "29.6, rounded up in print",
    )
    row(
        "A8",
        "training of Sora, low",
        1.1e25,
        low,
        "FLOP",
        "1.08e25, rounded in print; images, half the data, are left out of it",
        corrected=true_low,
    )
    row("A8", "training of Sora, high", 2.7e25, high, "FLOP", corrected=true_high)
    row(
        "A9",
        "training of Sora, low",
        4211,
        low / month,
        "H100-months",
        seconds.note(""),
        corrected=true_low / month,
        calibrated=seconds.per(seconds.sora_low, a.seconds_per_month),
    )
    row(
        "A9",
        "training of Sora, high",
        10_528,
        high / month,
        "H100-months",
        seconds.note(""),
        corrected=true_high / month,
        calibrated=seconds.per(seconds.sora_high, a.seconds_per_month),
    )
    row(
        "A10",
        "one step of a one-minute Sora video",
        2.8e15,
        a.sora_step,
        "FLOP",
        "linear in frames; attention over 184,320 tokens is quadratic",
        corrected=c.sora_step,
    )
    row(
        "A10",
        "a one-minute Sora video",
        708e15,
        a.sora_video,
        "FLOP",
        "707.4e15, rounded up in print; one article misprints 7.08e15",
        corrected=c.sora_step * a.steps,
    )
    row(
        "A11",
        "video per H100-hour",
        5.03,
        a.minutes_per_h100_hour,
        "minutes of video per H100-hour",
        "printed as about 5; 5.03 from the rounded 708e15",
        corrected=true_minutes,
        calibrated=calibrated_minutes,
    )
    per_minute = a.sora_video / (a.video_s / 60)
    true_per_minute = c.sora_step * a.steps / (a.video_s / 60)
    row(
        "A12",
        "minutes at which inference costs what training did, low",
        15.3e6,
        low / per_minute,
        "minutes of video",
        seconds.note(""),
        corrected=true_low / true_per_minute,
        calibrated=seconds.break_even(seconds.sora_low),
    )
    row(
        "A12",
        "minutes at which inference costs what training did, high",
        38.1e6,
        high / per_minute,
        "minutes of video",
        seconds.note("38.17, cut off in print"),
        corrected=true_high / true_per_minute,
        calibrated=seconds.break_even(seconds.sora_high),
    )
    llama, gpt4 = (2 * p * a.document_tokens for p in (a.llama_params, a.gpt4_active_params))
    row(
        "A13",
        "Sora, one minute of video",
        708e15,
        a.sora_video,
        "FLOP",
        corrected=c.sora_step * a.steps,
    )
    row(
        "A13",
        "DiT-XL/2, one 512x512 image",
        131e12,
        dit_image,
        "FLOP",
        corrected=c.dit_step * a.steps,
    )
    row(
        "A13",
        "Llama 2 70B, 1,000 tokens",
        140e12,
        llama,
        "FLOP",
        "2 x parameters x tokens: this one does count 2 FLOPs a MAC",
        corrected=llama,
    )
    row(
        "A13",
        "GPT-4, 1,000 tokens",
        None,
        gpt4,
        "FLOP",
        "two experts of 220 B active; drawn on a log scale, not printed",
        corrected=gpt4,
    )
    tokens = token_by_token_flops()
    row(
        "A13",
        "VideoPoet-like 8 B, the same minute token by token",
        None,
        tokens,
        "FLOP",
        "our row: few FLOPs, each with its own bytes; the cross-model table has the time",
        corrected=tokens,
    )
    row(
        "A14",
        "a DiT image over a Llama 2 70B document",
        131 / 140,
        dit_image / llama,
        "ratio",
        "unlike units: MAC over FLOP; about 1.9 once both count FLOPs",
        corrected=c.dit_step * a.steps / llama,
    )
    row(
        "A14",
        "a Sora minute over a GPT-4 document",
        None,
        a.sora_video / gpt4,
        "ratio",
        "printed as orders of magnitude",
        corrected=c.sora_step * a.steps / gpt4,
    )
    _demand_rows(row, a, demand, headroom, true_minutes, calibrated_minutes)
    return rows


def token_by_token_flops() -> int:
    """FLOPs of the minute's latents made by videopoet-8b, prefills included."""
    model = load(Model, "videopoet-8b")
    return closed_autoregressive.video_flops(
        model.denoiser, model.latent_shape(load(Workload, "sora-1min-512")), 1
    )


@dataclass(frozen=True)
class CalibratedSeconds:
    """GPU-seconds of the chain's trainings, {value, low, high}; None where they were not
    measured."""

    dit_training: dict[str, float] | None = None
    dit_break_even: dict[str, float] | None = None
    """Images at which inference costs what training did."""
    sora_low: dict[str, float] | None = None
    sora_high: dict[str, float] | None = None
    minutes: dict[str, float] | None = None
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

    def per(self, seconds: dict[str, float] | None, unit_s: float) -> dict[str, float] | None:
        return None if seconds is None else times(seconds, 1 / unit_s)

    def break_even(self, training: dict[str, float] | None) -> dict[str, float] | None:
        """Minutes of video that take as long as the training: both are made on the same card."""
        return (
            None
            if training is None or self.minutes is None
            else times(training, self.minutes, 1 / 3600)
        )


def calibrated_seconds(
    a: Assumptions, c: Corrected, measured: "MeasuredChain | None"
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
    sora = times(measured.sora_step_s, ratio, images * sample)
    dit = (
        times(measured.dit_step_s, ratio, images * a.training_passes)
        if measured.dit_step_s
        else None
    )
    return CalibratedSeconds(
        dit_training=dit,
        dit_break_even=over(dit, measured.dit_image_s) if dit and measured.dit_image_s else None,
        sora_low=times(sora, a.data_low),
        sora_high=times(sora, a.data_high),
        minutes=measured.minutes,
    )


def _demand_rows(
    row: Any,
    a: Assumptions,
    demand: Demand,
    headroom: Headroom,
    true_minutes: float,
    calibrated: dict[str, float] | None,
) -> None:
    pencil = a.minutes_per_h100_hour_rounded

    def scaled(f: Any) -> dict[str, float] | None:
        if calibrated is None:
            return None
        ends = sorted((f(calibrated["low"]), f(calibrated["high"])))
        return {"value": f(calibrated["value"]), "low": ends[0], "high": ends[1]}

    row(
        "A15",
        "uploads to TikTok",
        17e6,
        demand.tiktok_minutes_per_day,
        "minutes per day",
        "34 M videos of 30 s",
    )
    row("A15", "of them generated, 50 %", 8.5e6, demand.tiktok_generated, "minutes per day")
    row("A15", "uploads to YouTube", 43e6, demand.youtube_minutes_per_day, "minutes per day")
    row("A15", "of them generated, 15 %", 6.45e6, demand.youtube_generated, "minutes per day")
    row(
        "A15",
        "one H100 makes",
        120,
        pencil * 24,
        "minutes per day",
        corrected=true_minutes * 24,
        calibrated=scaled(lambda m: m * 24),
    )
    right, printed = demand.minutes_per_day, a.demand_printed
    row(
        "A16",
        "generated minutes, right sum (one article)",
        14.95e6,
        right,
        "minutes per day",
        corrected=right,
    )
    row(
        "A16",
        "generated minutes, as the other article sums",
        10.7e6,
        demand.tiktok_generated + 0.05 * demand.youtube_minutes_per_day,
        "minutes per day",
        "a wrong sum: 8.5 + 6.45 is 14.95; computed here with a YouTube share of 5 %, our guess at"
        " the slip",
        corrected=right,
    )
    row(
        "A16",
        "fleet always busy, right sum",
        124.6e3,
        fleet(right, pencil),
        "H100s",
        corrected=fleet(right, true_minutes),
        calibrated=scaled(lambda m: fleet(right, m)),
    )
    row(
        "A16",
        "fleet always busy, the 10.7 M",
        89e3,
        fleet(printed, pencil),
        "H100s",
        "from the wrong sum",
        corrected=fleet(right, true_minutes),
        calibrated=scaled(lambda m: fleet(right, m)),
    )
    note = "x2 for 50 % utilisation, x2 for the peak, x2 candidates per upload"
    row(
        "A16",
        "fleet that serves, the 10.7 M",
        720e3,
        fleet(printed, pencil, headroom.factor),
        "H100s",
        f"{note}; 713 k, rounded up in print; from the wrong sum",
        corrected=fleet(right, true_minutes, headroom.factor),
        calibrated=scaled(lambda m: fleet(right, m, headroom.factor)),
    )
    row(
        "A16",
        "fleet that serves, right sum",
        None,
        fleet(right, pencil, headroom.factor),
        "H100s",
        f"{note}; nobody prints it: 997 k, beside the 720 k",
        corrected=fleet(right, true_minutes, headroom.factor),
        calibrated=scaled(lambda m: fleet(right, m, headroom.factor)),
    )
    row(
        "A17",
        "H100-equivalents Meta said it would own",
        650e3,
        a.meta_h100,
        "H100s",
        "an input, to compare with",
    )
    row(
        "A17",
        "the fleet over Meta's",
        720 / 650,
        fleet(printed, pencil, headroom.factor) / a.meta_h100,
        "ratio",
        corrected=fleet(right, true_minutes, headroom.factor) / a.meta_h100,
        calibrated=scaled(lambda m: fleet(right, m, headroom.factor) / a.meta_h100),
    )


def _round(value: float, digits: int) -> float:
    """To significant digits, half up as people round."""
    unit = 10.0 ** (floor(log10(abs(value))) - digits + 1)
    return floor(value / unit + 0.5) * unit
