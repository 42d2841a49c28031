"""It learns: a VAE and a DiT trained on one real clip, sampled and decoded, on a CPU.  See
docs/learning.md.

    python docs/learn.py --out DIR [--vae-steps N] [--dit-steps N] [--seed N] [--threads N]

Writes learned.png (frames of original, reconstruction, samples), learned.gif (the same, moving) and
learned.json (settings, PSNR before and after, seconds).  Shapes: B batch, C channels, F frames, T H
W latents.
"""

import argparse
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from learned_pictures import save_gif, save_strip
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from models.diffusion.samplers import sample
from models.dit.model import SpatioTemporalDiT
from models.spec import DiTConfig, ObjectiveConfig, SamplerConfig, VAEConfig
from models.training import init_training_weights, psnr, training_step, vae_training_step
from models.vae.model import VideoVAE

CLIP = Path(__file__).with_name("clip.png")
CLIP_FRAMES, CLIP_FPS = 17, 12.5

VAE = VAEConfig(
    in_channels=3,
    latent_channels=8,
    channels=(16, 32, 64),
    res_blocks=1,
    temporal_factor=4,
    temporal_kernel=3,
    causal=True,
    first_frame_alone=True,
)
# Positions are added, not rotary: at t = 1 there is noise alone, and only a token that knows its
# own place can learn the
# clip.  Rotary positions tell differences.
DIT = DiTConfig(
    in_channels=8,
    out_channels=8,
    patch_size=(1, 4, 4),
    width=256,
    depth=4,
    num_heads=8,
    mlp_ratio=4.0,
    num_classes=0,
    text="none",
    text_width=0,
    text_tokens=0,
    single_blocks=0,
    modulation="per_block",
    qk_norm="none",
    positions="sincos",
    rope_axes=None,
    attention="full",
    window=None,
    window_tiles=None,
    masked_condition=False,
    control_blocks=0,
)
OBJECTIVE = ObjectiveConfig(path="linear", prediction="velocity", times="uniform")
SAMPLERS = {
    name: SamplerConfig(
        sampler=name,
        steps=steps,
        path="linear",
        prediction="velocity",
        diffusion=None,
        diffusion_norm=None,
        last_step=None,
        eta=None,
    )
    for name, steps in (("euler", 40), ("heun", 20))  # the same number of forwards
}


@dataclass(frozen=True)
class Training:
    """One optimisation: Adam with warm-up and cosine decay, gradients clipped to norm 1."""

    steps: int
    learning_rate: float
    batch: int


@dataclass(frozen=True)
class Learned:
    """What a run made."""

    original: Tensor
    """(1, 3, F, H, W) in [-1, 1], as are the others."""
    reconstructed: Tensor
    sampled: dict[str, Tensor]
    """By sampler."""
    psnr_untrained: float
    """Of the VAE's reconstruction before training, in dB."""
    psnr_reconstructed: float
    psnr_sampled: dict[str, float]
    vae_losses: list[float]
    dit_losses: list[float]


def load_clip() -> Tensor:
    """The clip, its frames one below the other in a PNG.  -> (1, 3, F, H, W) in [-1, 1]."""
    pixels = np.asarray(Image.open(CLIP).convert("RGB"))
    frames = torch.from_numpy(pixels.reshape(CLIP_FRAMES, -1, *pixels.shape[1:]).copy())
    return (frames.permute(3, 0, 1, 2)[None].float() / 127.5 - 1).contiguous()


