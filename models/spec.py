"""Every spec by its name: shapes of models as frozen dataclasses without torch, so that listing and
closed forms need none.

A field's docstring gives its unit.  Each spec lies beside the modules that are built from it.
"""

from models.diffusion.spec import (
    DDPM_STEPS,
    Diffusion,
    ObjectiveConfig,
    Path,
    Prediction,
    SamplerConfig,
)
from models.dit.spec import DiTConfig
from models.public.spec import DiffusersDenoiser, DiffusersVAE
from models.python.spec import PythonDenoiser, PythonPart, PythonTextEncoder, PythonVAE
from models.text.spec import TextEncoderConfig
from models.vae.spec import VAEConfig, VAEShape

__all__ = [
    "DDPM_STEPS",
    "DiTConfig",
    "DiffusersDenoiser",
    "DiffusersVAE",
    "Diffusion",
    "ObjectiveConfig",
    "Path",
    "Prediction",
    "PythonDenoiser",
    "PythonPart",
    "PythonTextEncoder",
    "PythonVAE",
    "SamplerConfig",
    "TextEncoderConfig",
    "VAEConfig",
    "VAEShape",
]
