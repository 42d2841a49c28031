"""--weights: real weights of a local folder, by their digests.  No torch."""

from pathlib import Path

from bench.core.errors import UserError
from bench.core.load import load, models_of
from bench.core.specs.model import Model, kind_of
from bench.core.specs.suite import Suite
from models.real_weights import digest, note_place, parts_in


def weights_of(path: str, model: Model) -> dict[str, str]:
    """SHA-256 by part of the weights that a folder holds for a model; where it lies is noted for
    this command.  Raises UserError.

    Own VAEs and the stand-ins for text encoders have no published weights: theirs stay random."""
    kinds = {"denoiser": "public", "vae": kind_of(model.vae)}
    kinds |= {f"text_encoders.{i}": kind_of(part) for i, part in enumerate(model.text_encoders)}
    try:
        found = {}
        for part, places in parts_in(Path(path)).items():
            if kinds.get(part, "own") == "own":
                continue
            found[part] = digest(places)
            note_place(found[part], places)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    return found


def with_weights(suite: Suite, options: list[str]) -> Suite:
    """The suite with real weights for its models.  options: "DIR", for a suite of one model, or
    "MODEL=DIR".  Raises UserError."""
    models, chosen = models_of(suite), dict(suite.weights or {})
    for option in options:
        model, equals, path = option.rpartition("=")
        if not equals and len(models) > 1:
            raise UserError(
                f"--weights {option}: {suite.name} measures {len(models)} models; write"
                f" MODEL=DIR, of {', '.join(models[:6])}{', ...' if len(models) > 6 else ''}"
            )
        if equals and model not in models:
            raise UserError(
                f"--weights {option}: {suite.name} does not measure {model}; it measures"
                f" {', '.join(models[:6])}"
            )
        model = model or models[0]
        chosen[model] = weights_of(path, load(Model, model))
    return suite.model_copy(update={"weights": chosen or None})
