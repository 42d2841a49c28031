"""What the page's controls offer."""

import json
from dataclasses import asdict
from typing import Any

from bench.calibrate.calibration import kind_of
from bench.core.load import load, names
from bench.core.specs.gpu import Gpu
from bench.explore.grid import SIZES
from bench.studies.pencil.demand import HOURS_PER_DAY, Demand, Headroom


def choices() -> dict[str, Any]:
    """Presets, cards with their prices, resolutions, and the pencil study's demand."""
    cards = [load(Gpu, name) for name in names("gpus")]
    price = {
        c.name: c.price_usd_per_hour and json.loads(c.price_usd_per_hour.model_dump_json())
        for c in cards
    }
    return {
        "models": names("models"),
        "sizes": SIZES,
        "gpus": [{"name": c.name, "price": price[c.name], "kind": kind_of(c.name)} for c in cards],
        "demand": {
            "minutes_per_day": Demand().minutes_per_day,
            **asdict(Headroom()),
            "hours_per_day": HOURS_PER_DAY,
        },
    }
