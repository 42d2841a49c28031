"""What can be run, as validated data: Model, Workload, Recipe, Gpu, Suite.  Unknown keys are errors; no torch.

A point is model x workload x recipe, with the stages of it that are timed.
"""

import dataclasses
import hashlib
import json
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    Tag,
    model_validator,
)

from models.autoregressive_spec import AutoregressiveConfig
from models.schedules import CacheConfig, DraftConfig, OwnCache
from models.spec import DiffusersDenoiser, DiffusersVAE, DiTConfig, SamplerConfig, TextEncoderConfig, VAEConfig
from models.tiling import Tiling

Stage = Literal["denoise_step", "trajectory", "train_step", "prefill", "decode_token", "vae_decode", "vae_encode",
                "condition_encode", "text_encode"]
DIFFUSION_STAGES = ("denoise_step", "trajectory", "train_step")
TOKEN_STAGES = ("prefill", "decode_token")
"""Of an auto-regressive model: the prompt and given tokens at once; one token over a cache of the mean length."""
Task = Literal["text-to-video", "image-to-video", "video-to-video", "extend", "extend-backward", "loop"]
MASKED_TASKS = ("image-to-video", "extend", "extend-backward", "loop")
Dtype = Literal["fp32", "tf32", "bf16", "fp16"]
DTYPE_BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}
MAX_SECONDS = 30 * 86_400.0
MAX_PIXELS = 10**15     # of a batch of clips: ten hours of 8K at 24 fps are 3e13


def whole(high: int) -> Any:
    """A positive integer and nothing that could be turned into one (true, "8"), up to what is still sensible."""
    return Annotated[int, Field(strict=True, ge=1, le=high)]


def positive(high: float, low: float = 0.0) -> Any:
    """A finite positive number."""
    return Annotated[float, Field(strict=True, gt=0.0, ge=low, le=high)]


class Spec(BaseModel):
    """A frozen piece of configuration; `name` is the file's name, set by the loader."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    name: str
    description: str


def _own_or_public(value: object) -> str:
    if isinstance(value, AutoregressiveConfig) or (isinstance(value, dict) and "code_bits" in value):
        return "autoregressive"
    public = "diffusers" in value if isinstance(value, dict) else isinstance(value, (DiffusersDenoiser, DiffusersVAE))
    return "diffusers" if public else "own"


class Model(Spec):
    """A denoiser, or an auto-regressive model in its place, with its VAE (there: its tokenizer) and text encoder."""

    source: str
    """Where the shape was published."""
    denoiser: Annotated[
        Annotated[DiTConfig, Tag("own")] | Annotated[DiffusersDenoiser, Tag("diffusers")]
        | Annotated[AutoregressiveConfig, Tag("autoregressive")], Discriminator(_own_or_public)]
    vae: Annotated[
        Annotated[VAEConfig, Tag("own")] | Annotated[DiffusersVAE, Tag("diffusers")], Discriminator(_own_or_public)]
    text_encoders: Annotated[tuple[TextEncoderConfig, ...], Field(max_length=16)]
    """In the order they run; own DiTs take the first one's width, pooled."""

    @model_validator(mode="after")
    def _parts_fit(self) -> "Model":
        if self.denoiser.in_channels != self.vae.latent_channels:
            raise ValueError(f"denoiser.in_channels {self.denoiser.in_channels} is not "
                             f"vae.latent_channels {self.vae.latent_channels}")
        if isinstance(self.denoiser, (DiTConfig, AutoregressiveConfig)):
            encoded = self.text_encoders[0].width if self.text_encoders else 0
            if self.denoiser.text_width != encoded and not self.text_encoders:
                raise ValueError(f"denoiser.text_width {self.denoiser.text_width} with no text_encoders: at least one of "
                                 "that width is needed")
            if self.denoiser.text_width != encoded:
                raise ValueError(f"denoiser.text_width {self.denoiser.text_width} is not text_encoders.0.width {encoded}")
            if self.denoiser.text_tokens and self.denoiser.text_tokens != self.text_encoders[0].tokens:
                raise ValueError(f"denoiser.text_tokens {self.denoiser.text_tokens} is not "
                                 f"text_encoders.0.tokens {self.text_encoders[0].tokens}")
        return self

    @property
    def autoregressive(self) -> bool:
        """Is it made token by token?"""
        return isinstance(self.denoiser, AutoregressiveConfig)

    def latent_shape(self, workload: "Workload") -> tuple[int, int, int]:
        """(T, H, W) of the latents.  Raises ValueError for a workload this VAE cannot take."""
        return self.vae.latent_shape(workload.frames, workload.height, workload.width)

    def check(self, workload: "Workload", recipe: "Recipe") -> None:
        """Raises ValueError where the three do not go together."""
        self.tokens(workload)
        if workload.encoded_frames:
            try:
                self.vae.latent_frames(workload.encoded_frames)
            except ValueError as error:
                raise ValueError(f"given_frames: {error}") from None
        if self.autoregressive and workload.task != "text-to-video":
            raise ValueError(f"task {workload.task}: an auto-regressive model takes text-to-video")
        masked = isinstance(self.denoiser, DiTConfig) and self.denoiser.masked_condition
        if workload.task in MASKED_TASKS and not masked:
            raise ValueError(f"task {workload.task} needs a denoiser with masked_condition; this one takes text-to-video "
                             "and video-to-video")
        if recipe.vae_chunk is not None and not isinstance(self.vae, VAEConfig):
            raise ValueError(f"recipe {recipe.name}: vae_chunk {recipe.vae_chunk}: only own VAEs decode in parts")
        own = isinstance(self.denoiser, DiTConfig)
        if recipe.guidance == "packed" and (not own or workload.batch != 1):
            raise ValueError(f"recipe {recipe.name}: guidance packed: own denoisers pack requests, at batch 1")
        if recipe.cache is not None and own and recipe.cache.kind not in get_args(OwnCache):
            raise ValueError(f"recipe {recipe.name}: cache {recipe.cache.kind} is diffusers', for public models; own ones "
                             f"take {', '.join(get_args(OwnCache))}")
        if recipe.draft is not None:
            with_denoiser(self, recipe.draft.denoiser)

    def tokens(self, workload: "Workload") -> int:
        """Tokens of one sample.  Raises ValueError for a workload this model cannot take."""
        return self.denoiser.tokens(self.latent_shape(workload))


