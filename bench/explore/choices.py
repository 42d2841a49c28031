"""What the page's controls offer."""

import json
from dataclasses import asdict
from typing import Any

from bench.calibrate.calibration import kind_of
from bench.core.load import load, names
from bench.core.specs.gpu import Gpu
from bench.core.specs.workload import Workload
from bench.studies.pencil.demand import HOURS_PER_DAY, Demand, Headroom

SIZES = ((512, 512), (832, 480), (1280, 720))  # width, height
OWN_CLIPS = {
    "wan2.1-t2v-14b": "720p-81f",
    "wan2.1-t2v-1.3b": "480p-81f",
    "wan2.2-t2v-a14b": "720p-81f",
    "wan2.2-ti2v-5b": "704x1280-121f",
    "hunyuanvideo": "720p-129f",
    "hunyuanvideo-1.5": "480x848-121f",
    "ltx-video-2b": "512x704-161f",
    "ltx-video-13b": "512x704-161f",
    "ltx-2": "512x768-121f",
    "cogvideox-2b": "480x720-49f",
    "cogvideox-5b": "480x720-49f",
    "cogvideox1.5-5b": "768x1360-81f",
    "mochi-1": "480x848-163f",
    "allegro": "720p-88f",
    "skyreels-v2-14b": "544x960-97f",
    "cosmos-predict2-2b": "704x1280-93f",
    "cosmos-predict2-14b": "704x1280-93f",
    "sora-20b": "sora-1min-512",
}
"""The clip that a model's own repository makes by default, as configs/workloads describes it."""


def own_clip(model: str) -> Workload | None:
    return load(Workload, OWN_CLIPS[model]) if model in OWN_CLIPS else None


def sizes_of(model: str) -> list[tuple[int, int]]:
    """Width, height: what is offered for a model, its own size among them."""
    clip = own_clip(model)
    own = [] if clip is None else [(clip.width, clip.height)]
    return list(dict.fromkeys([*own, *SIZES]))


def _clip(model: str) -> dict[str, Any] | None:
    """What the fields hold for a model at first."""
    clip = own_clip(model)
    if clip is None:
        return None
    return clip.model_dump(include={"width", "height", "frames", "fps", "steps", "guidance"})


def choices() -> dict[str, Any]:
    """Presets, cards with their prices, resolutions, and the pencil study's demand."""
    cards = [load(Gpu, name) for name in names("gpus")]
    price = {
        c.name: c.price_usd_per_hour and json.loads(c.price_usd_per_hour.model_dump_json())
        for c in cards
    }
    return {
        "models": names("models"),
        "sizes": {name: sizes_of(name) for name in names("models")},
        "clips": {name: _clip(name) for name in OWN_CLIPS},
        "gpus": [{"name": c.name, "price": price[c.name], "kind": kind_of(c.name)} for c in cards],
        "demand": {
            "minutes_per_day": Demand().minutes_per_day,
            **asdict(Headroom()),
            "hours_per_day": HOURS_PER_DAY,
        },
    }
