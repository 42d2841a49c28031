"""Shape of an auto-regressive video model: a decoder-only transformer over the tokens of a
vector-quantised clip.

In the manner of VideoPoet (Kondratyuk et al. 2023, arXiv 2312.14125).  Torch-free, so that closed
forms need no torch.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from models.bounds import Depth, Few, FewOrNone, Flag, Size, SizeOrNone, Within, check_bounds


@dataclass(frozen=True, kw_only=True)
class AutoregressiveConfig:
    """Causal blocks with RMSNorm and rotary positions over [prompt | video tokens]; the prompt is a
    text encoder's output."""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    code_bits: Annotated[int, Within(1, 24)]
    """Bits of a video token: a tokenizer without lookup (LFQ, arXiv 2310.05737) has one latent
    channel a bit."""
    other_vocabulary: SizeOrNone
    """Further entries of the vocabulary: special and audio tokens, 0 for none."""
    width: Size
    """D, channels of a token."""
    depth: Depth
    num_heads: Few
    head_dim: Few
    kv_heads: Few
    """Heads of keys and values: num_heads, or fewer where they are shared (GQA, arXiv
    2305.13245)."""
    ffn_width: Size
    gated: Flag
    """Feed-forward of three matrices (SwiGLU, arXiv 2002.05202) instead of two (GELU)."""
    text_width: Size
    """Channels of the text encoder."""
    text_tokens: Size
    """Prompt length."""
    window: Size
    """Latent frames that one context holds; a longer clip is made window by window."""
    overlap: FewOrNone
    """Latent frames of the window before that begin the next one's context, 0 for none."""

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not a multiple of kv_heads {self.kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(f"head_dim {self.head_dim}: rotary positions need an even one")
        if self.overlap >= self.window:
            raise ValueError(f"overlap {self.overlap}: it must be less than window {self.window}")

    @property
    def vocabulary(self) -> int:
        return 2**self.code_bits + self.other_vocabulary

    @property
    def in_channels(self) -> int:
        """Latent channels of its tokenizer."""
        return self.code_bits

    def tokens(self, latent_shape: tuple[int, int, int]) -> int:
        """Video tokens of one sample: one a latent cell."""
        t, h, w = latent_shape
        return t * h * w

    def plan(self, latent_shape: tuple[int, int, int]) -> "Decoding":
        """Which calls make a clip of latents (T, H, W)."""
        frames, frame = latent_shape[0], latent_shape[1] * latent_shape[2]
        windows, done = (
            [(0, min(self.window, frames) * frame)],
            min(self.window, frames),
        )  # (given, new) tokens
        while done < frames:
            new = min(self.window - self.overlap, frames - done)
            windows.append((self.overlap * frame, new * frame))
            done += new
        return Decoding(prompt=self.text_tokens, windows=tuple(windows))


@dataclass(frozen=True)
class Decoding:
    """The calls that make one clip.  A prefill takes prompt and given tokens and yields the
    window's first new token; each further one takes a call of its own, over a cache that is one
    longer each time."""

    prompt: int
    windows: tuple[tuple[int, int], ...]
    """(given, new) video tokens of each window."""

    @property
    def prefill_calls(self) -> int:
        return len(self.windows)

    @property
    def prefill_tokens(self) -> int:
        """Of a window that goes on from another (the first has the prompt alone), or of the only
        one."""
        return self.prompt + self.windows[-1][0]

    @property
    def decode_calls(self) -> int:
        return sum(new - 1 for _, new in self.windows)

    @property
    def attended(self) -> int:
        """Cache entries read by all decode calls together: the i-th of a window reads prompt +
        given + i."""
        return sum(
            (new - 1) * (self.prompt + given) + new * (new - 1) // 2 for given, new in self.windows
        )

    @property
    def cache_length(self) -> int:
        """Of the mean decode call, which stands for all of them: work, bytes and so time are affine
        in the length."""
        return round(self.attended / self.decode_calls) if self.decode_calls else self.prompt + 1

    @property
    def context(self) -> int:
        """Entries that the cache must hold."""
        return max(self.prompt + 1, *(self.prompt + given + new - 1 for given, new in self.windows))