def optimise(
    model: nn.Module, training: Training, step, describe: str, progress: Progress
) -> list[float]:
    """Call step(model) -> loss, which leaves gradients, training.steps times; -> the losses."""
    optimiser = torch.optim.Adam(model.parameters(), training.learning_rate, betas=(0.9, 0.95))
    warm_up = max(training.steps // 20, 1)

    def rate(i: int) -> float:
        return min((i + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * i / training.steps))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    task, losses = progress.add_task(describe, total=training.steps, loss="-"), []
    for _ in range(training.steps):
        optimiser.zero_grad()
        losses.append(step(model).item())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        progress.update(task, advance=1, loss=f"{losses[-1]:.4f}")
    return losses


def train_vae(
    vae: VideoVAE,
    clip: Tensor,
    training: Training,
    crop: tuple[int, int, int],
    generator: torch.Generator,
    progress: Progress,
) -> list[float]:
    """Train on random crops (frames, height, width) of the clip, cut where latent cells begin."""
    steps = (vae.config.temporal_factor, vae.config.spatial_factor, vae.config.spatial_factor)

    def random_crop() -> Tensor:
        spans = []
        for size, part, step in zip(clip.shape[2:], crop, steps, strict=True):
            start = (
                step * torch.randint((size - part) // step + 1, (1,), generator=generator).item()
            )
            spans.append(slice(start, start + part))
        return clip[:, :, *spans]

    def step(model: VideoVAE) -> Tensor:
        # More than one crop: for a batch of one PyTorch's CPU path may take slow_conv3d, several
        # times slower.
        return vae_training_step(
            model, torch.cat([random_crop() for _ in range(training.batch)]), 1e-6, generator
        )

    return optimise(vae, training, step, "VAE", progress)


def train_dit(
    dit: SpatioTemporalDiT,
    latents: Tensor,
    training: Training,
    generator: torch.Generator,
    progress: Progress,
) -> list[float]:
    """Train on the one clip's latents (1, C, T, H, W), at training.batch times and noises a
    step."""
    x0 = latents.expand(training.batch, -1, -1, -1, -1)
    return optimise(
        dit,
        training,
        lambda model: training_step(model, x0, {}, OBJECTIVE, generator),
        "DiT",
        progress,
    )


def learn(
    clip: Tensor,
    vae_config: VAEConfig,
    dit_config: DiTConfig,
    vae_training: Training,
    dit_training: Training,
    crop: tuple[int, int, int],
    seed: int,
    progress: Progress,
) -> Learned:
    """Train both on clip (1, 3, F, H, W), then reconstruct it and sample it from noise."""
    generator, frames = torch.Generator().manual_seed(seed), clip.shape[2]
    vae, dit = VideoVAE(vae_config), SpatioTemporalDiT(dit_config)
    init_training_weights(vae, seed)
    init_training_weights(dit, seed + 1)

    def reconstruct() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            mean, _ = vae.encode(clip)
            return mean, vae.decode(mean, frames)

    psnr_untrained = psnr(reconstruct()[1], clip)
    vae_losses = train_vae(vae, clip, vae_training, crop, generator, progress)
    latents, reconstructed = reconstruct()

    # The DiT works on latents of mean 0 and deviation 1 by channel, as latent diffusion scales its
    # own.
    shift, scale = (
        latents.mean(dim=(2, 3, 4), keepdim=True),
        latents.std(dim=(2, 3, 4), keepdim=True),
    )
    dit_losses = train_dit(dit, (latents - shift) / scale, dit_training, generator, progress)
    sampled = {}
    for name, config in SAMPLERS.items():
        noise = torch.randn(
            latents.shape, generator=torch.Generator().manual_seed(seed + 2)
        )  # none it was trained on
        with torch.no_grad():
            sampled[name] = vae.decode(sample(dit, noise, config) * scale + shift, frames)
    return Learned(
        clip,
        reconstructed,
        sampled,
        psnr_untrained,
        psnr(reconstructed, clip),
        {name: psnr(video, clip) for name, video in sampled.items()},
        vae_losses,
        dit_losses,
    )


def rows(learned: Learned) -> dict[str, tuple[Tensor, str]]:
    """Video and caption of each row of the pictures."""
    return {
        "original": (learned.original, "original"),
        "reconstructed": (learned.reconstructed, f"VAE {learned.psnr_reconstructed:.1f} dB"),
        **{
            name: (
                video,
                (
                    f"sampled, {name} {SAMPLERS[name].steps} steps,"
                    f" {learned.psnr_sampled[name]:.1f} dB"
                ),
            )
            for name, video in learned.sampled.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="directory for the pictures")
    parser.add_argument("--vae-steps", type=int, default=800)
    parser.add_argument("--dit-steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    # One thread: these layers are small, and OpenMP's spinning threads make a busy machine many
    # times slower.
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    vae_training = Training(steps=arguments.vae_steps, learning_rate=3e-3, batch=4)
    dit_training = Training(steps=arguments.dit_steps, learning_rate=1.5e-3, batch=4)
    wall, cpu = time.perf_counter(), time.process_time()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]}"),
    )
    with Progress(*columns) as progress:
        learned = learn(
            load_clip(), VAE, DIT, vae_training, dit_training, (9, 32, 32), arguments.seed, progress
        )
    seconds = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}

    arguments.out.mkdir(parents=True, exist_ok=True)
    save_strip(list(rows(learned).values()), arguments.out / "learned.png")
    moving = [learned.original, learned.reconstructed, learned.sampled["heun"]]
    save_gif(moving, CLIP_FPS, arguments.out / "learned.gif")
    result = {
        "psnr_untrained_db": learned.psnr_untrained,
        "psnr_reconstructed_db": learned.psnr_reconstructed,
        "psnr_sampled_db": learned.psnr_sampled,
        "vae_loss_last": learned.vae_losses[-1],
        "dit_loss_first": learned.dit_losses[0],
        "dit_loss_last": learned.dit_losses[-1],
        **seconds,
        "threads": arguments.threads,
        "seed": arguments.seed,
        "vae_training": asdict(vae_training),
        "dit_training": asdict(dit_training),
    }
    (arguments.out / "learned.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
