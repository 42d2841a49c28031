"""Every model under every recipe on a CUDA card that is a fake, as a table.

python tests/tools/fake_cuda.py [--slow]
"""

import sys
from collections import defaultdict
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.measure.every_point import (  # noqa: E402 (this script is run by its path)
    RAN,
    plan,
    point_of,
    run,
    summary,
)


def main() -> None:
    """The table: models down, how many stages ran and what failed."""
    planned = plan(slow="--slow" in sys.argv)
    failed: dict[str, list[str]] = defaultdict(list)
    for model, recipe, stages in planned:
        try:
            run(point_of(model, recipe, stages), model, recipe)
        except Exception as error:
            failed[model].append(
                f"{recipe}: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:150]}"
            )
    for model in dict.fromkeys(m for m, _, _ in planned):
        recipes = {r for m, r, _ in RAN if m == model}
        print(
            f"{model:24} {len(recipes):4} recipes"
            f" {sum(n for (m, _, _), n in RAN.items() if m == model):5} stages",
            *(f"\n    FAILED {line}" for line in failed[model]),
        )
    print(
        f"\nran {sum(RAN.values())} stages on fake CUDA, torch {torch.__version__}; planned:"
        f" {summary(planned)}"
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
