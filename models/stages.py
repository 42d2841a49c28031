"""The stages of a pipeline on random inputs, as calls without arguments that can be timed one by
one.

Shapes: B batch, C channels, T H W latents, L text tokens, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from models import draw
from models.ar.model import AutoregressiveTransformer, decoding_calls
from models.diffusion.spec import ObjectiveConfig, SamplerConfig
from models.pipeline import Condition, VideoPipeline
from models.training import training_step
from models.vae.model import reparameterise
from models.vae.parts import decode_in_parts
from models.vae.tiling import Tiling

GUIDANCE_SCALE = 5.0  # Wan 2.1's (its released pipeline); on random weights any will do
TRAINING = ObjectiveConfig(path="linear", prediction="velocity", times="uniform")


def train_once(denoiser: nn.Module, latents: Tensor, condition: Condition) -> Tensor:
    """One forward and backward; gradients are dropped, as an optimiser would after using them."""
    with torch.inference_mode(False), torch.enable_grad():
        loss = training_step(denoiser, latents, condition, TRAINING)
    denoiser.zero_grad(set_to_none=True)
    return loss


@dataclass(frozen=True)
class StageInputs:
    """Random inputs for one workload, never zeros (all-zero operands run faster than real ones)."""

    latents: Tensor
    """(B, C, T, H, W)."""
    t: Tensor
    """(B,) in [0, 1], float32."""
    condition: Condition
    unconditional: Condition
    text_embeddings: list[Tensor]
    """(B, L, D) for each text encoder."""


def example_inputs(
    pipeline: VideoPipeline,
    *,
    batch: int,
    channels: int,
    latent_shape: tuple[int, int, int],
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
) -> StageInputs:
    """Inputs of the right shapes on `device`; on "meta" nothing is allocated.  A sample is what it
    would be alone: the batch around it changes nothing."""
    generators = [
        None if device.type == "meta" else torch.Generator(device).manual_seed(seed + i)
        for i in range(batch)
    ]

    def randn(*shape: int) -> Tensor:
        one = shape[1:] if shape[0] == batch else shape
        drawn = [draw.normal(*one, generator=g, device=device, dtype=dtype) for g in generators]
        return torch.stack(drawn) if shape[0] == batch else drawn[0]

    return StageInputs(
        latents=randn(batch, channels, *latent_shape),
        t=torch.full((batch,), 0.5, device=device),
        condition=pipeline.denoiser.example_condition(
            latent_shape, batch, randn, unconditional=False
        ),
        unconditional=pipeline.denoiser.example_condition(
            latent_shape, batch, randn, unconditional=True
        ),
        text_embeddings=[
            randn(batch, e.config.tokens, e.config.width) for e in pipeline.text_encoders
        ],
    )


@dataclass(frozen=True, kw_only=True)
class StageRequest:
    """What is asked of a pipeline's stages."""

    frames: int
    height: int
    width: int
    """Of the clip, in pixels."""
    steps: int
    """From noise to data."""
    guided: bool
    """A second, unconditional answer at every step."""
    seed: int
    encoded_frames: int = 0
    """Given frames that condition_encode encodes."""
    control: bool = False
    """It encodes a control video of the clip's length, too."""
    chunk: int | None = None
    """Latent frames that are decoded at a time; None: all."""
    tiling: Tiling | None = None
    train: bool = False
    """Add train_step: one forward and backward on the velocity loss, the optimiser left out."""
    whole: bool = False
    """Add video: text, all steps and the decode in one go, where every part is built."""
    sampler: SamplerConfig | None = None
    """Add trajectory: all its steps from noise to latents."""


def stage_calls(
    pipeline: VideoPipeline, inputs: StageInputs, request: StageRequest
) -> dict[str, Callable[..., object]]:
    """The stages by name: forward, denoise_step, vae_decode, vae_encode, text_encode, and
    condition_encode where frames or a control video are given; video where the whole is asked for.
    Of an auto-regressive model prefill and decode_token in place of denoise_step.

    vae_decode takes other latents of the same shape, too."""
    stages = _Stages(pipeline, inputs, request)
    unconditional = inputs.unconditional if request.guided else None
    calls: dict[str, Callable[..., object]]
    if isinstance(pipeline.denoiser, AutoregressiveTransformer):
        calls = decoding_calls(
            pipeline.denoiser, inputs.latents, inputs.condition, unconditional, request.seed
        )
    else:
        calls = {"forward": stages.forward, "denoise_step": stages.denoise_step}
    calls |= {"vae_decode": stages.vae_decode, "vae_encode": stages.vae_encode}
    if request.sampler is not None:
        calls["trajectory"] = stages.trajectory
    if request.train:
        calls["train_step"] = stages.train_step
    if request.encoded_frames or request.control:
        calls["condition_encode"] = stages.condition_encode
    if pipeline.text_encoders:
        calls["text_encode"] = stages.text_encode
    if request.whole and "denoise_step" in calls:
        calls["video"] = stages.video
    return calls


