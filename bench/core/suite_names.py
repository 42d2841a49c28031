"""The recipes of a suite by the names that records carry: a suite's dtypes become part of them."""

from bench.core.errors import UserError, brief
from bench.core.presets import (
    full_name,
    is_path,
    is_preset,
    open_recipe,
    read_preset,
    recipe_file,
)
from bench.core.specs.suite import Suite, SuitePoints


def with_full_names(suite: Suite) -> Suite:
    """The suite with each recipe named with its dtype, and no dtype beside the names.  Raises
    UserError for a dtype that a recipe does not have."""
    points = [_entry(suite, i, entry) for i, entry in enumerate(suite.points)]
    recipe = _full(suite.headline.recipe, suite.dtype)
    headline = suite.headline.model_copy(update={"recipe": recipe})
    return suite.model_copy(update={"points": tuple(points), "headline": headline, "dtype": None})


def _entry(suite: Suite, index: int, entry: SuitePoints) -> SuitePoints:
    recipes = []
    for recipe in entry.recipe:
        try:
            recipes += (
                _in_each(recipe, entry.dtype) if entry.dtype else [_full(recipe, suite.dtype)]
            )
        except UserError as error:
            raise UserError(f"suite {suite.name}, points.{index}.dtype: {error}") from None
    baseline = None if entry.baseline is None else _full(entry.baseline, suite.dtype)
    return entry.model_copy(update={"recipe": tuple(recipes), "baseline": baseline, "dtype": None})


def _in_each(recipe: str, dtypes: tuple[str, ...]) -> list[str]:
    if is_path(recipe):
        raise UserError(f"{brief(recipe)} is a file; write the dtype into it")
    stem, said = recipe_file(recipe)
    if said is None and open_recipe(stem):
        return [full_name(stem, dtype) for dtype in dtypes]
    if not is_preset("recipes", recipe):
        return [recipe]  # an error that names the point, once the suite is expanded
    said = said or read_preset("recipes", stem)["dtype"]
    if said not in dtypes:
        raise UserError(f"recipe {recipe} has dtype {said}, not {' or '.join(dtypes)}")
    return [recipe]


def _full(recipe: str, dtype: str | None) -> str:
    """In `dtype` where the name leaves it open; where that is None in the recipe's own."""
    stem, said = recipe_file(recipe)
    if said is not None or not open_recipe(recipe):
        return recipe
    return full_name(stem, dtype or read_preset("recipes", stem)["dtype"])
