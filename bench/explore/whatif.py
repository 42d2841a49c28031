"""What if: a model at a resolution, length and number of steps, by a calibration.

Every answer is `bench.calibrate.estimate.estimate` of exactly that point.  Its count (seconds, by
torch) is kept, so that another card, price or number of steps answers at once.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.calibrate.calibration import kind_of
from bench.calibrate.evidence.forecast import Forecast, as_estimate
from bench.core.errors import UserError, nearest
from bench.core.load import check_point, load, names
from bench.core.presets import recipe_file
from bench.core.specs.model import Model
from bench.core.specs.point import Point
from bench.core.specs.recipe import Recipe
from bench.core.specs.workload import Workload
from bench.count.cache import CountCache
from bench.explore.published import (
    AS_PUBLISHED,
    PUBLISHED,
    on_every_card,
    published_forecast,
    published_point,
)
from bench.report.forecasts import resting_on

KEPT = 256  # counts and calibrations


@dataclass(frozen=True)
class Question:
    """What is asked: names of presets and numbers, nothing else."""

    calibration: str
    model: str
    width: int = 512
    height: int = 512
    seconds: float = 60.0
    fps: float = 24.0
    steps: int = 50
    guidance: str = "none"
    recipe: str | None = None
    gpu: str | None = None

    @classmethod
    def of(cls, words: dict[str, str]) -> "Question":
        """From a request's query.  Raises UserError."""
        kinds = {"width": int, "height": int, "steps": int, "seconds": float, "fps": float}
        unknown = sorted(set(words) - set(cls.__dataclass_fields__))
        if unknown:
            raise UserError(
                f"unknown field {unknown[0]!r}{nearest(unknown[0], cls.__dataclass_fields__)}"
            )
        values: dict[str, Any] = {}
        for name, text in words.items():
            try:
                values[name] = kinds.get(name, str)(text)
            except ValueError:
                raise UserError(f"{name}: {text[:40]!r} is not a number") from None
        for name in ("calibration", "model"):
            if not values.get(name):
                raise UserError(f"{name} is missing")
        for name in kinds:
            if name in values and not 0 < values[name] < 1e7:
                raise UserError(f"{name}: {values[name]!r} is not between 0 and 1e7")
        return cls(**values)

    def point(self, recipe: str) -> Point:
        """Its frames are the nearest number that the model's VAE takes.  Raises UserError."""
        if self.model not in names(
            "models"
        ):  # a preset's name, never a path: a page may not read files
            raise UserError(
                f"unknown model {self.model[:60]!r}{nearest(self.model, names('models'))}"
            )
        if self.guidance not in ("none", "cfg"):
            raise UserError(f"guidance: {self.guidance[:40]!r} is not one of none, cfg")
        model, settings = load(Model, self.model), load(Recipe, recipe)
        wanted = max(1, round(self.seconds * self.fps))
        problem = None
        for frames in sorted(
            (f for f in range(wanted - 8, wanted + 9) if f > 0), key=lambda f: (abs(f - wanted), -f)
        ):
            workload = Workload.model_validate(
                {
                    "name": f"{self.width}x{self.height}-{frames}f",
                    "description": "asked on the page",
                    "frames": frames,
                    "height": self.height,
                    "width": self.width,
                    "fps": self.fps,
                    "steps": self.steps,
                    "guidance": self.guidance,
                    "batch": 1,
                }
            )
            point = Point(model=model, workload=workload, recipe=settings, stages=("denoise_step",))
            try:
                check_point(point)
                return point
            except UserError as error:
                problem = problem or error
        assert problem is not None
        raise problem


