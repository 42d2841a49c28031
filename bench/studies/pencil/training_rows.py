"""Rows A1 to A9: DiT-XL/2, and from it to the training of Sora."""

from bench.core.row import Row
from bench.studies.pencil.facts import Facts


def dit_rows(f: Facts) -> list[Row]:
    """The size of DiT-XL/2 and the cost of its training."""
    return [
        Row("A1", "pixels of a 512x512 image", 262_144, 512 * 512, "pixels"),
        Row("A1", "latents of it, 8x down per side", 4096, f.c.latents, "latents"),
        Row(
            "A2",
            "parameters of DiT-XL/2",
            675e6,
            f.a.dit_params,
            "parameters",
            f"counted from the module: {f.c.dit_parameters:,}",
            corrected=f.c.dit_parameters,
        ),
        Row(
            "A2",
            "one step of DiT-XL/2 at 512x512",
            524e9,
            f.c.dit_step / 2,
            "MAC",
            "printed as FLOP, but DiT's table counts multiply-accumulates",
            corrected=f.c.dit_step / 2,
        ),
        Row(
            "A2",
            "the same step in FLOPs, 2 a multiply-accumulate",
            None,
            f.c.dit_step,
            "FLOP",
            corrected=f.c.dit_step,
        ),
        Row(
            "A2",
            "images seen in training",
            768e6,
            f.images,
            "images",
            f"{f.a.imagenet_images / 1e6:.0f} M in ImageNet,"
            f" so {f.images / f.a.imagenet_images:.0f} epochs",
        ),
        Row(
            "A2",
            "training budget of DiT-XL/2",
            1e21,
            f.a.dit_training_flop,
            "FLOP",
            "an input of the chain; 3 passes x step x images is 1.2e21 MAC = 2.4e21 FLOP",
            corrected=f.true_dit_training,
        ),
    ]


def dit_training_rows(f: Facts) -> list[Row]:
    """Time of that training, and when generating costs as much."""
    low, _ = f.a.sora_training_flop
    return [
        Row(
            "A3",
            "training of DiT-XL/2 on one H100",
            12,
            f.a.dit_training_flop / f.a.h100_flops_per_s / 86_400,
            "days",
            f.seconds.note("11.7, rounded up in print", "DiT at batch 1"),
            corrected=f.true_dit_training / f.a.h100_flops_per_s / 86_400,
            calibrated=f.seconds.per(f.seconds.dit_training, 86_400),
        ),
        Row(
            "A3",
            "the same in H100-months",
            0.4,
            f.a.dit_training_flop / f.month_flops,
            "H100-months",
            f.seconds.note("0.39, rounded in print; a month has 30 days"),
            corrected=f.true_dit_training / f.month_flops,
            calibrated=f.seconds.per(f.seconds.dit_training, f.a.seconds_per_month),
        ),
        Row(
            "A3",
            "rate it implies, from A9's 4,211 months",
            989.4e12,
            low / (4211 * f.a.seconds_per_month),
            "FLOP/s",
            "the H100's datasheet rate at 100 % utilisation",
        ),
        Row(
            "A4",
            "one DiT image",
            131e12,
            f.dit_image,
            "FLOP",
            "one article misprints 1.31e12",
            corrected=f.true_dit_image,
        ),
        Row(
            "A5",
            "images at which inference costs what training did",
            7.6e6,
            f.a.dit_training_flop / f.dit_image,
            "images",
            f.seconds.note(
                f"Instagram gets {f.a.instagram_images_per_day / 1e6:.0f} M uploads a day: less"
                " than two hours of them"
            ),
            corrected=f.true_dit_training / f.true_dit_image,
            calibrated=f.seconds.dit_break_even,
        ),
    ]


def sora_training_rows(f: Facts) -> list[Row]:
    """From DiT to Sora: frames, size, training."""
    low, high = f.a.sora_training_flop
    true_low, true_high = f.true_sora_training
    return [
        Row("A6", "frames of a minute of video", 1440, f.a.frames, "frames"),
        Row(
            "A6",
            "latent frames, 8x compressed",
            180,
            f.a.latent_frames,
            "latent frames",
            corrected=f.c.latent_frames,
        ),
        Row(
            "A7",
            "Sora's size over DiT-XL's",
            30,
            f.a.sora_params / f.a.dit_params,
            "ratio",
            "29.6, rounded up in print",
        ),
        Row(
            "A8",
            "training of Sora, low",
            1.1e25,
            low,
            "FLOP",
            "1.08e25, rounded in print; images, half the data, are left out of it",
            corrected=true_low,
        ),
        Row("A8", "training of Sora, high", 2.7e25, high, "FLOP", corrected=true_high),
        Row(
            "A9",
            "training of Sora, low",
            4211,
            low / f.month_flops,
            "H100-months",
            f.seconds.note(""),
            corrected=true_low / f.month_flops,
            calibrated=f.seconds.per(f.seconds.sora_low, f.a.seconds_per_month),
        ),
        Row(
            "A9",
            "training of Sora, high",
            10_528,
            high / f.month_flops,
            "H100-months",
            f.seconds.note(""),
            corrected=true_high / f.month_flops,
            calibrated=f.seconds.per(f.seconds.sora_high, f.a.seconds_per_month),
        ),
    ]
