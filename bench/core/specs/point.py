"""A point: one model at one workload under one recipe, with the stages that are timed."""

from typing import get_args

from pydantic import BaseModel, ConfigDict

from bench.core.specs.base import fingerprint
from bench.core.specs.model import Model, Stage, with_denoiser
from bench.core.specs.recipe import Recipe
from bench.core.specs.workload import MASKED_TASKS, Workload
from models.caching.schedules import OwnCache
from models.spec import DiTConfig, PythonDenoiser, VAEConfig


class Point(BaseModel):
    """One model x workload x recipe, with the stages that are timed."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model: Model
    workload: Workload
    recipe: Recipe
    stages: tuple[Stage, ...]

    @property
    def label(self) -> str:
        return f"{self.model.name} {self.workload.name} {self.recipe.name}"

    @property
    def fingerprint(self) -> str:
        """Of everything that decides what is executed; names and descriptions do not."""
        return fingerprint({**self._parts, "stages": self.stages})

    @property
    def subject(self) -> str:
        """Fingerprint of model, workload and recipe, whichever stages are timed."""
        return fingerprint(self._parts)

    @property
    def on_one_rank(self) -> "Point":
        """The same without a mesh: what a model computes is counted so, whoever shares it."""
        if self.recipe.parallel is None:
            return self
        recipe = self.recipe.model_copy(update={"parallel": None})
        return self.model_copy(update={"recipe": recipe})

    @property
    def as_counted(self) -> "Point":
        """The same without a mesh and with random weights: what is counted is the same."""
        alone = self.on_one_rank
        if self.model.weights is None:
            return alone
        model = self.model.model_copy(update={"weights": None})
        return alone.model_copy(update={"model": model})

    @property
    def _parts(self) -> dict[str, object]:
        unsaid = {"name", "description", "source"}
        of_model = unsaid if self.model.weights else unsaid | {"weights"}
        parts = {
            "model": self.model.model_dump(mode="json", exclude=of_model),
            "workload": self.workload.model_dump(mode="json", exclude=unsaid),
        }
        return {**parts, "recipe": self.recipe.identity()}


def check(model: Model, workload: Workload, recipe: Recipe) -> None:
    """Raises ValueError where the three do not go together."""
    model.tokens(workload)
    if workload.encoded_frames:
        try:
            model.vae.latent_frames(workload.encoded_frames)
        except ValueError as error:
            raise ValueError(f"given_frames: {error}") from None
    if model.autoregressive and workload.task != "text-to-video":
        raise ValueError(f"task {workload.task}: an auto-regressive model takes text-to-video")
    masked = isinstance(model.denoiser, DiTConfig) and model.denoiser.masked_condition
    if workload.task in MASKED_TASKS and not masked:
        raise ValueError(
            f"task {workload.task} needs a denoiser with masked_condition; this one takes"
            " text-to-video and video-to-video"
        )
    if recipe.vae_chunk is not None and not isinstance(model.vae, VAEConfig):
        raise ValueError(
            f"recipe {recipe.name}: vae_chunk {recipe.vae_chunk}: only own VAEs decode in parts"
        )
    own = isinstance(model.denoiser, DiTConfig)
    if recipe.guidance == "packed" and (not own or workload.batch != 1):
        raise ValueError(
            f"recipe {recipe.name}: guidance packed: own denoisers pack requests, at batch 1"
        )
    of_user = isinstance(model.denoiser, PythonDenoiser)
    if recipe.cache is not None and of_user and recipe.cache.kind != "whole-step":
        raise ValueError(
            f"recipe {recipe.name}: cache {recipe.cache.kind}: a class of your own takes whole-step"
        )
    if recipe.cache is not None and own and recipe.cache.kind not in get_args(OwnCache):
        raise ValueError(
            f"recipe {recipe.name}: cache {recipe.cache.kind} is diffusers', for public models; own"
            f" ones take {', '.join(get_args(OwnCache))}"
        )
    if recipe.draft is not None:
        with_denoiser(model, recipe.draft.denoiser)
