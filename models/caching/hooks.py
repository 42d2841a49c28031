"""Public denoisers under diffusers' own cache hooks, on this project's fixed schedule.

diffusers decides by thresholds (first-block, MagCache), by counting (TaylorSeer) or by timesteps
(PAB, FasterCache).  Here each hook is told before each evaluation whether it computes: by the
argument its decision reads where there is one, else in place of its decision, so that no residual
is compared and the device is not waited for.  PAB's and FasterCache's hooks know no branches; their
states are swapped with the branch.

The `WITHOUT` table and the names of private parts hold for diffusers 0.42; tests/test_caching.py
runs every pair.
"""

import math
from collections.abc import Callable
from typing import Any

import diffusers
from diffusers import hooks
from diffusers.hooks import faster_cache, pyramid_attention_broadcast
from torch import Tensor, nn

from models.caching.cache import Cache
from models.caching.schedules import CacheConfig
from models.denoiser import Denoiser

NEVER_BY_COUNT = 1 << 30  # a hook that counts to it never computes for having counted
ALL_TIMES = (-1, 2)  # what the callback says, 0 or 1, lies within; 3 does not
# TaylorSeer's paper keeps the outputs of attention and feed-forward.  diffusers' own patterns are
# matched in full and end
# in "attn", so that they miss attn1 and attn2 of Wan, LTX, CogVideoX and others.
TAYLOR_PARTS = [r"(.*_)?(blocks|layers)\.\d+\.(attn\d?|ffn?|ff\d?|mlp|ff_context|cross_attn)"]


class DiffusersCache(Cache):
    """First-block, TaylorSeer, MagCache, PAB or FasterCache on a PublicDenoiser."""

    def __init__(self, denoiser: Denoiser, config: CacheConfig):
        """Raises ValueError with the reason where diffusers' hook does not take the class."""
        models, name = list(denoiser.experts), denoiser.spec.diffusers
        reason = (
            None
            if hasattr(models[0], "enable_cache")
            else f"diffusers' {name} takes no caches (no CacheMixin)"
        )
        reason = reason or WITHOUT.get((name, config.kind))
        if reason:
            raise ValueError(f"cache {config.kind}: {reason}")
        self._skip, self._hooks = False, []
        for model in models:
            try:
                model.enable_cache(SETTINGS[config.kind](self, model))
            except ValueError as error:
                _remove_hooks(models)
                why = (
                    "its blocks are not registered with the hook"
                    if "not registered" in str(error)
                    else str(error)
                )
                raise ValueError(f"cache {config.kind}: diffusers' {name}: {why}") from None
            found = [
                hook
                for part in model.modules()
                for hook in _hooks_of(part).values()
                if isinstance(hook, HOOKS[config.kind])
            ]
            if not found:
                _remove_hooks(models)
                raise ValueError(
                    f"cache {config.kind}: diffusers' hook finds no layer of its kind in {name}"
                )
            self._hooks += found
        self._swapped: dict[str, list[Any]] = {}
        _OVERRIDES.get(config.kind, lambda cache: None)(self)
        super().__init__(denoiser, config)

    def remove(self) -> None:
        super().remove()
        _remove_hooks(list(self.denoiser.experts))

    def _forget(self) -> None:
        for model in self.denoiser.experts:
            model._reset_stateful_cache()
        self._swapped = {}

    def _run(
        self, index: int, computed: bool, x: Tensor, t: Tensor, condition: dict[str, Tensor]
    ) -> Tensor:
        self._skip = not computed
        if self.config.kind == "magcache":
            for (
                hook
            ) in self._hooks:  # ratios of 1 accumulate no error: over -1, never over infinity
                hook.config.threshold = math.inf if self._skip else -1.0
        if self.config.kind in ("pab", "fastercache"):
            states = self._swapped.setdefault(
                self._branch, [STATES[self.config.kind]() for _ in self._hooks]
            )
            for hook, state in zip(self._hooks, states, strict=True):
                hook.state = state
        with self.denoiser.model.cache_context(self._branch):
            return self.denoiser.compute(x, t, **condition)

    def _time(self) -> int:
        """What PAB and FasterCache read as the timestep: within their range where they are to use
        what they have."""
        return 1 if self._skip else 3


