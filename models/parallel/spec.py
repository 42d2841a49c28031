"""On how many ranks one model runs, and along which axes it is cut.  No torch.

A rank is one process with one GPU (or one group of CPU cores).  Axes, from the outermost (fewest
bytes, may cross nodes) to the innermost (most bytes, wants the fastest link):

- data: independent samples, the baseline of every mesh.
- cfg: the two branches of classifier-free guidance, each on its own ranks.
- ring: keys and values travel around a ring (Ring Attention, arXiv 2310.01889).
- ulysses: tokens are exchanged for heads around attention (DeepSpeed-Ulysses, arXiv 2309.14509).
- tensor: columns, then rows, of each pair of products (Megatron-LM, arXiv 1909.08053).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

AXES = ("data", "cfg", "ring", "ulysses", "tensor")
MAX_RANKS = 4096


class Parallel(BaseModel):
    """Degrees by axis; their product is the number of ranks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: int = Field(default=1, ge=1, le=MAX_RANKS)
    cfg: int = Field(default=1, ge=1, le=2)
    ring: int = Field(default=1, ge=1, le=MAX_RANKS)
    ulysses: int = Field(default=1, ge=1, le=MAX_RANKS)
    tensor: int = Field(default=1, ge=1, le=MAX_RANKS)
    shard_weights: bool = False
    """Each rank keeps a share of every block's weights and gathers the rest as it runs (FSDP, arXiv
    2304.11277), so that a model larger than a card fits."""
    vae: int = Field(default=1, ge=1, le=MAX_RANKS)
    """Ranks that share the decode, by time chunks or tiles."""

    @model_validator(mode="after")
    def _ranks_that_can_be(self) -> "Parallel":
        if self.ranks > MAX_RANKS:
            raise ValueError(f"{self.words()} is {self.ranks:,} ranks; at most {MAX_RANKS:,}")
        if self.ranks % self.vae:
            raise ValueError(f"vae {self.vae} does not divide the mesh's ranks, {self.ranks}")
        if self.shard_weights and self.tensor > 1:
            raise ValueError("shard_weights with tensor: one of the two alone")
        return self

    @property
    def ranks(self) -> int:
        """Of the whole group."""
        return prod(getattr(self, axis) for axis in AXES)

    @property
    def degrees(self) -> dict[str, int]:
        """Axis -> degree, outermost first."""
        return {axis: getattr(self, axis) for axis in AXES}

    @property
    def sequence(self) -> int:
        """Ranks that share one sample's tokens."""
        return self.ring * self.ulysses

    @property
    def of_one_sample(self) -> int:
        """Ranks that work on one sample."""
        return self.ranks // self.data

    def words(self) -> str:
        """E.g. "cfg 2 x ulysses 4"; one rank is "1 GPU"."""
        parts = [f"{axis} {n}" for axis, n in self.degrees.items() if n > 1]
        parts += ["sharded weights"] if self.shard_weights else []
        parts += [f"vae {self.vae}"] if self.vae > 1 else []
        return " x ".join(parts) or "1 GPU"


@dataclass(frozen=True)
class Shape:
    """What a mesh must divide: of one model at one workload."""

    heads: int | None
    """None, as of tokens: not known here, so that nothing is refused by it."""
    tokens: int | None
    guided: bool = True
    attention: str = "full"
    qk_norm: str = "none"
    mlp_width: int = 0

    NO_RING: ClassVar[tuple[str, ...]] = ("factorised", "windowed")


def refusal(parallel: Parallel, shape: Shape) -> str | None:
    """Why a model cannot run on a mesh; None where it can."""
    if parallel.cfg > 1 and not shape.guided:
        return f"cfg {parallel.cfg}: the workload runs without guidance, so there is one branch"
    cut = {"ulysses": parallel.ulysses, "tensor": parallel.tensor}
    if shape.heads is not None and shape.heads % (parallel.ulysses * parallel.tensor):
        said = " x ".join(f"{a} {n}" for a, n in cut.items() if n > 1)
        return f"{said} does not divide {shape.heads} heads"
    if shape.tokens is not None and parallel.sequence > shape.tokens:
        return f"{parallel.sequence} ranks share {shape.tokens} tokens: at most one rank a token"
    if parallel.ring > 1 and shape.attention in Shape.NO_RING:
        return f"ring {parallel.ring}: {shape.attention} attention needs all tokens; use ulysses"
    if parallel.tensor > 1 and shape.qk_norm == "across_heads":
        return f"tensor {parallel.tensor}: this model's QK norm spans all heads"
    if parallel.tensor > 1 and shape.mlp_width % parallel.tensor:
        return f"tensor {parallel.tensor} does not divide the MLP's width {shape.mlp_width}"
    return None


def every_mesh(ranks: int) -> Iterator[Parallel]:
    """Every product of degrees that makes so many ranks; no weights are sharded."""
    for data in _divisors(ranks):
        for cfg in (d for d in (1, 2) if ranks // data % d == 0):
            for ring in _divisors(ranks // data // cfg):
                for ulysses in _divisors(ranks // data // cfg // ring):
                    tensor = ranks // data // cfg // ring // ulysses
                    yield Parallel(data=data, cfg=cfg, ring=ring, ulysses=ulysses, tensor=tensor)


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def parse_parallel(text: str) -> dict[str, Any]:
    """'ulysses=8,cfg=2' -> {"ulysses": 8, "cfg": 2}.  Raises ValueError, with the part that is
    wrong."""
    out: dict[str, Any] = {}
    for part in text.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            raise ValueError(f"{part.strip()!r}: expected AXIS=DEGREE, e.g. ulysses=4,cfg=2")
        if name in out:
            raise ValueError(f"{name} is given twice")
        if name == "shard_weights":
            if value not in ("true", "false"):
                raise ValueError(f"shard_weights={value!r}: expected true or false")
            out[name] = value == "true"
        elif not (value.isascii() and value.isdigit() and len(value) <= 6):
            raise ValueError(f"{name}={value!r}: expected a whole number")
        else:
            out[name] = int(value)
    return out