class Workload(Spec):
    """What is generated."""

    frames: whole(10_000_000)
    height: whole(1_000_000)
    width: whole(1_000_000)
    fps: positive(1e6, low=1e-3)
    """Frames a second of the finished video; with frames it says how much video that is."""
    steps: whole(1_000_000)
    """Denoising steps."""
    guidance: Literal["none", "cfg"]
    """cfg: classifier-free guidance, two forwards a step."""
    batch: whole(100_000)
    task: Task = "text-to-video"
    """What is given beside the prompt.  image-to-video: the first frame.  extend: the first `given_frames`;
    extend-backward: the last; loop: the same clip at both ends.  These go into the model beside a mask.
    video-to-video: the whole clip, noised (SDEdit, arXiv 2108.01073); `steps` are those that are run."""
    given_frames: Annotated[int, Field(strict=True, ge=0, le=10**7)] = 0
    """For extend, extend-backward and loop, else 0."""

    @model_validator(mode="after")
    def _given_fits(self) -> "Workload":
        takes = self.task in ("extend", "extend-backward", "loop")
        if takes != (self.given_frames > 0):
            raise ValueError(f"given_frames {self.given_frames} with task {self.task}: "
                             f"{'at least 1 is needed' if takes else '0 is needed'}")
        most = (self.frames - 1) // (2 if self.task == "loop" else 1)
        if takes and self.given_frames > most:
            raise ValueError(f"given_frames {self.given_frames}: at most {most} of {self.frames} frames can be given "
                             f"to {self.task}")
        return self

    @model_validator(mode="after")
    def _countable(self) -> "Workload":
        pixels = self.batch * self.frames * self.height * self.width
        if pixels > MAX_PIXELS:
            raise ValueError(f"batch {self.batch} x frames {self.frames} x height {self.height} x width {self.width} are "
                             f"{pixels:.3g} pixels; at most {MAX_PIXELS:.0e} are taken")
        return self

    @property
    def encoded_frames(self) -> int:
        """Frames that the VAE encodes before the first step."""
        return {"text-to-video": 0, "image-to-video": 1, "video-to-video": self.frames}.get(self.task, self.given_frames)

    @property
    def forwards_per_step(self) -> int:
        return 2 if self.guidance == "cfg" else 1

    @property
    def video_s(self) -> float:
        """Seconds of video, all samples of the batch together."""
        return self.batch * self.frames / self.fps


