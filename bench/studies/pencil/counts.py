"""Counts of the chain's models in closed form, 1 multiply-accumulate = 2 FLOPs.  Torch-free."""

from dataclasses import dataclass

from bench.core.load import load
from bench.core.specs.model import Model
from bench.core.specs.workload import Workload
from bench.count.closed import ar as closed_autoregressive
from bench.count.closed import dit as closed_form


@dataclass(frozen=True)
class Corrected:
    """FLOPs of the presets."""

    dit_step: int
    """DiT-XL/2 on one 512x512 image."""
    sora: dict[str, int]
    """The video model's forward on its video, by class: sora-20b on sora-1min-512."""
    sora_image_step: int
    """sora-20b's forward on one 512x512 image."""
    latent_frames: int
    latents: int
    """Number of latents of a 512x512 image."""
    dit_parameters: int

    @property
    def sora_step(self) -> int:
        return sum(self.sora.values())


def corrected_counts(model: Model | None = None, video: Workload | None = None) -> Corrected:
    """model, video: counted in the place of sora-20b and its minute."""
    dit, sora = load(Model, "dit-xl-2"), model or load(Model, "sora-20b")
    image, minute = load(Workload, "image-512"), video or load(Workload, "sora-1min-512")
    t, h, w = dit.latent_shape(image)

    def step(model: Model, workload: Workload) -> dict[str, int]:
        return closed_form.dit_forward(model.denoiser, model.latent_shape(workload), workload.batch)

    return Corrected(
        dit_step=sum(step(dit, image).values()),
        sora=step(sora, minute),
        sora_image_step=sum(step(sora, image).values()),
        latent_frames=sora.latent_shape(minute)[0],
        latents=t * h * w,
        dit_parameters=closed_form.dit_parameters(dit.denoiser),
    )


def token_by_token_flops(video: Workload | None = None) -> int:
    """FLOPs of the minute's latents (or of another video's) made by videopoet-8b, prefills
    included."""
    model = load(Model, "videopoet-8b")
    return closed_autoregressive.video_flops(
        model.denoiser, model.latent_shape(video or load(Workload, "sora-1min-512")), 1
    )
