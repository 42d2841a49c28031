"""What a video holds, by class of operator: of one denoiser forward, of the VAE and of the text
encoders.  Needs no torch where it was counted before, or travels with the package."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from bench.core.errors import UserError
from bench.core.specs.model import Model
from bench.count.cache import CountCache
from bench.count.closed import dit as closed_form
from bench.results.counts import ClassWork
from models.python.faults import in_user_code
from models.python.spec import python_parts
from models.spec import PythonTextEncoder, TextEncoderConfig

TextEncoder = TextEncoderConfig | PythonTextEncoder
Size = tuple[int, int, int]
"""Frames, height, width in pixels."""


def forward_work(model: Model, size: Size, cache: CountCache) -> ClassWork:
    """One denoiser forward of one sample.  Imports torch where it was not counted before."""
    shape = model.vae.latent_shape(*size)

    def count() -> dict[str, int]:
        from bench.count.depth import forward_work as counted

        return asdict(_said(model, counted, model.denoiser, shape))

    return ClassWork(**cache.numbers(["forward", _part(model, "denoiser"), shape], count))


def decode_flops(model: Model, size: Size, cache: CountCache) -> int:
    """The VAE's decoding of one clip, in one piece."""

    def count() -> int:
        from bench.count.depth import decode_flops as counted

        return _said(model, counted, model.vae, *size)

    return _one(cache, ["decode", _part(model, "vae"), size], count)


def encode_flops(model: Model, size: Size, cache: CountCache) -> int:
    """The VAE's encoding of one clip, in one piece."""

    def count() -> int:
        from bench.count.depth import encode_flops as counted

        return _said(model, counted, model.vae, *size)

    return _one(cache, ["encode", _part(model, "vae"), size], count)


def denoiser_params(model: Model, cache: CountCache) -> int:
    """Parameters of all its experts."""

    def count() -> int:
        from bench.count.depth import denoiser_params as counted

        return _said(model, counted, model.denoiser)

    return _one(cache, ["params", _part(model, "denoiser")], count)


def denoiser_depth(model: Model, cache: CountCache) -> int:
    """Blocks, of every kind."""

    def count() -> int:
        from bench.count.depth import blocks

        return _said(model, blocks, model.denoiser)

    return _one(cache, ["depth", _part(model, "denoiser")], count)


def denoiser_heads(model: Model, cache: CountCache) -> int:
    """Attention heads of a block."""

    def count() -> int:
        from bench.count.depth import heads

        return _said(model, heads, model.denoiser)

    return _one(cache, ["heads", _part(model, "denoiser")], count)


def denoiser_attention_width(model: Model, cache: CountCache) -> int:
    """Columns of the queries of a block."""

    def count() -> int:
        from bench.count.depth import attention_width

        return _said(model, attention_width, model.denoiser)

    return _one(cache, ["attention width", _part(model, "denoiser")], count)


def text_work(encoders: tuple[TextEncoder, ...], prompts: int) -> ClassWork:
    """The text encoders' products, by the closed form; what is elementwise in them is thousandths
    of a video.  A user's class has no such form, and is left out."""
    total = ClassWork()
    for config in encoders:
        if not isinstance(config, TextEncoderConfig):
            continue
        by_class = closed_form.text_encode(config, prompts)
        total += ClassWork(
            linear_flops=by_class["linear"] + by_class["other"],
            attention_flops=by_class["attention"],
            conv_flops=by_class["conv"],
        )
    return total


def _said(model: Model, count: Callable[..., Any], *args: Any) -> Any:
    """What `count` gives.  Raises UserError where a user's class fails."""
    parts = list(python_parts(model))
    if not parts:
        return count(*args)
    try:
        return count(*args)
    except Exception as error:
        raise UserError(f"model {model.name}: {in_user_code(error, parts)}") from error


def _part(model: Model, name: str) -> dict[str, Any]:
    return model.model_dump(mode="json")[name]


def _one(cache: CountCache, what: object, count: Callable[[], int]) -> int:
    return cache.numbers(what, lambda: {"flops": count()})["flops"]