class Answers:
    """Answers questions in one process, counts and calibrations kept."""

    def __init__(self, results: Path):
        self.results = results
        self._counts: OrderedDict[str, Any] = OrderedDict()
        self._calibrations: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._work = CountCache()

    def answer(self, question: Question) -> dict[str, Any]:
        """The estimate as JSON.  Raises UserError, EnvironmentFault."""
        if question.calibration == PUBLISHED:
            return self._by_others(question)
        return self._by_records(question)

    def with_cards(self, question: Question) -> dict[str, Any]:
        """The estimate, and the same video on every card that others published of.

        Raises as `answer`."""
        return {**self.answer(question), "cards": self.cards(question)}

    def cards(self, question: Question) -> list[dict[str, Any]]:
        """The same video on every card, by published evidence, the fastest first.  Empty for a
        model that no published row is like, and beside a CPU's records."""
        if question.calibration != PUBLISHED:
            if kind_of(self._calibration(question.calibration).gpu) == "cpu":
                return []
            question = replace(question, calibration=PUBLISHED, recipe=None)
        recipe = _as_named(question.recipe)
        try:
            point = published_point(partial(_valid_point, question), recipe)
        except UserError:
            return []
        return [_bar(f) for f in on_every_card(point, recipe, self._work)]

    def _by_records(self, question: Question) -> dict[str, Any]:
        from bench.calibrate.estimate import estimate
        from bench.calibrate.transfer import check_same_kind

        calibration = self._calibration(question.calibration)
        recipe = question.recipe or calibration.default_recipe
        fit = calibration.fit_for(recipe)  # a calibrated recipe's name or a preset's, not a path
        if question.gpu in names("gpus"):
            check_same_kind(calibration, question.gpu)  # before anything is counted
        point = _valid_point(question, recipe)
        gpu = question.gpu or None
        predicted = estimate(point, calibration, gpu=gpu, count=self._count(point))
        evidence = f"fitted to {len(fit.stages)} stages measured on {calibration.device_name}"
        if predicted.heldout_error is not None:
            error = predicted.heldout_error["mean"]
            evidence += f" (held-out error: {error:.1%} for another point)"
        return answer_document(question, point, recipe, predicted, evidence)

    def _by_others(self, question: Question) -> dict[str, Any]:
        recipe = _as_named(question.recipe)
        point = published_point(partial(_valid_point, question), recipe)
        found = published_forecast(point, recipe, question.gpu, self._work)
        return answer_document(question, point, recipe, as_estimate(found), resting_on(found))

    def _calibration(self, name: str) -> Any:
        from bench.calibrate.read import read_calibration
        from bench.explore.data import result_directories
        from bench.results.store import CALIBRATION

        known = {
            d.relative_to(self.results).as_posix(): d for d in result_directories(self.results)
        }
        if name not in known:  # looked up, never joined to a path
            raise UserError(f"no result {name[:80]!r} here{nearest(name, known)}")
        file = known[name] / CALIBRATION
        key = (name, file.stat().st_mtime_ns if file.is_file() else 0)
        return _kept(self._calibrations, key, lambda: read_calibration(known[name]))

    def _count(self, point: Point) -> Any:
        """A step costs the same whichever of how many it is, and whatever the speed of the finished
        video."""
        from bench.count.point import count_point

        same = point.model_copy(
            update={"workload": point.workload.model_copy(update={"steps": 1, "fps": 1.0})}
        )
        return _kept(self._counts, same.subject, lambda: count_point(point))


def _as_named(recipe: str | None) -> str:
    """A recipe of the published source.  Raises UserError for what is no preset: never a path."""
    known = names("recipes")
    if recipe in (None, AS_PUBLISHED):
        return AS_PUBLISHED
    if recipe_file(recipe)[0] not in known:
        raise UserError(f"unknown recipe {recipe[:60]!r}{nearest(recipe, known)}")
    return recipe


def _valid_point(question: Question, recipe: str) -> Point:
    """Raises UserError, also where a number is out of its bounds."""
    from pydantic import ValidationError

    try:
        return question.point(recipe)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "workload"
        raise UserError(f"{where}: {first['msg']}") from None


def _bar(f: Forecast) -> dict[str, Any]:
    """One card of many."""
    return {
        "gpu": f.gpu.name,
        "minutes_per_gpu_hour": f.minutes_per_gpu_hour.as_dict(),
        "provenance": f.provenance,
        "fits_memory": f.fits_memory,
    }


def answer_document(
    question: Question, point: Point, recipe: str, predicted: Any, evidence: str
) -> dict[str, Any]:
    """An estimate as the page takes it.  SI units; dollars are the page's, by the price that is set
    there.  evidence: what it rests on, in words."""
    quantities = {
        "step_s": predicted.step_s,
        "video_s": predicted.video_s,
        "minutes_per_gpu_hour": predicted.minutes_per_gpu_hour,
        "kwh_per_minute": predicted.kwh_per_minute,
    }
    return {
        "question": asdict(question),
        "frames": point.workload.frames,
        "tokens": point.model.tokens(point.workload),
        "recipe": recipe,
        "gpu": predicted.gpu,
        "fits_memory": predicted.fits_memory,
        "provenance": predicted.provenance,
        "evidence": evidence,
        "warnings": predicted.warnings,
        "heldout_error": predicted.heldout_error,
        "stages": {name: q.as_dict() for name, q in predicted.stages.items()},
        **{name: q.as_dict() if q else None for name, q in quantities.items()},
    }


def _kept(store: OrderedDict[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
    if key in store:
        store.move_to_end(key)
        return store[key]
    value = store[key] = make()
    while len(store) > KEPT:
        store.popitem(last=False)
    return value
