"""Records whose operators run at the same rates share one fit, under whichever recipes they were
measured.

What decides the rates of a device is the dtype, the kernels that compute attention, and how the
model is executed (compiled, quantised, sparse, offloaded): `rates_key`.  What a recipe changes of
the work alone (chunks and tiles of the VAE, steps, guidance, batch, fields of the denoiser, caches)
is in the counts, so it splits nothing.

On a CPU own models run oneDNN's products and attention in blocks (models/kernels.py) where public
ones run PyTorch's own, so the two have a fit each.  On CUDA both call the same libraries, and share
one.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from bench.core.specs.base import Spec
from bench.core.specs.model import Model, kind_of
from bench.core.specs.recipe import Recipe
from bench.results.base import Strict
from bench.results.records import PointRecord

WORK_ALONE = frozenset(Spec.model_fields) | {
    "vae_chunk",
    "vae_tile",
    "guidance",
    "steps",
    "sampler",
    "batch",
    "denoiser",
    "cache",
    "draft",
}
"""Fields of a recipe that change which operators run, and not how fast one of them is.  A field
that is not named here splits the fits, so that a new one is never pooled unseen."""
DENOISER_STAGES = frozenset({"denoise_step", "train_step", "trajectory"})
Models = Literal["own", "public"]


class RatesKey(Strict):
    """The settings that decide the rates of an operator on one device."""

    dtype: str
    attention: str | None
    """The kernels that ran (bench.results.records.AttentionRan); on a CPU, and where no record
    says, as the recipe asks. Null: the pooled points timed no denoiser, so any would do."""
    models: Models | None
    """On a CPU, whose models; null on CUDA."""
    execution: dict[str, Any] = Field(default_factory=dict)
    """The recipe's other settings that decide, where they are not the default: compile, quantise,
    sparsity, offload, ..."""

    def beside(self) -> str:
        """All but attention, to be compared."""
        return json.dumps(self.model_dump(mode="json", exclude={"attention"}), sort_keys=True)


@dataclass(frozen=True)
class Pool:
    """Records of one fit."""

    key: RatesKey
    records: list[PointRecord]

    @property
    def telling(self) -> list[PointRecord]:
        """Those that are of this pool alone; all, where none timed a denoiser."""
        return [r for r in self.records if times_denoiser(r)] or self.records

    @property
    def recipes(self) -> list[str]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(r.recipe for r in self.telling))

    @property
    def asked(self) -> list[str]:
        """Attention as these recipes ask for it: auto, cudnn, ..."""
        return list(dict.fromkeys(r.point["recipe"]["attention"] for r in self.telling))


def times_denoiser(record: PointRecord) -> bool:
    """Does it tell one attention kernel from another?  A text encoder's and a VAE's share of
    attention is too small."""
    return bool(DENOISER_STAGES & set(record.timings))


def execution_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """RatesKey.execution of a recipe's fields, as a record has them or as they were dumped."""
    known = Recipe.model_fields
    return {
        name: value
        for name, value in sorted(recipe.items())
        if name not in WORK_ALONE | {"dtype", "attention"}
        and value != (known[name].default if name in known else None)
    }


def models_of(device: str, model: Model | Mapping[str, Any]) -> Models | None:
    """Tell own models from public ones by the denoiser, on a CPU; None elsewhere, where both run
    the same kernels.  A mapping is a record's own copy."""
    if device != "cpu":
        return None
    part = (model.get("denoiser") or {}) if isinstance(model, Mapping) else model.denoiser
    return "public" if kind_of(part) in ("diffusers", "python") else "own"


def rates_key(record: PointRecord, usual: str | None = None) -> RatesKey:
    """The settings that decided how fast a record's operators ran.

    usual: what ran in most records of its recipe, for one that does not say."""
    settings = record.point["recipe"]
    ran = record.attention_ran.backend if record.attention_ran is not None else usual
    if (
        ran is None or record.environment.device == "cpu"
    ):  # there it follows the size, within one recipe
        ran = settings["attention"]
    return RatesKey(
        dtype=settings["dtype"],
        attention=ran if times_denoiser(record) else None,
        models=models_of(record.environment.device, record.point.get("model") or {}),
        execution=execution_of(settings),
    )


def pools(records: Iterable[PointRecord]) -> list[Pool]:
    """Records by what decides their rates, in the order measured.  A point without its denoiser is
    in every pool that is otherwise like it: that gives each the convolutions and the text
    encoder."""
    records = list(records)
    usual = _usual(records)
    keyed = [(rates_key(r, usual.get(r.recipe)), r) for r in records]
    told: dict[str, list[str]] = {}
    for key, _ in keyed:
        families = told.setdefault(key.beside(), [])
        if key.attention is not None and key.attention not in families:
            families.append(key.attention)
    grouped: dict[tuple[str, str | None], Pool] = {}
    for key, record in keyed:
        families = [key.attention] if key.attention is not None else told[key.beside()] or [None]
        for family in families:
            pool = grouped.setdefault(
                (key.beside(), family), Pool(key.model_copy(update={"attention": family}), [])
            )
            pool.records.append(record)
    return list(grouped.values())


def _usual(records: list[PointRecord]) -> dict[str, str]:
    """Recipe -> the kernels that most of its records say ran."""
    seen: dict[str, Counter[str]] = {}
    for record in records:
        if record.attention_ran is not None:
            seen.setdefault(record.recipe, Counter())[record.attention_ran.backend] += 1
    return {recipe: counts.most_common(1)[0][0] for recipe, counts in seen.items()}