@dataclass
class _Stages:
    pipeline: VideoPipeline
    inputs: StageInputs
    request: StageRequest
    videos: dict[int, Tensor] = field(default_factory=dict)
    """By length, made at the first call that needs one, since a minute of video is large."""

    @property
    def _unconditional(self) -> Condition | None:
        return self.inputs.unconditional if self.request.guided else None

    def forward(self) -> Tensor:
        return self.pipeline.predict(self.inputs.latents, self.inputs.t, self.inputs.condition)

    def denoise_step(self) -> Tensor:
        cache = self.pipeline.denoiser.cache
        if cache is not None:
            cache.begin(1)  # a step that is computed in full
        return self.pipeline.denoise_step(
            self.inputs.latents,
            self.inputs.t,
            -1.0 / self.request.steps,
            self.inputs.condition,
            self._unconditional,
            GUIDANCE_SCALE,
        )

    def trajectory(self) -> Tensor:
        assert self.request.sampler is not None
        return self.pipeline.trajectory(
            self.inputs.latents,
            self.request.sampler,
            self.inputs.condition,
            self._unconditional,
            GUIDANCE_SCALE,
            self._generator(),
        )

    def train_step(self) -> Tensor:
        return train_once(self.pipeline.denoiser, self.inputs.latents, self.inputs.condition)

    def vae_decode(self, latents: Tensor | None = None) -> Tensor:
        x, request = self.inputs.latents if latents is None else latents, self.request
        vae, ranks = self.pipeline.vae, self.pipeline.decoding
        cut = {"chunk": request.chunk, "tiling": request.tiling}
        if ranks is not None:
            from models.parallel.decode import decode_on_ranks  # torch.distributed takes a second

            return decode_on_ranks(vae, x, request.frames, ranks=ranks, **cut)
        if request.chunk is None:
            return vae.decode(x, request.frames)
        return decode_in_parts(vae, x, request.frames, **cut)

    def vae_encode(self) -> Tensor:
        return reparameterise(*self.pipeline.vae.encode(self._video(self.request.frames)))

    def condition_encode(self) -> list[Tensor]:
        given = [self.request.encoded_frames] if self.request.encoded_frames else []
        control = [self.request.frames] if self.request.control else []
        return [self.pipeline.vae.encode(self._video(length))[0] for length in given + control]

    def text_encode(self) -> list[Tensor]:
        return self.pipeline.encode_text(self.inputs.text_embeddings)

    def video(self) -> Tensor:
        """Text to pixels: each prompt, what is given, all steps, the decode."""
        request, pipeline = self.request, self.pipeline
        for _ in range(2 if request.guided else 1) if pipeline.text_encoders else ():
            self.text_encode()
        if request.encoded_frames or request.control:
            self.condition_encode()
        return self.vae_decode(self.trajectory() if request.sampler else self._steps())

    def _steps(self) -> Tensor:
        """All Euler steps from noise to latents."""
        x, steps = self.inputs.latents, self.request.steps
        denoiser = self.pipeline.denoiser
        for i in range(steps):
            denoiser.at(1.0 - i / steps)
            if denoiser.cache is not None:
                denoiser.cache.begin(1)
            t = torch.full_like(self.inputs.t, 1.0 - i / steps)
            x = self.pipeline.denoise_step(
                x, t, -1.0 / steps, self.inputs.condition, self._unconditional, GUIDANCE_SCALE
            )
        return x

    def _video(self, length: int) -> Tensor:
        if length not in self.videos:
            latents, request = self.inputs.latents, self.request
            self.videos[length] = draw.uniform(
                latents.shape[0],
                3,
                length,
                request.height,
                request.width,
                generator=self._generator(),
                device=latents.device,
                dtype=latents.dtype,
            )
        return self.videos[length]

    def _generator(self) -> torch.Generator | None:
        device = self.inputs.latents.device
        return (
            None
            if device.type == "meta"
            else torch.Generator(device).manual_seed(self.request.seed)
        )