def needs_condition(model: Model, workload: Workload) -> bool:
    """Is a clip encoded before the first step: frames that are given, or a side branch's control video?"""
    return workload.encoded_frames > 0 or has_control(model)


def has_control(model: Model) -> bool:
    """Does the denoiser take a control video?"""
    return isinstance(model.denoiser, DiTConfig) and model.denoiser.control_blocks > 0


class Draft(BaseModel):
    """A smaller denoiser, own and of the same latents, that takes a share of a trajectory's steps (models.draft)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    denoiser: dict[str, Any]
    """Fields of the denoiser's config in which the small one differs, e.g. {depth: 2}."""
    schedule: DraftConfig


class Recipe(Spec):
    """How a model is executed.  What stands after `vae_tile` leaves everything as it was where a recipe does not say it,
    the fingerprint included; each may stand beside any other (what cannot is an error, or skipped with its reason)."""

    dtype: Dtype
    """Of weights and activations; tf32: float32 with TensorFloat-32 products."""
    attention: Literal["auto", "flash", "cudnn", "efficient", "math", "flash3", "sage", "fp8-flash3", "fastest"]
    """auto: PyTorch's choice.  On Hopper and B200 that is cuDNN from PyTorch 2.10 on where it was built with a cuDNN over
    9.15 (the wheels of 2.11 for CUDA 13 are), else FlashAttention-2; a record's attention_ran has what ran.
    flash, cudnn, efficient, math: SDPA held to that backend.  flash3: FlashAttention-3 in the place of 2.
    sage: SageAttention, int8 scores.  fp8-flash3: FlashAttention-3 on fp8 operands, a scale for each head.
    fastest: of those that compute in dtype, the one under which this denoiser's own blocks run fastest, timed while the
    point is built."""
    vae_chunk: whole(1_000_000) | None = None
    """Decode so many latent frames at a time; null: the clip in one piece.  Own VAEs."""
    vae_tile: Tiling | None = None
    """Decode in overlapping tiles of latent cells; needs vae_chunk."""
    quantise: Literal["none", "fp8", "int8-weight", "int8-dynamic", "ternary"] = "none"
    """Linear layers of the blocks (torchao).  fp8, int8-dynamic: weights by row and activations by token, products in that
    format; int8-weight: weights alone.  ternary: weights rounded to -1, 0, 1 times a scale (BitNet b1.58,
    arXiv 2402.17764) and computed in dtype: its output is measured, its speed-up is counted alone."""
    sparsity: Literal["none", "2:4"] = "none"
    """Of every four weights of the blocks' linear layers the two largest are kept (arXiv 2104.08378)."""
    compile: Literal["none", "regional", "full", "autotune"] = "none"
    """torch.compile of the denoiser: each block, the whole, or the whole with max-autotune and CUDA graphs."""
    guidance: Literal["sequential", "batched", "packed", "distilled"] = "sequential"
    """How a guided step runs: two forwards, one of twice the batch, one of two packed requests, or one forward of a
    model that has learned the guided answer (arXiv 2210.03142), here with the weights as they are."""
    steps: whole(1_000_000) | None = None
    """In the place of the workload's."""
    sampler: Literal["euler", "ddpm", "ddim", "lcm"] = "euler"
    """Of a whole trajectory: Euler on the linear path, the others on DDPM's; one evaluation a step each."""
    batch: whole(100_000) | None = None
    """In the place of the workload's."""
    denoiser: dict[str, Any] = {}
    """Fields of an own denoiser's config in the place of the model's, e.g. {attention: factorised}."""
    cache: CacheConfig | None = None
    """Features kept between the steps of a trajectory, and used again on a fixed schedule (models.caching)."""
    draft: Draft | None = None
    """Draft, then verify: a small model takes some steps of a trajectory.  Own denoisers."""
    offload: Literal["none", "weights", "activations"] = "none"
    """weights: blocks wait in host memory, the next one is fetched while one runs.  activations: those that train_step
    saves for its backward wait there."""
    compile_vae: Literal["none", "full"] = "none"
    """torch.compile of the VAE's encoder and decoder, the clip in one piece.  Own VAEs."""
    cudnn_benchmark: StrictBool = False
    """cuDNN times its convolution algorithms at a shape's first call and keeps the fastest
    (torch.backends.cudnn.benchmark)."""
    cuda_graph: StrictBool = False
    """The denoiser's forward is captured as a CUDA graph at its first call, and replayed from then on; train_step, which
    needs gradients, runs without."""

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
            ("compile", "guidance", self.compile in ("full", "autotune") and self.guidance == "packed"),
            ("cache", "guidance", self.cache is not None and self.guidance == "packed"),
            ("cache", "offload", self.cache is not None and self.offload == "weights"),
            ("compile", "offload", self.compile != "none" and self.offload == "weights"),
            # A compiler bakes in the attention that it saw, and what replaces SDPA in Python would break its graph.
            ("attention", "compile", self.attention in ("sage", "fp8-flash3", "fastest") and self.compile != "none"),
            ("compile_vae", "vae_chunk", self.compile_vae != "none" and self.vae_chunk is not None),
            ("cuda_graph", "compile", self.cuda_graph and self.compile != "none"),
            ("cuda_graph", "guidance", self.cuda_graph and self.guidance == "packed"),
            ("cuda_graph", "cache", self.cuda_graph and self.cache is not None),
            ("cuda_graph", "offload", self.cuda_graph and self.offload != "none"),
        ):
            if together:
                said = [f"{name} {value.kind if isinstance(value := getattr(self, name), CacheConfig) else value}"
                        for name in (one, other)]
                raise ValueError(f"{said[0]} with {said[1]}: one of the two alone")
        if self.sparsity != "none" and self.dtype not in ("bf16", "fp16"):
            raise ValueError(f"sparsity {self.sparsity} with dtype {self.dtype}: it takes bf16 or fp16")
        if self.quantise == "fp8" and self.dtype != "bf16":
            raise ValueError(f"quantise fp8 with dtype {self.dtype}: it takes bf16")
        if self.attention in ("flash3", "sage", "fp8-flash3") and self.dtype not in ("bf16", "fp16"):
            raise ValueError(f"attention {self.attention} with dtype {self.dtype}: it takes bf16 or fp16")
        return self

    @property
    def compiles(self) -> bool:
        """Is any part compiled?"""
        return self.compile != "none" or self.compile_vae != "none"

    def applied(self, model: "Model", workload: "Workload") -> tuple["Model", "Workload"]:
        """The model and the workload as this recipe has them: steps, batch, guidance learned, fields of the denoiser."""
        changed = {name: value for name in ("steps", "batch") if (value := getattr(self, name)) is not None}
        if self.guidance == "distilled":
            changed["guidance"] = "none"
        if changed:
            workload = workload.model_copy(update=changed)
        if self.denoiser:
            model = with_denoiser(model, self.denoiser)
        return model, workload

    def sampler_config(self, steps: int) -> SamplerConfig:
        """The sampler in so many steps; the model's answer is taken for a velocity on each path.  Raises ValueError for
        a number of steps that it does not take."""
        path = "linear" if self.sampler == "euler" else "ddpm-linear"
        return SamplerConfig(sampler=self.sampler, steps=steps, path=path, prediction="velocity", diffusion=None,
                             diffusion_norm=None, last_step=None, eta=0.0 if self.sampler == "ddim" else None)

    def identity(self) -> dict[str, Any]:
        """What a fingerprint is taken of: fields that came later only where they say something."""
        data = self.model_dump(mode="json", exclude={"name", "description"})
        fields = type(self).model_fields
        return {name: value for name, value in data.items()
                if name in FIRST_FIELDS or getattr(self, name) != fields[name].default}


