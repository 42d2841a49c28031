"""A recipe: how a model is executed.  It changes speed and rounding, or says what it
approximates."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

from bench.core.specs.base import Spec, whole
from bench.core.specs.model import Model, with_denoiser
from bench.core.specs.workload import Workload
from models.caching.schedules import CacheConfig, DraftConfig
from models.parallel.spec import Parallel
from models.spec import SamplerConfig
from models.vae.tiling import Tiling

Dtype = Literal["fp32", "tf32", "bf16", "fp16"]
DTYPE_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}


class Draft(BaseModel):
    """A smaller denoiser, own and of the same latents, that takes a share of a trajectory's steps
    (models.diffusion.draft)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    denoiser: dict[str, Any]
    """Fields of the denoiser's config in which the small one differs, e.g. {depth: 2}."""
    schedule: DraftConfig


class Recipe(Spec):
    """How a model is executed.  What stands after `vae_tile` leaves everything as it was where a
    recipe does not say it, the fingerprint included; each may stand beside any other (what cannot
    is an error, or skipped with its reason)."""

    dtype: Dtype
    """Of weights and activations; tf32: float32 with TensorFloat-32 products."""
    attention: Literal[
        "auto", "flash", "cudnn", "efficient", "math", "flash3", "sage", "fp8-flash3", "fastest"
    ]
    """auto: PyTorch's choice.  On Hopper and B200 that is cuDNN from PyTorch 2.10 on where it was
    built with a cuDNN over 9.15 (the wheels of 2.11 for CUDA 13 are), else FlashAttention-2; a
    record's attention_ran has what ran. flash, cudnn, efficient, math: SDPA held to that backend.
    flash3: FlashAttention-3 in the place of 2. sage: SageAttention, int8 scores.  fp8-flash3:
    FlashAttention-3 on fp8 operands, a scale for each head. fastest: of those that compute in
    dtype, the one under which this denoiser's own blocks run fastest, timed while the point is
    built."""
    vae_chunk: whole(1_000_000) | None = None
    """Decode so many latent frames at a time; null: the clip in one piece.  Own VAEs."""
    vae_tile: Tiling | None = None
    """Decode in overlapping tiles of latent cells; needs vae_chunk."""
    quantise: Literal["none", "fp8", "int8-weight", "int8-dynamic", "ternary"] = "none"
    """Linear layers of the blocks (torchao).  fp8, int8-dynamic: weights by row and activations by
    token, products in that format; int8-weight: weights alone.  ternary: weights rounded to -1, 0,
    1 times a scale (BitNet b1.58, arXiv 2402.17764) and computed in dtype: its output is measured,
    its speed-up is counted alone."""
    sparsity: Literal["none", "2:4"] = "none"
    """Of every four weights of the blocks' linear layers the two largest are kept (arXiv
    2104.08378)."""
    compile: Literal["none", "regional", "full", "autotune"] = "none"
    """torch.compile of the denoiser: each block, the whole, or the whole with max-autotune and CUDA
    graphs."""
    guidance: Literal["sequential", "batched", "packed", "distilled"] = "sequential"
    """How a guided step runs: two forwards, one of twice the batch, one of two packed requests, or
    one forward of a model that has learned the guided answer (arXiv 2210.03142), here with the
    weights as they are."""
    steps: whole(1_000_000) | None = None
    """In the place of the workload's."""
    sampler: Literal["euler", "ddpm", "ddim", "lcm"] = "euler"
    """Of a whole trajectory: Euler on the linear path, the others on DDPM's; one evaluation a step
    each."""
    batch: whole(100_000) | None = None
    """In the place of the workload's."""
    denoiser: dict[str, Any] = Field(default={})
    """Fields of an own denoiser's config in the place of the model's, e.g. {attention:
    factorised}."""
    cache: CacheConfig | None = None
    """Features kept between the steps of a trajectory, and used again on a fixed schedule
    (models.caching.cache)."""
    draft: Draft | None = None
    """Draft, then verify: a small model takes some steps of a trajectory.  Own denoisers."""
    offload: Literal["none", "weights", "activations"] = "none"
    """weights: blocks wait in host memory, the next one is fetched while one runs.  activations:
    those that train_step saves for its backward wait there."""
    compile_vae: Literal["none", "full"] = "none"
    """torch.compile of the VAE's encoder and decoder, the clip in one piece.  Own VAEs."""
    cudnn_benchmark: StrictBool = False
    """cuDNN times its convolution algorithms at a shape's first call and keeps the fastest
    (torch.backends.cudnn.benchmark)."""
    cuda_graph: StrictBool = False
    """The denoiser's forward is captured as a CUDA graph at its first call, and replayed from then
    on; train_step, which needs gradients, runs without."""
    parallel: Parallel | None = None
    """One model on several ranks, by axis, e.g. {cfg: 2, ulysses: 4}; null: one process."""

    @model_validator(mode="after")
    def _tiles_in_chunks(self) -> "Recipe":
        if self.vae_tile is not None and self.vae_chunk is None:
            raise ValueError("vae_tile without vae_chunk: say how many latent frames at a time")
        return self

    @model_validator(mode="after")
    def _goes_together(self) -> "Recipe":
        for one, other, together in (
            ("quantise", "sparsity", self.quantise != "none" and self.sparsity != "none"),
            ("compile", "cache", self.compile in ("full", "autotune") and self.cache is not None),
            (
                "compile",
                "guidance",
                self.compile in ("full", "autotune") and self.guidance == "packed",
            ),
            ("cache", "guidance", self.cache is not None and self.guidance == "packed"),
            ("cache", "offload", self.cache is not None and self.offload == "weights"),
            ("compile", "offload", self.compile != "none" and self.offload == "weights"),
            # A compiler bakes in the attention that it saw, and what replaces SDPA in Python would
            # break its graph.
            (
                "attention",
                "compile",
                self.attention in ("sage", "fp8-flash3", "fastest") and self.compile != "none",
            ),
            ("compile_vae", "vae_chunk", self.compile_vae != "none" and self.vae_chunk is not None),
            ("cuda_graph", "compile", self.cuda_graph and self.compile != "none"),
            ("cuda_graph", "guidance", self.cuda_graph and self.guidance == "packed"),
            ("cuda_graph", "cache", self.cuda_graph and self.cache is not None),
            ("cuda_graph", "offload", self.cuda_graph and self.offload != "none"),
            (
                "parallel",
                "guidance",
                self.on_several_ranks and self.guidance in ("packed", "batched"),
            ),
            ("parallel", "cache", self.on_several_ranks and self.cache is not None),
            ("parallel", "draft", self.on_several_ranks and self.draft is not None),
            ("parallel", "offload", self.on_several_ranks and self.offload != "none"),
            ("parallel", "cuda_graph", self.on_several_ranks and self.cuda_graph),
        ):
            if together:
                said = f"{self._said(one)} with {self._said(other)}"
                raise ValueError(f"{said}: one of the two alone")
        if self.sparsity != "none" and self.dtype not in ("bf16", "fp16"):
            raise ValueError(
                f"sparsity {self.sparsity} with dtype {self.dtype}: it takes bf16 or fp16"
            )
        if self.quantise == "fp8" and self.dtype != "bf16":
            raise ValueError(f"quantise fp8 with dtype {self.dtype}: it takes bf16")
        if self.attention in ("flash3", "sage", "fp8-flash3") and self.dtype not in (
            "bf16",
            "fp16",
        ):
            raise ValueError(
                f"attention {self.attention} with dtype {self.dtype}: it takes bf16 or fp16"
            )
        return self

    def _said(self, name: str) -> str:
        """A field with its value, as a message shows it."""
        value = getattr(self, name)
        if isinstance(value, Parallel):
            return f"{name} ({value.words()})"
        return f"{name} {value.kind if isinstance(value, CacheConfig) else value}"

    @property
    def on_several_ranks(self) -> bool:
        """Does one model run on more than one rank?"""
        return self.parallel is not None and self.parallel.ranks > 1

    @property
    def cards_of_one_sample(self) -> int:
        """GPUs that work on one video at once."""
        return self.parallel.of_one_sample if self.parallel is not None else 1

    @property
    def compiles(self) -> bool:
        """Is any part compiled?"""
        return self.compile != "none" or self.compile_vae != "none"

    def applied(self, model: "Model", workload: "Workload") -> tuple["Model", "Workload"]:
        """The model and the workload as this recipe has them: steps, batch, guidance learned,
        fields of the denoiser."""
        changed = {
            name: value for name in ("steps", "batch") if (value := getattr(self, name)) is not None
        }
        if self.guidance == "distilled":
            changed["guidance"] = "none"
        if changed:
            workload = workload.model_copy(update=changed)
        if self.denoiser:
            model = with_denoiser(model, self.denoiser)
        return model, workload

    def sampler_config(self, steps: int) -> SamplerConfig:
        """The sampler in so many steps; the model's answer is taken for a velocity on each path.
        Raises ValueError for a number of steps that it does not take."""
        path = "linear" if self.sampler == "euler" else "ddpm-linear"
        return SamplerConfig(
            sampler=self.sampler,
            steps=steps,
            path=path,
            prediction="velocity",
            diffusion=None,
            diffusion_norm=None,
            last_step=None,
            eta=0.0 if self.sampler == "ddim" else None,
        )

    def identity(self) -> dict[str, Any]:
        """What a fingerprint is taken of: fields that came later only where they say something."""
        data = self.model_dump(mode="json", exclude={"name", "description"})
        fields = type(self).model_fields
        return {
            name: value
            for name, value in data.items()
            if name in FIRST_FIELDS or getattr(self, name) != fields[name].default
        }


FIRST_FIELDS = (
    "dtype",
    "attention",
    "vae_chunk",
    "vae_tile",
)  # what recipes had when fingerprints began
