"""Shape of a text encoder: frozen, validated, torch-free."""

from dataclasses import dataclass
from typing import ClassVar

from models.bounds import Depth, Few, Size, check_bounds


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