FIRST_FIELDS = ("dtype", "attention", "vae_chunk", "vae_tile")     # what recipes had when fingerprints began


def with_denoiser(model: Model, fields: dict[str, Any]) -> Model:
    """The model with other fields of its own denoiser.  Raises ValueError for a public one, and for what is no field."""
    if not isinstance(model.denoiser, DiTConfig):
        raise ValueError(f"denoiser {fields}: only own denoisers take other fields")
    known = [f.name for f in dataclasses.fields(DiTConfig)]
    for name in fields.keys() - set(known):
        raise ValueError(f"denoiser.{name} is not one of {', '.join(known)}")
    data = model.model_dump(mode="json")
    return Model.model_validate({**data, "denoiser": {**data["denoiser"], **fields}})


class Price(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    low: positive(1e6)
    high: positive(1e6)
    date: str
    source: str


class UsualRate(BaseModel):
    """What cards of this model were published to reach: the range of the published figures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: positive(1e24)
    high: positive(1e24)
    source: str

    @model_validator(mode="after")
    def _a_range(self) -> "UsualRate":
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is over high {self.high:g}")
        return self


class Gpu(Spec):
    """A card's datasheet.  null where nothing is published."""

    device_names: tuple[str, ...]
    """Exact names as CUDA reports them; an unlisted device is unknown, never guessed."""
    peak_flops_per_s: dict[Literal["fp32", "tf32", "bf16", "fp16", "fp8"], positive(1e24)]
    """Dense, by dtype; 1 multiply-accumulate = 2 FLOPs."""
    memory_bytes: whole(10**18) | None
    bandwidth_bytes_per_s: positive(1e18) | None
    tdp_w: positive(1e6) | None
    price_usd_per_hour: Price | None
    source: str
    usual: dict[Literal["gemm_bf16_flops_per_s", "copy_bytes_per_s"], UsualRate] = {}
    """Achieved, not datasheet: what `ldt-bench doctor` holds a card against.  Empty where nothing is published."""


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Field(min_length=1)]


