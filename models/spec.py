"""Shapes of the models as frozen, torch-free dataclasses, so that listing and closed forms need no
torch.

Shapes: B batch, C channels, T H W frames/rows/columns, N tokens, D width.
Every field is required: a preset is complete.  A field's docstring gives its unit.
"""

import difflib
from dataclasses import dataclass
from math import ceil, log2
from typing import Annotated, Any, ClassVar, Literal, get_args

from models.bounds import (
    Depth,
    DepthOrNone,
    Few,
    FewOrNone,
    Flag,
    Size,
    SizeOrNone,
    Within,
    check_arguments,
    check_bounds,
)

Triple = tuple[Few, Few, Few]
"""Along (time, height, width)."""


def _require_one_of(owner: object, **accepted: tuple[str, ...]) -> None:
    for name, words in accepted.items():
        value = getattr(owner, name)
        if value not in words:
            close = difflib.get_close_matches(str(value), words, n=1)
            raise ValueError(
                f"{name} {value!r}: accepted are {', '.join(words)}"
                + (f"; did you mean {close[0]}?" if close else "")
            )


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """A diffusion transformer in the manner of DiT (Peebles & Xie 2022, arXiv 2212.09748), extended
    to video."""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}  # an unknown key in YAML is an error

    in_channels: Size
    """Latent channels."""
    out_channels: Size
    """Predicted channels: in_channels, or twice that where the variance is learned as in DiT."""
    patch_size: Triple
    """(time, height, width) in latent cells."""
    width: Size
    """D, channels of a token."""
    depth: Depth
    """Number of transformer blocks."""
    num_heads: Few
    mlp_ratio: Annotated[float, Within(0.001, 1000)]
    """Hidden width of the MLP over D."""
    num_classes: SizeOrNone
    """Class labels, 0 for none.  One more embedding row is held for the unconditional class
    (guidance)."""
    text: Literal["none", "pooled", "cross", "joint"]
    """pooled: one vector, added to the timestep's.  cross: cross-attention in every block (PixArt,
    Wan). joint: text tokens attend and are attended to (MMDiT, arXiv 2403.03206)."""
    text_width: SizeOrNone
    """Channels of the text encoder, 0 for none."""
    text_tokens: SizeOrNone
    """Prompt length for cross and joint, else 0."""
    single_blocks: DepthOrNone
    """Of depth, the last ones with joint text that run video and text as one stream (HunyuanVideo,
    FLUX), else 0."""
    modulation: Literal["per_block", "shared"]
    """per_block: adaLN-Zero.  shared: one for all blocks, with a table a block (PixArt-alpha, Wan
    2.1)."""
    qk_norm: Literal["none", "per_head", "across_heads"]
    """RMSNorm of queries and keys (SD3 per head; Wan across heads)."""
    positions: Literal["sincos", "rope"]
    """sincos: added to the tokens (DiT); rope: rotary on q and k, in three axes."""
    rope_axes: tuple[FewOrNone, FewOrNone, FewOrNone] | None
    """Split of head_dim over (time, height, width), for rope; null: HunyuanVideo's proportions (128
    -> 16, 56, 56)."""
    attention: Literal["full", "factorised", "windowed"]
    """full: all tokens attend to all.  factorised: even blocks within a frame, odd blocks along
    time (Latte, arXiv 2401.03048, variant 1).  windowed: a tile of tokens attends to the tiles
    around it (models.dit.windows)."""
    window: Triple | None
    """(time, height, width) tokens of a tile, for windowed."""
    window_tiles: Triple | None
    """Tiles that a tile sees along each axis, odd numbers, for windowed."""
    masked_condition: Flag
    """Takes given latents and a mask beside the noisy ones: image-to-video, extend, loop (as Wan
    2.1 I2V does)."""
    control_blocks: DepthOrNone
    """Blocks of a ControlNet-like side branch (arXiv 2302.05543), 0 for none."""

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.out_channels < self.in_channels:
            raise ValueError(
                f"out_channels {self.out_channels} is less than in_channels {self.in_channels}"
            )
        if self.width % self.num_heads:
            raise ValueError(
                f"width {self.width} is not a multiple of num_heads {self.num_heads}; "
                f"nearest: {_nearest_multiples(self.width, self.num_heads)}"
            )
        if self.mlp_ratio * self.width != int(self.mlp_ratio * self.width):
            raise ValueError(
                f"mlp_ratio {self.mlp_ratio} times width {self.width} must be a positive whole"
                " number"
            )
        if self.positions == "rope":
            axes = self.rope_split
            if self.rope_axes is None and self.head_dim % 2:
                raise ValueError(
                    f"head_dim {self.head_dim} (width {self.width} over num_heads"
                    f" {self.num_heads}): rope positions need an even one"
                )
            if sum(axes) != self.head_dim or any(a % 2 or a < 0 for a in axes):
                raise ValueError(
                    f"rope_axes {list(axes)}: three even numbers that sum to head_dim"
                    f" {self.head_dim} are needed"
                )
        elif self.width % 4:
            raise ValueError(f"width {self.width}: sincos positions need a multiple of 4")
        if self.attention == "factorised" and self.depth % 2:
            raise ValueError(
                f"depth {self.depth}: factorised attention alternates space and time, so it must be"
                " even"
            )
        self._check_text()
        self._check_window()

    def _check_text(self) -> None:
        if (self.text == "none") != (self.text_width == 0):
            raise ValueError(
                f"text {self.text} with text_width {self.text_width}: "
                f"{'0 is needed' if self.text == 'none' else 'at least 1 is needed'}"
            )
        if (self.text in ("cross", "joint")) != (self.text_tokens > 0):
            raise ValueError(
                f"text {self.text} with text_tokens {self.text_tokens}: "
                f"{'0 is needed' if self.text in ('none', 'pooled') else 'at least 1 is needed'}"
            )
        if self.text != "joint" and self.single_blocks:
            raise ValueError(
                f"single_blocks {self.single_blocks} with text {self.text}: only joint text has"
                " them"
            )
        if self.text == "joint" and self.attention != "full":
            raise ValueError(f"attention {self.attention} with joint text: it must be full")
        if self.single_blocks > self.depth:
            raise ValueError(f"single_blocks {self.single_blocks} is more than depth {self.depth}")
        if self.control_blocks > self.depth:
            raise ValueError(
                f"control_blocks {self.control_blocks} is more than depth {self.depth}"
            )

    def _check_window(self) -> None:
        windowed = self.attention == "windowed"
        for name in ("window", "window_tiles"):
            value = getattr(self, name)
            if windowed != (value is not None):
                raise ValueError(
                    f"{name} {value} with attention {self.attention}: "
                    f"{'three numbers are' if windowed else 'null is'} needed"
                )
        if windowed and any(tiles % 2 == 0 for tiles in self.window_tiles):
            raise ValueError(
                f"window_tiles {list(self.window_tiles)}: odd numbers are needed, the tile itself"
                " in the middle"
            )

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads

    @property
    def input_channels(self) -> int:
        """Channels that are patched: with masked_condition the given latents and the mask come on
        top."""
        return 2 * self.in_channels + 1 if self.masked_condition else self.in_channels

    @property
    def rope_split(self) -> tuple[int, int, int]:
        """rope_axes, or where they are null 7/16 of head_dim for height and for width, the rest for
        time."""
        if self.rope_axes is not None:
            return self.rope_axes
        space = 2 * (7 * self.head_dim // 32)
        return self.head_dim - 2 * space, space, space

    @property
    def mlp_width(self) -> int:
        return int(self.mlp_ratio * self.width)

    def tokens(self, latent_shape: tuple[int, int, int]) -> int:
        """Tokens of one sample.  Raises ValueError where the latents do not divide into patches."""
        t, h, w = self.grid(latent_shape)
        return t * h * w

    def grid(self, latent_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Tokens along (time, height, width) for latents (T, H, W).  Raises ValueError as `tokens`
        does."""
        return divide_into_patches(latent_shape, self.patch_size)


@dataclass(frozen=True, kw_only=True)
class DiffusersDenoiser:
    """A public denoiser, built by its diffusers class from a config, with random weights."""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    diffusers: str
    """Name of the class in diffusers."""
    config: dict[str, Any]
    """Its constructor's arguments; what is left out is the class's default."""
    in_channels: Size
    """Latent channels that are denoised."""
    patch_size: Triple
    """(time, height, width) in latent cells, for the token count."""
    text_tokens: SizeOrNone
    """Prompt length its pipeline pads to, 0 for none."""
    experts: Few
    """Denoisers held, of which one runs a step (2 for Wan 2.2 A14B), else 1."""
    published: str
    """The label its authors print, e.g. "1.3 B"."""

    # Peculiarities of single models; a preset names those it has.
    boundary: float | None = None
    """With two experts: the first runs at times t >= boundary (t = 1 is noise), the second
    below."""
    timestep_per_token: bool = False
    """One timestep a token instead of one a sample, as Wan 2.2's 5 B model takes (it can hold an
    image's tokens still)."""
    pad_frames: bool = False
    """Latent frames are rounded up to whole patches, as CogVideoX 1.5 does; else they must
    divide."""
    latent_frames: tuple[int, ...] | None = None
    """The frame counts it was built for, where its positions fit no other."""
    square: bool = False
    """It takes square latents only."""

    def __post_init__(self) -> None:
        check_bounds(self)
        check_arguments("config", self.config)
        if self.experts > 2:
            raise ValueError(f"experts is {self.experts}: 1, or 2 with a boundary between them")
        if (self.boundary is not None) != (self.experts == 2):
            raise ValueError(
                f"experts {self.experts}, boundary {self.boundary}: two experts need a boundary,"
                " one has none"
            )
        if self.boundary is not None and not 0 < self.boundary < 1:
            raise ValueError(
                f"boundary {self.boundary}: it must lie between 0 (data) and 1 (noise)"
            )

    def tokens(self, latent_shape: tuple[int, int, int]) -> int:
        """Visual tokens of one sample.  Raises ValueError for latents it cannot take."""
        t, h, w = latent_shape
        if self.latent_frames is not None and t not in self.latent_frames:
            raise ValueError(
                f"{t} latent frames: this model takes {' or '.join(map(str, self.latent_frames))}"
            )
        if self.square and h != w:
            raise ValueError(f"{h} x {w} latents: this model takes square ones only")
        if self.pad_frames:
            t += -t % self.patch_size[0]
        t, h, w = divide_into_patches((t, h, w), self.patch_size)
        return t * h * w


class VAEShape:
    """How a clip in pixels becomes latents: shared by own and public VAEs."""

    temporal_factor: Few
    spatial_factor: Few
    first_frame_alone: Flag

    def latent_frames(self, frames: int) -> int:
        """Latent frames of a clip.  Raises ValueError, naming the nearest legal counts, where it
        cannot be taken."""
        if frames < 1:
            raise ValueError(f"frames is {frames}: it must be at least 1")
        f = self.temporal_factor
        if not self.first_frame_alone:
            return ceil(frames / f)
        if (frames - 1) % f:
            low = (frames - 1) // f * f + 1
            raise ValueError(
                f"{frames} frames: this VAE takes {f} k + 1 frames; nearest: {low} or {low + f}"
            )
        return (frames - 1) // f + 1

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(T, H, W) latents of a clip in pixels.  Raises ValueError for sizes it cannot take."""
        for axis, size in (("height", height), ("width", width)):
            if size < 1 or size % self.spatial_factor:
                raise ValueError(
                    f"{axis} {size} is not a positive multiple of the VAE's {self.spatial_factor}; "
                    f"nearest: {_nearest_multiples(size, self.spatial_factor)}"
                )
        return (
            self.latent_frames(frames),
            height // self.spatial_factor,
            width // self.spatial_factor,
        )


@dataclass(frozen=True, kw_only=True)
class VAEConfig(VAEShape):
    """A 3D convolutional autoencoder.  Spatial factor 2 per level after the first; time on the last
    levels."""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    in_channels: Annotated[int, Within(3, 3)]
    """Colour channels: the pixels of every workload are RGB."""
    latent_channels: Size
    channels: tuple[Size, ...]
    """Width of each level, from pixels to latents; levels - 1 halvings of height and width."""
    res_blocks: Depth
    """Residual blocks per encoder level (a decoder level has one more, as in Stable
    Diffusion's)."""
    temporal_factor: Few
    """Frames per latent frame: a power of two, applied on the deepest levels (as in Wan 2.1)."""
    temporal_kernel: Literal[1, 3]
    """Kernel of the convolutions along time: 1 makes an image VAE that treats frames alone."""
    causal: Flag
    """A latent frame sees no later frame than its own last one."""
    first_frame_alone: Flag
    """True: frames = k f + 1, the first frame has a latent of its own (Wan, CogVideoX).
    False: T_latent = ceil(frames / f), the last group filled by repeating its last frame."""

    def __post_init__(self) -> None:
        check_bounds(self)
        if not 1 <= len(self.channels) <= 12:
            raise ValueError(f"channels {list(self.channels)}: at least one level and at most 12")
        legal = [2**i for i in range(len(self.channels))]
        if self.temporal_factor not in legal:
            raise ValueError(
                f"temporal_factor {self.temporal_factor}: with {len(self.channels)} levels it must"
                f" be one of {legal}"
            )
        if self.temporal_factor > 1 and self.temporal_kernel == 1:
            raise ValueError(f"temporal_factor {self.temporal_factor} needs temporal_kernel 3")

    @property
    def spatial_factor(self) -> int:
        return 2 ** (len(self.channels) - 1)

    @property
    def time_halvings(self) -> tuple[bool, ...]:
        """For each of the levels - 1 resamplings, from pixels to latents: does it also halve
        time?"""
        steps, halvings = len(self.channels) - 1, int(log2(self.temporal_factor))
        return tuple(i >= steps - halvings for i in range(steps))


@dataclass(frozen=True, kw_only=True)
class DiffusersVAE(VAEShape):
    """A public VAE, built by its diffusers class from a config, with random weights."""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    diffusers: str
    """Name of the class in diffusers."""
    config: dict[str, Any]
    latent_channels: Size
    spatial_factor: Few
    temporal_factor: Few
    first_frame_alone: Flag
    tile: tuple[int, int, int] | None = None
    """(frames, height, width) of a tile in pixels, for a VAE that runs in tiles only (Allegro)."""
    tile_stride: tuple[int, int, int] | None = None
    """From tile to tile.  What lies past the last whole tile would silently stay zero, so other
    sizes are refused."""

    def __post_init__(self) -> None:
        check_bounds(self)
        check_arguments("config", self.config)
        if (self.tile is None) != (self.tile_stride is None):
            raise ValueError(
                f"tile {self.tile}, tile_stride {self.tile_stride}: give both or neither"
            )

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """(T, H, W) latents of a clip in pixels.  Raises ValueError for sizes it cannot take."""
        if self.tile is not None and self.tile_stride is not None:
            sizes = (("frames", frames), ("height", height), ("width", width))
            for (axis, size), tile, step in zip(sizes, self.tile, self.tile_stride, strict=True):
                if size < tile or (size - tile) % step:
                    low = tile + max(size - tile, 0) // step * step
                    raise ValueError(
                        f"{axis} {size}: this VAE's tiles cover {tile} + {step} k; "
                        f"nearest: {low} or {low + step}"
                    )
        return super().latent_shape(frames, height, width)


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """A text encoder's shape: a stand-in with the same products as T5's encoder (arXiv 1910.10683),
    Llama, Gemma or CLIP, without vocabulary or relative bias, which multiply nothing."""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    width: Size
    depth: Depth
    num_heads: Few
    head_dim: Size
    kv_heads: Few
    """Heads of keys and values: num_heads, or fewer where they are shared (Llama, Qwen, Gemma)."""
    ffn_width: Size
    gated: bool
    """Feed-forward of three matrices (T5 1.1, Llama) instead of two (CLIP)."""
    tokens: Size
    """Prompt length it is padded to."""

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not a multiple of kv_heads {self.kv_heads}"
            )


Path = Literal["linear", "gvp", "ddpm-linear", "ddpm-cosine"]
"""How data becomes noise (models.diffusion.process.coefficients): SiT's two interpolants and DDPM's
two beta schedules."""
Prediction = Literal["velocity", "noise", "score", "data"]
"""What the model's output means."""
Diffusion = Literal["constant", "sbdm", "sigma", "linear", "decreasing", "increasing-decreasing"]
"""Forms of SiT's diffusion coefficient w(t)."""
Sampler = Literal["euler", "heun", "sde", "ddim", "ddpm", "flow-euler", "flow-heun", "lcm"]

DDPM_STEPS = 1000
"""Levels of noise that DDPM's schedules have (arXiv 2006.11239)."""
LCM_MAX_STEPS = 8


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How noise becomes data: which sampler, over which path, in how many steps."""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    sampler: Sampler
    """euler, heun (ODE) and sde (Euler-Maruyama) take any path; ddim, ddpm and lcm a ddpm- path;
    flow- the linear one."""
    steps: Size
    """Steps from noise to data; heun and flow-heun call the model twice in nearly each."""
    path: Path
    prediction: Prediction
    diffusion: Diffusion | None
    """w(t), for sde alone."""
    diffusion_norm: float | None
    """Scale of w(t), for sde alone: 0 is the ODE."""
    last_step: float | None
    """Time left for sde's last, noiseless step (SiT: 0.04), since the score grows as 1 / sigma."""
    eta: float | None
    """Noise of ddim: 0 deterministic, 1 as ancestral DDPM."""

    def __post_init__(self) -> None:
        _require_one_of(
            self, sampler=get_args(Sampler), path=get_args(Path), prediction=get_args(Prediction)
        )
        check_bounds(self)
        own = {"sde": ("diffusion", "diffusion_norm", "last_step"), "ddim": ("eta",)}.get(
            self.sampler, ()
        )
        for name in ("diffusion", "diffusion_norm", "last_step", "eta"):
            value = getattr(self, name)
            if (value is not None) != (name in own):
                raise ValueError(
                    f"{name} is {value}: sampler {self.sampler} "
                    + ("needs one" if name in own else "takes none, it must be null")
                )
        paths = {
            "ddim": "ddpm-linear, ddpm-cosine",
            "ddpm": "ddpm-linear, ddpm-cosine",
            "lcm": "ddpm-linear, ddpm-cosine",
            "flow-euler": "linear",
            "flow-heun": "linear",
        }.get(self.sampler)
        if paths and self.path not in paths.split(", "):
            raise ValueError(f"path {self.path!r}: sampler {self.sampler} takes {paths}")
        self._check_steps()
        if self.sampler == "sde":
            _require_one_of(self, diffusion=get_args(Diffusion))
            if self.diffusion_norm < 0:
                raise ValueError(f"diffusion_norm {self.diffusion_norm}: it must be at least 0")
            if not 0 < self.last_step < 1:
                raise ValueError(
                    f"last_step {self.last_step}: it must lie between 0 and 1; SiT's is 0.04"
                )
        if self.sampler == "ddim" and not 0 <= self.eta <= 1:
            raise ValueError(f"eta {self.eta}: it must lie in 0 to 1")

    def _check_steps(self) -> None:
        if self.sampler == "lcm" and self.steps > LCM_MAX_STEPS:
            raise ValueError(
                f"steps is {self.steps}: lcm takes 1 to {LCM_MAX_STEPS}; nearest: {LCM_MAX_STEPS}"
            )
        if self.sampler == "ddpm" and self.steps > DDPM_STEPS:
            raise ValueError(
                f"steps is {self.steps}: ddpm takes 1 to {DDPM_STEPS}; nearest: {DDPM_STEPS}"
            )
        if self.sampler == "ddim" and DDPM_STEPS % self.steps:
            # diffusers' DDIM steps by DDPM_STEPS // steps whatever its timesteps are, and so would
            # lag behind them.
            legal = [n for n in range(1, DDPM_STEPS + 1) if DDPM_STEPS % n == 0]
            close = [*(n for n in legal if n < self.steps)][-1:] + [
                *(n for n in legal if n > self.steps)
            ][:1]
            raise ValueError(
                f"steps is {self.steps}: ddim takes divisors of {DDPM_STEPS}; "
                f"nearest: {' or '.join(map(str, close))}"
            )


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What a denoiser is trained on."""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    path: Path
    prediction: Prediction
    times: Literal["uniform", "logit-normal"]
    """Distribution of t: uniform (DDPM, SiT), or the sigmoid of a normal, more of it half way
    (arXiv 2403.03206)."""

    def __post_init__(self) -> None:
        _require_one_of(
            self,
            path=get_args(Path),
            prediction=get_args(Prediction),
            times=("uniform", "logit-normal"),
        )


def divide_into_patches(
    latent_shape: tuple[int, int, int], patch: tuple[int, int, int]
) -> tuple[int, int, int]:
    """(T, H, W) latents -> patches along each axis.  Raises ValueError where they do not divide."""
    for axis, size, step in zip(("frames", "rows", "columns"), latent_shape, patch, strict=True):
        if size % step:
            raise ValueError(
                f"{size} latent {axis} do not divide into patches of {step}; "
                f"nearest: {_nearest_multiples(size, step)}"
            )
    t, h, w = (size // step for size, step in zip(latent_shape, patch, strict=True))
    return t, h, w


def _nearest_multiples(value: int, base: int) -> str:
    low = value // base * base
    return f"{low} or {low + base}" if low > 0 else f"{base}"