def _pab(cache: DiffusersCache, model: nn.Module) -> Any:
    ranges = {
        f"{axis}_attention_block_skip_range": NEVER_BY_COUNT
        for axis in ("spatial", "temporal", "cross")
    }
    times = {
        f"{axis}_attention_timestep_skip_range": ALL_TIMES
        for axis in ("spatial", "temporal", "cross")
    }
    return diffusers.PyramidAttentionBroadcastConfig(
        **ranges, **times, current_timestep_callback=cache._time
    )


def _fastercache(cache: DiffusersCache, model: nn.Module) -> Any:
    """Its reuse of attention.  Its other half, the unconditional output from the conditional one,
    wants both branches in one batch and latents of (B, C, T, H, W), which half the classes do not
    take: left off as for a distilled model."""
    return diffusers.FasterCacheConfig(
        spatial_attention_block_skip_range=NEVER_BY_COUNT,
        temporal_attention_block_skip_range=NEVER_BY_COUNT,
        spatial_attention_timestep_skip_range=ALL_TIMES,
        temporal_attention_timestep_skip_range=ALL_TIMES,
        attention_weight_callback=lambda module: 0.5,
        is_guidance_distilled=True,
        current_timestep_callback=cache._time,
    )


def _taylorseer(cache: DiffusersCache, model: nn.Module) -> Any:
    return diffusers.TaylorSeerCacheConfig(
        max_order=1,
        taylor_factors_dtype=next(model.parameters()).dtype,
        cache_identifiers=TAYLOR_PARTS,
    )


def _magcache(cache: DiffusersCache, model: nn.Module) -> Any:
    config = hooks.MagCacheConfig(
        mag_ratios=[1.0], num_inference_steps=1, retention_ratio=0.0, max_skip_steps=NEVER_BY_COUNT
    )
    config.num_inference_steps = (
        NEVER_BY_COUNT  # afterwards: it would stretch the ratios to as many, and forgets then
    )
    return config


SETTINGS: dict[str, Callable[[DiffusersCache, nn.Module], Any]] = {
    "first-block": lambda cache, model: diffusers.FirstBlockCacheConfig(),
    "taylor": _taylorseer,
    "magcache": _magcache,
    "pab": _pab,
    "fastercache": _fastercache,
}
HOOKS: dict[str, tuple[type, ...]] = {
    "first-block": (hooks.first_block_cache.FBCHeadBlockHook,),
    "taylor": (hooks.taylorseer_cache.TaylorSeerCacheHook,),
    "magcache": (hooks.mag_cache.MagCacheHeadHook, hooks.mag_cache.MagCacheBlockHook),
    "pab": (pyramid_attention_broadcast.PyramidAttentionBroadcastHook,),
    "fastercache": (faster_cache.FasterCacheBlockHook,),
}
STATES = {
    "pab": pyramid_attention_broadcast.PyramidAttentionBroadcastState,
    "fastercache": faster_cache.FasterCacheBlockState,
}


def _decide_first_block(cache: DiffusersCache) -> None:
    for hook in cache._hooks:
        hook._should_compute_remaining_blocks = lambda residual: not cache._skip


def _decide_taylor(cache: DiffusersCache) -> None:
    def decide(hook: Any) -> tuple[bool, Any]:
        state = hook.state_manager.get_state()
        state.current_step += 1
        return not cache._skip, state

    for hook in cache._hooks:
        hook._measure_should_compute = lambda hook=hook: decide(hook)


_OVERRIDES = {"first-block": _decide_first_block, "taylor": _decide_taylor}

_LATTE = (
    "Latte's spatial and temporal blocks see tokens in different shapes, so no difference spans"
    " them"
)
WITHOUT = {
    ("LatteTransformer3DModel", "first-block"): _LATTE,
    ("LatteTransformer3DModel", "magcache"): _LATTE,
}
"""(class, kind) -> why diffusers' hook attaches and then fails."""


def _hooks_of(module: nn.Module) -> dict[str, Any]:
    registry = getattr(module, "_diffusers_hook", None)
    return {} if registry is None else registry.hooks


def _remove_hooks(models: list[nn.Module]) -> None:
    """Of all kinds, also those of a hook that gave up half-way."""
    for model in models:
        for part in model.modules():
            for name in reversed(list(_hooks_of(part))):
                part._diffusers_hook.remove_hook(name, recurse=False)
        registry = getattr(model, "_diffusers_hook", None)
        if registry is not None:
            registry.invalidate_child_registries_cache()
        model._cache_config = None
