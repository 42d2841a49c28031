"""How a denoiser is trained and sampled: frozen, validated, torch-free."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from models.bounds import Size, check_bounds, require_one_of

Path = Literal["linear", "gvp", "ddpm-linear", "ddpm-cosine"]
"""How data becomes noise (models.diffusion.process.coefficients): SiT's two interpolants and DDPM's
two beta schedules."""
Prediction = Literal["velocity", "noise", "score", "data"]
"""What the model's output means."""
Diffusion = Literal["constant", "sbdm", "sigma", "linear", "decreasing", "increasing-decreasing"]
"""Forms of SiT's diffusion coefficient w(t)."""
Sampler = Literal["euler", "heun", "sde", "ddim", "ddpm", "flow-euler", "flow-heun", "lcm"]

DDPM_STEPS = 1000
"""Levels of noise that DDPM's schedules have (arXiv 2006.11239)."""
LCM_MAX_STEPS = 8


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How noise becomes data: which sampler, over which path, in how many steps."""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    sampler: Sampler
    """euler, heun (ODE) and sde (Euler-Maruyama) take any path; ddim, ddpm and lcm a ddpm- path;
    flow- the linear one."""
    steps: Size
    """Steps from noise to data; heun and flow-heun call the model twice in nearly each."""
    path: Path
    prediction: Prediction
    diffusion: Diffusion | None
    """w(t), for sde alone."""
    diffusion_norm: float | None
    """Scale of w(t), for sde alone: 0 is the ODE."""
    last_step: float | None
    """Time left for sde's last, noiseless step (SiT: 0.04), since the score grows as 1 / sigma."""
    eta: float | None
    """Noise of ddim: 0 deterministic, 1 as ancestral DDPM."""

    def __post_init__(self) -> None:
        require_one_of(
            self, sampler=get_args(Sampler), path=get_args(Path), prediction=get_args(Prediction)
        )
        check_bounds(self)
        own = {"sde": ("diffusion", "diffusion_norm", "last_step"), "ddim": ("eta",)}.get(
            self.sampler, ()
        )
        for name in ("diffusion", "diffusion_norm", "last_step", "eta"):
            value = getattr(self, name)
            if (value is not None) != (name in own):
                raise ValueError(
                    f"{name} is {value}: sampler {self.sampler} "
                    + ("needs one" if name in own else "takes none, it must be null")
                )
        paths = {
            "ddim": "ddpm-linear, ddpm-cosine",
            "ddpm": "ddpm-linear, ddpm-cosine",
            "lcm": "ddpm-linear, ddpm-cosine",
            "flow-euler": "linear",
            "flow-heun": "linear",
        }.get(self.sampler)
        if paths and self.path not in paths.split(", "):
            raise ValueError(f"path {self.path!r}: sampler {self.sampler} takes {paths}")
        self._check_steps()
        if self.sampler == "sde":
            require_one_of(self, diffusion=get_args(Diffusion))
            if self.diffusion_norm < 0:
                raise ValueError(f"diffusion_norm {self.diffusion_norm}: it must be at least 0")
            if not 0 < self.last_step < 1:
                raise ValueError(
                    f"last_step {self.last_step}: it must lie between 0 and 1; SiT's is 0.04"
                )
        if self.sampler == "ddim" and not 0 <= self.eta <= 1:
            raise ValueError(f"eta {self.eta}: it must lie in 0 to 1")

    def _check_steps(self) -> None:
        if self.sampler == "lcm" and self.steps > LCM_MAX_STEPS:
            raise ValueError(
                f"steps is {self.steps}: lcm takes 1 to {LCM_MAX_STEPS}; nearest: {LCM_MAX_STEPS}"
            )
        if self.sampler == "ddpm" and self.steps > DDPM_STEPS:
            raise ValueError(
                f"steps is {self.steps}: ddpm takes 1 to {DDPM_STEPS}; nearest: {DDPM_STEPS}"
            )
        if self.sampler == "ddim" and DDPM_STEPS % self.steps:
            # diffusers' DDIM steps by DDPM_STEPS // steps whatever its timesteps are, and so would
            # lag behind them.
            legal = [n for n in range(1, DDPM_STEPS + 1) if DDPM_STEPS % n == 0]
            close = [*(n for n in legal if n < self.steps)][-1:] + [
                *(n for n in legal if n > self.steps)
            ][:1]
            raise ValueError(
                f"steps is {self.steps}: ddim takes divisors of {DDPM_STEPS}; "
                f"nearest: {' or '.join(map(str, close))}"
            )


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What a denoiser is trained on."""

    __pydantic_config__: ClassVar[dict] = {"extra": "forbid"}

    path: Path
    prediction: Prediction
    times: Literal["uniform", "logit-normal"]
    """Distribution of t: uniform (DDPM, SiT), or the sigmoid of a normal, more of it half way
    (arXiv 2403.03206)."""

    def __post_init__(self) -> None:
        require_one_of(
            self,
            path=get_args(Path),
            prediction=get_args(Prediction),
            times=("uniform", "logit-normal"),
        )
