"""A Gaussian, for which every path, prediction and sampler has a closed form."""

import torch
from torch import Tensor

from models.diffusion.process import (
    coefficients,
)
from models.spec import SamplerConfig

F64 = torch.float64


MEAN = torch.tensor([1.0, -0.5], dtype=F64)


COVARIANCE = torch.tensor([[0.8, 0.3], [0.3, 0.5]], dtype=F64)


VALUES, VECTORS = torch.linalg.eigh(COVARIANCE)


M = MEAN.view(1, 2, 1, 1, 1)


def config(
    sampler: str, steps: int, path: str, prediction: str = "velocity", **change
) -> SamplerConfig:
    own = {
        "sde": {"diffusion": "sigma", "diffusion_norm": 1.0, "last_step": 0.04},
        "ddim": {"eta": 0.0},
    }
    empty = {"diffusion": None, "diffusion_norm": None, "last_step": None, "eta": None}
    return SamplerConfig(
        **{
            **empty,
            **own.get(sampler, {}),
            "sampler": sampler,
            "steps": steps,
            "path": path,
            "prediction": prediction,
            **change,
        }
    )


def filtered(f: Tensor, x: Tensor) -> Tensor:
    """The matrix with the covariance's eigenvectors and eigenvalues f, times x."""
    return torch.einsum("ij,j,kj,bk...->bi...", VECTORS, f, VECTORS, x)


def gaussian(path: str, prediction: str):
    """The exact model: E[data | x_t], E[noise | x_t], and what follows from them."""

    def model(x: Tensor, t: Tensor) -> Tensor:
        c = coefficients(path, t, x.double())
        a, s = c.alpha[0].item(), c.sigma[0].item()
        off = filtered(1 / (a * a * VALUES + s * s), x.double() - a * M)
        data, noise = M + a * filtered(VALUES, off), s * off
        return {
            "data": data,
            "noise": noise,
            "score": -off,
            "velocity": c.d_alpha * data + c.d_sigma * noise,
        }[prediction].to(x.dtype)

    return model


def normal(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 2, 1, 1, 1, generator=torch.Generator().manual_seed(seed), dtype=F64)
