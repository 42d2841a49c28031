"""Shape of a diffusion transformer: frozen, validated, torch-free.  Every field is required: a
preset is complete."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from models.bounds import (
    Depth,
    DepthOrNone,
    Few,
    FewOrNone,
    Flag,
    Size,
    SizeOrNone,
    Triple,
    Within,
    check_bounds,
    divide_into_patches,
    nearest_multiples,
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
                f"nearest: {nearest_multiples(self.width, self.num_heads)}"
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