class SuitePoints(BaseModel):
    """The product of the named models, workloads and recipes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Names
    workload: Names
    recipe: Names
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] = ("denoise_step",)
    together: StrictBool = False
    """Small enough to be resident at once: visited in turns with the entries beside it that say so too."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted paths to values, as --set takes them."""
    baseline: str | None = None
    """A recipe: each point is measured in turns with the same one under it, and its output held against that one's."""


class Headline(BaseModel):
    """The point whose minutes of video per GPU-hour the suite is about."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    workload: str
    recipe: str


class Sampling(BaseModel):
    """When to stop timing.  See `bench.measure.sampling`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target_relative_half_width: positive(10.0)
    """Of the 95 % confidence interval of the median."""
    min_samples: whole(1_000_000)
    max_samples: whole(1_000_000)
    max_s: positive(MAX_SECONDS)
    """Time for one stage's samples, after warm-up."""


class Suite(Spec):
    """Which points, in which order."""

    ceilings: StrictBool
    """Measure GEMM, attention, convolution, copy and triad first."""
    sampling: Sampling
    point_timeout_s: positive(MAX_SECONDS)
    points: Annotated[tuple[SuitePoints, ...], Field(min_length=1)]
    headline: Headline
    calibrate: StrictBool = True
    """false: many recipes with a point each, which no cost equation can be fitted to."""
    on_cpu: str | None = None
    """The suite that is run in the place of this one where the device is a CPU."""


class Point(BaseModel):
    """One model x workload x recipe, with the stages that are timed."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: Model
    workload: Workload
    recipe: Recipe
    stages: tuple[Stage, ...]

    @property
    def label(self) -> str:
        return f"{self.model.name} {self.workload.name} {self.recipe.name}"

    @property
    def fingerprint(self) -> str:
        """Of everything that decides what is executed; names and descriptions do not."""
        return fingerprint({**self._parts, "stages": self.stages})

    @property
    def subject(self) -> str:
        """Fingerprint of model, workload and recipe, whichever stages are timed."""
        return fingerprint(self._parts)

    @property
    def _parts(self) -> dict[str, object]:
        parts = {part: getattr(self, part).model_dump(mode="json", exclude={"name", "description", "source"})
                 for part in ("model", "workload")}
        return {**parts, "recipe": self.recipe.identity()}


def fingerprint(data: object) -> str:
    """Sixteen hex digits of the SHA-256 of canonical JSON."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
