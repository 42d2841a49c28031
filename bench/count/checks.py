"""A count has to agree with the closed form, with torch's own counter, and with the shapes that the
spec says."""

from collections.abc import Iterator
from contextlib import contextmanager

from bench.core.errors import UserError
from bench.core.specs.model import Model, has_control
from bench.core.specs.workload import Workload
from bench.count.closed import ar as closed_autoregressive
from bench.count.closed import dit as closed_form
from bench.count.rules import PRODUCT_CLASSES, UncountedOperator
from bench.count.trace import Trace
from models.ar.spec import AutoregressiveConfig
from models.python.faults import defined, in_user_code
from models.python.spec import python_parts
from models.spec import (
    DiffusersDenoiser,
    DiffusersVAE,
    DiTConfig,
    PythonPart,
    TextEncoderConfig,
    VAEConfig,
)


class CountMismatch(AssertionError):
    """Two counters disagree: a figure that must not be shown."""


@contextmanager
def said_of_misfits(model: Model, workload: Workload, what: str) -> Iterator[None]:
    """Say in one line where a user's code failed, that a public class does not take what its spec
    gives it, or that a size is beyond torch's.

    Own modules take whatever their spec lets through, so any other error of theirs is a bug and
    keeps its traceback."""
    public = [
        part
        for part in (model.denoiser, model.vae)
        if isinstance(part, (DiffusersDenoiser, DiffusersVAE))
    ]
    of_user = list(python_parts(model))
    try:
        yield
    except (CountMismatch, UserError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if isinstance(error, (RuntimeError, OverflowError)) and "overflow" in reason.lower():
            raise UserError(
                f"model {model.name}, workload {workload.name}: {what}: a tensor of more than 2**63"
                " bytes; make one of the two smaller"
            ) from None
        if of_user and (said := in_user_code(error, of_user)):
            raise UserError(f"model {model.name}: {said}") from error
        if not public or isinstance(error, UncountedOperator):
            raise
        raise UserError(
            f"model {model.name}: {what}:"
            f" {' and '.join(f'diffusers {p.diffusers}' for p in public)} with the spec's config:"
            f" {reason}"
        ) from error


def check_shapes(model: Model, workload: Workload, shapes: dict[str, tuple[int, ...]]) -> None:
    """What comes out must be what the spec says: a wrong factor or channel count makes every figure
    wrong."""
    latents = (workload.batch, model.vae.latent_channels, *model.latent_shape(workload))
    pixels = (workload.batch, 3, workload.frames, workload.height, workload.width)
    drawn = (
        {}
        if model.autoregressive
        else dict.fromkeys(("forward", "denoise_step"), (latents, "denoiser.in_channels"))
    )
    said = {
        **drawn,
        "vae_decode": (pixels, "vae.spatial_factor, temporal_factor, first_frame_alone"),
        "vae_encode": (
            latents,
            "vae.latent_channels, spatial_factor, temporal_factor, first_frame_alone",
        ),
    }
    for stage, (expected, fields) in said.items():
        if (
            stage in shapes and shapes[stage] != expected
        ):  # own VAEs decode in parts, and are held by the closed form
            part = model.vae if stage.startswith("vae") else model.denoiser
            where = f"{defined(part)}: " if isinstance(part, PythonPart) else ""
            raise UserError(
                f"model {model.name}: {where}{stage} gives {shapes[stage]} where the spec says"
                f" {expected}; its class and its spec ({fields}) do not agree"
            )


def closed_forms(
    model: Model, workload: Workload, shape: tuple[int, int, int]
) -> dict[str, dict[str, int]]:
    """FLOPs by class of the stages whose part is our own: a public class has no closed form
    here."""
    batch, forms = workload.batch, {}
    if isinstance(model.denoiser, DiTConfig):
        forms["forward"] = closed_form.dit_forward(model.denoiser, shape, batch)
        forms["train_step"] = closed_form.dit_train(model.denoiser, shape, batch)
    if isinstance(model.denoiser, AutoregressiveConfig):
        forms |= closed_autoregressive.stages(
            model.denoiser, shape, batch, batch * workload.forwards_per_step
        )
    if isinstance(model.vae, VAEConfig):
        forms["vae_decode"] = closed_form.vae_decode(model.vae, shape, batch)
        forms["vae_encode"] = closed_form.vae_encode(
            model.vae, workload.frames, workload.height, workload.width, batch
        )
        clips = [workload.encoded_frames] * (workload.encoded_frames > 0) + [
            workload.frames
        ] * has_control(model)
        if clips:
            forms["condition_encode"] = _total(
                [
                    closed_form.vae_encode(
                        model.vae, frames, workload.height, workload.width, batch
                    )
                    for frames in clips
                ]
            )
    own_encoders = [c for c in model.text_encoders if isinstance(c, TextEncoderConfig)]
    if own_encoders and len(own_encoders) == len(model.text_encoders):
        forms["text_encode"] = _total([closed_form.text_encode(c, batch) for c in own_encoders])
    return forms


def _total(forms: list[dict[str, int]]) -> dict[str, int]:
    return {kind: sum(form[kind] for form in forms) for kind in PRODUCT_CLASSES}


def check(model: Model, stage: str, traced: Trace, expected: dict[str, int] | None) -> None:
    by_class = traced.flops_by_class()
    if expected is not None and by_class != expected:
        raise CountMismatch(
            f"model {model.name}, {stage}: fvcore's rules give {by_class}, the closed form"
            f" {expected}"
        )
    if traced.torch_flops != sum(by_class.values()):
        raise CountMismatch(
            f"model {model.name}, {stage}: fvcore's rules give {sum(by_class.values())} FLOPs, "
            f"torch's counter {traced.torch_flops}"
        )
