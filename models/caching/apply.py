"""Which cache a denoiser runs under: own ones between their blocks, public ones by diffusers'
hooks."""

from typing import get_args

from models.caching.cache import Cache, WholeStepCache
from models.caching.own import BlockCache
from models.caching.schedules import CacheConfig, OwnCache
from models.denoiser import Denoiser
from models.dit.model import SpatioTemporalDiT


def apply_cache(denoiser: Denoiser, config: CacheConfig) -> Cache:
    """Let an own or a public denoiser run under a cache.

    Raises ValueError with the reason where it cannot."""
    if not isinstance(denoiser, Denoiser):
        raise ValueError(
            f"cache {config.kind}: an auto-regressive model has no denoising steps to reuse"
        )
    if denoiser.cache is not None:
        raise ValueError(
            f"the denoiser has a cache already ({denoiser.cache.config.kind}); remove() it first"
        )
    if config.kind == "whole-step":
        return WholeStepCache(denoiser, config)
    if not isinstance(denoiser, SpatioTemporalDiT):
        from models.caching.hooks import DiffusersCache  # diffusers takes seconds to import

        return DiffusersCache(denoiser, config)
    if config.kind not in get_args(OwnCache):
        raise ValueError(
            f"cache {config.kind} is diffusers', for public models; own ones take "
            f"{', '.join(get_args(OwnCache))}"
        )
    return BlockCache(denoiser, config)
