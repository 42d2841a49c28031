"""Spatio-temporal DiT.  Shapes: B batch, C channels, T H W latent frames/rows/cols, N tokens, L
text tokens, D width.

Reads top-down: model, control branch, patches.  The config is `models.spec.DiTConfig`; an image is
T = 1.  The blocks are in `models.dit.blocks`.
"""

from collections.abc import Callable, Sequence
from math import prod

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.denoiser import Denoiser
from models.dit.attention import Grid, Layout
from models.dit.blocks import FinalLayer, Rope, make_blocks
from models.dit.spec import DiTConfig
from models.dit.windowed import WindowPlan
from models.layers import (
    Embedder,
    Linear,
    gelu_tanh,
    rope_angles,
    sincos_positions,
    sinusoidal_embedding,
)

TIME_FREQUENCIES = 256  # width of the sinusoidal timestep embedding, as in DiT
TIME_SCALE = 1000.0  # t in [0, 1] is embedded as DiT's 0..1000


class SpatioTemporalDiT(Denoiser):
    """DiT (arXiv 2212.09748) over video patches.  What a config chooses:
    `models.spec.DiTConfig`."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.config = config
        patch, width = prod(config.patch_size), config.width
        self.patch_embed = Linear(config.input_channels * patch, width)
        self.time_embed = Embedder(TIME_FREQUENCIES, width)
        self.label_embed = (
            nn.Embedding(config.num_classes + 1, width) if config.num_classes else None
        )
        self.text_embed = None
        if config.text != "none":
            self.text_embed = Embedder(
                config.text_width, width, *([gelu_tanh] if config.text_tokens else [])
            )
        self.shared_modulation = Linear(width, 6 * width) if config.modulation == "shared" else None
        self.blocks = make_blocks(config, config.depth)
        self.control = ControlBranch(config) if config.control_blocks else None
        self.final_layer = FinalLayer(config, config.out_channels * patch)
        self.gradient_checkpointing = False
        self.time_frequency_shift = (
            0  # diffusers' DiT spaces its 128 frequencies over 127, the paper's code over 128
        )
        self.new_layout: Callable[..., Layout] = Layout
        # the last shape alone is kept, as a denoising loop uses one
        self._layouts: dict[tuple, Layout] = {}

    def compute(self, x: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        """Predict noise or velocity.

        x (B, C, T, H, W) latents, t (B,) in [0, 1] -> (B, C_out, T, H, W).  The condition, as the
        config asks: labels (B,) class indices (num_classes = unconditional); text (B, text_width)
        pooled, or (B, L, text_width) for cross and joint; given (B, C, T, H, W) latents and mask
        (B, 1, T, H, W), 1 where they are given, for masked_condition; control (B, C, T, H, W)
        latents for control_blocks.

        Raises ValueError where the latents do not divide into patches, or a condition is missing or
        unexpected."""
        return self._run([x], t, [condition])[0]

    def forward_packed(
        self, xs: Sequence[Tensor], t: Tensor, conditions: Sequence[dict[str, Tensor]]
    ) -> list[Tensor]:
        """Requests of different shapes in one pass, each as if it ran alone.

        xs: R latents (1, C, T, H, W); t (R,); conditions: R as `forward` takes them -> R of (1,
        C_out, T, H, W). Products run over all tokens at once, attention within each request (Patch
        n' Pack, arXiv 2307.06304).

        Raises ValueError as forward does, and for a request whose batch is not 1."""
        if not xs or not len(xs) == len(t) == len(conditions):
            raise ValueError(
                f"{len(xs)} latents, {len(t)} times, {len(conditions)} conditions: as many of each"
                " are needed"
            )
        for x in xs:
            if len(xs) > 1 and x.shape[0] != 1:
                raise ValueError(f"a packed request has batch {x.shape[0]}: it must be 1")
        return self._run(xs, t, conditions)

    def _run(
        self, xs: Sequence[Tensor], t: Tensor, conditions: Sequence[dict[str, Tensor]]
    ) -> list[Tensor]:
        for condition in conditions:
            self._check(condition)
        config = self.config
        layout = self.layout(
            [tuple(x.shape[2:]) for x in xs],
            xs[0],
            tuple(c["text"].shape[1] for c in conditions) if config.text_tokens else (),
        )
        tokens = _pack(
            [
                patchify(self._with_given(x, c), config.patch_size)
                for x, c in zip(xs, conditions, strict=True)
            ]
        )
        tokens = self.patch_embed(layout.shard(tokens))  # (B, N, D)
        rope: Rope = layout.positions if config.positions == "rope" else None
        if rope is None:
            tokens = tokens + layout.positions
        text = (
            _pack([self.text_embed(c["text"]) for c in conditions]) if config.text_tokens else None
        )  # (B, L, D)
        if config.text == "joint":
            text = layout.shard_text(text)
        c = self._condition(t, conditions, tokens.dtype)  # (R, D)
        signal = F.silu(c)
        if self.shared_modulation is not None:
            signal = self.shared_modulation(signal)  # (R, 6 D)
        hints = None
        if self.control is not None:
            control = _pack([patchify(c["control"], config.patch_size) for c in conditions])
            hints = self.control(tokens, layout.shard(control), text, signal, layout, rope)
        for i, block in enumerate(self.blocks):
            if self.gradient_checkpointing and torch.is_grad_enabled():
                tokens, text = checkpoint(
                    block, tokens, text, signal, layout, rope, use_reentrant=False
                )
            else:
                tokens, text = block(tokens, text, signal, layout, rope)
            if hints is not None and i < len(hints):
                tokens = tokens + hints[i]
        out = layout.gather(self.final_layer(tokens, c, layout))
        parts = out.split(layout.lengths, dim=1) if layout.packed else [out]
        return [
            unpatchify(part, grid, config.patch_size)
            for part, grid in zip(parts, layout.grids, strict=True)
        ]

    def _condition(
        self, t: Tensor, conditions: Sequence[dict[str, Tensor]], dtype: torch.dtype
    ) -> Tensor:
        """Time, class and pooled text -> (R, D)."""
        c = self.time_embed(
            sinusoidal_embedding(
                t * TIME_SCALE, TIME_FREQUENCIES, shift=self.time_frequency_shift
            ).to(dtype)
        )
        if self.label_embed is not None:
            c = c + self.label_embed(torch.cat([condition["labels"] for condition in conditions]))
        if self.config.text == "pooled":
            c = c + self.text_embed(torch.cat([condition["text"] for condition in conditions]))
        return c

    def _with_given(self, x: Tensor, condition: dict[str, Tensor]) -> Tensor:
        if not self.config.masked_condition:
            return x
        return torch.cat([x, condition["given"] * condition["mask"], condition["mask"]], dim=1)

    def _check(self, condition: dict[str, Tensor]) -> None:
        wanted = self.conditions
        if condition.keys() == wanted:
            return
        missing, unexpected = sorted(wanted - condition.keys()), sorted(condition.keys() - wanted)
        said = [f"{', '.join(missing)} missing"] if missing else []
        said += [f"{', '.join(unexpected)} not taken"] if unexpected else []
        raise ValueError(
            f"{'; '.join(said)}: this config takes {', '.join(sorted(wanted)) or 'no condition'}"
        )

    @property
    def conditions(self) -> set[str]:
        """Names of the tensors that forward takes beside x and t."""
        config = self.config
        wanted = {
            "labels": config.num_classes,
            "text": config.text != "none",
            "given": config.masked_condition,
            "mask": config.masked_condition,
            "control": config.control_blocks,
        }
        return {name for name, is_wanted in wanted.items() if is_wanted}

    def lay_out_by(self, new_layout: Callable[..., Layout]) -> None:
        """Make layouts by another class from now on; the one that is kept is dropped."""
        self.new_layout = new_layout
        self._layouts = {}

    def prepare(self, x: Tensor) -> None:
        """Compute what depends on the shape of x alone, as a denoising loop does once."""
        self.layout([tuple(x.shape[2:])], x, ())

    def layout(
        self, shapes: Sequence[tuple[int, int, int]], like: Tensor, text_lengths: tuple[int, ...]
    ) -> Layout:
        """Where the tokens of latents (T, H, W) each lie; kept for the next call of the same
        shapes."""
        config = self.config
        grids = tuple(config.grid(shape) for shape in shapes)
        packed_text = text_lengths if len(grids) > 1 or self.new_layout is not Layout else ()
        key = (grids, packed_text, like.device, like.dtype)
        if key not in self._layouts:
            with torch.inference_mode(
                False
            ):  # what inference makes could not be used in training afterwards
                windows = ()
                if config.attention == "windowed":
                    windows = tuple(
                        WindowPlan(g, config.window, config.window_tiles, like.device)
                        for g in grids
                    )
                positions = self._positions(grids, like)
                self._layouts = {key: self.new_layout(grids, positions, windows, packed_text)}
        return self._layouts[key]

    def _positions(self, grids: tuple[Grid, ...], like: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.config.positions == "sincos":
            return torch.cat(
                [sincos_positions(g, self.config.width, like.device) for g in grids]
            ).to(like.dtype)
        angles = [rope_angles(g, self.config.rope_split, like.device) for g in grids]
        cos, sin = (torch.cat(parts).to(like.dtype) for parts in zip(*angles, strict=True))
        return cos, sin

    def example_condition(
        self,
        latent_shape: tuple[int, int, int],
        batch: int,
        randn: Callable[..., Tensor],
        *,
        unconditional: bool,
    ) -> dict[str, Tensor]:
        """What forward takes beside x and t: random labels (the extra class when unconditional),
        text and latents; the first latent frame is given."""
        config, condition = self.config, {}
        if self.label_embed is not None:
            classes, device = config.num_classes, randn(1).device
            condition["labels"] = torch.full(
                (batch,), classes if unconditional else classes // 2, device=device
            )
        if self.text_embed is not None:
            tokens = (config.text_tokens,) if config.text_tokens else ()
            condition["text"] = randn(batch, *tokens, config.text_width)
        if config.masked_condition:
            condition["given"] = randn(batch, config.in_channels, *latent_shape)
            condition["mask"] = torch.zeros_like(condition["given"][:, :1])
            condition["mask"][:, :, 0] = 1.0
        if self.control is not None:
            condition["control"] = randn(batch, config.in_channels, *latent_shape)
        return condition


class ControlBranch(nn.Module):
    """A trainable copy of the first blocks that sees control latents, and adds to the tokens after
    each of them (ControlNet, arXiv 2302.05543; for transformers as in PixArt-delta, arXiv
    2401.05252)."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.patch_embed = Linear(config.in_channels * prod(config.patch_size), config.width)
        self.blocks = make_blocks(config, config.control_blocks)
        self.outs = nn.ModuleList(
            Linear(config.width, config.width) for _ in range(config.control_blocks)
        )

    def forward(
        self,
        tokens: Tensor,
        control: Tensor,
        text: Tensor | None,
        signal: Tensor,
        layout: Layout,
        rope: Rope,
    ) -> list[Tensor]:
        """tokens (B, N, D), control (B, N, patch * C) -> what to add after each of the first
        blocks, (B, N, D) each."""
        hidden, hints = tokens + self.patch_embed(control), []
        for block, out in zip(self.blocks, self.outs, strict=True):
            hidden, text = block(hidden, text, signal, layout, rope)
            hints.append(out(hidden.contiguous()))
        return hints


def _pack(parts: list[Tensor]) -> Tensor:
    """Requests end to end.  R of (1, N_i, D) -> (1, sum of N, D); one of any batch stays as it
    is."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def patchify(x: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """(B, C, T, H, W) -> (B, N, C * patch).  Channels first within a patch, as DiT's convolution
    weight has them."""
    pt, ph, pw = patch
    return rearrange(x, "b c (t pt) (h ph) (w pw) -> b (t h w) (c pt ph pw)", pt=pt, ph=ph, pw=pw)


def unpatchify(x: Tensor, grid: tuple[int, int, int], patch: tuple[int, int, int]) -> Tensor:
    """(B, N, patch * C) -> (B, C, T, H, W).  Channels last within a patch, as in DiT's final
    layer."""
    (t, h, w), (pt, ph, pw) = grid, patch
    return rearrange(
        x, "b (t h w) (pt ph pw c) -> b c (t pt) (h ph) (w pw)", t=t, h=h, w=w, pt=pt, ph=ph, pw=pw
    )
