"""What a recipe may need of the machine it runs on, and what is here."""

import importlib.util
import os
import shutil
from dataclasses import dataclass

import torch
import torch.distributed as dist

from models.parallel.spec import Parallel

PACKAGES = ("torchao", "triton", "diffusers", "sageattention", "flash_attn_interface")


@dataclass(frozen=True)
class Machine:
    """What a recipe may need."""

    kind: str
    """cpu or cuda."""
    capability: tuple[int, int] | None
    """Of the CUDA device."""
    packages: frozenset[str]
    """Of those that recipes need, the ones that are installed."""
    compiler: bool
    """A C++ compiler, which torch.compile needs on a CPU."""
    flash_impls: frozenset[str] = frozenset()
    """FlashAttention versions that this PyTorch can put in the place of its own: FA3, FA4."""
    ranks: int = 1
    """Processes of this one's group."""

    def lacks_capability(
        self, least: tuple[int, int], most: tuple[int, int] | None = None
    ) -> str | None:
        """Why its compute capability is not at least (and not above) this; None where it is."""
        wanted = f"needs CUDA with compute capability {_dotted(least)}"
        if self.capability is None:
            return wanted
        fits = self.capability >= least and (most is None or self.capability <= most)
        return None if fits else f"{wanted}; this device has {_dotted(self.capability)}"

    def lacks_package(self, name: str, how: str) -> str | None:
        """Why a package is missing, and how to get it; None where it is installed."""
        return None if name in self.packages else f"needs {name} ({how})"

    def lacks_ranks(self, parallel: Parallel | None) -> str | None:
        """Why a mesh cannot run in this process; None where it can."""
        if parallel is None or parallel.ranks == self.ranks:
            return None
        return f"{parallel.words()} needs a group of {parallel.ranks} ranks, found {self.ranks}"

    def lacks_inductor(self) -> str | None:
        """Why torch.compile cannot run; None where it can."""
        if self.kind == "cuda":
            return (
                None
                if "triton" in self.packages
                else "needs triton, which CUDA builds of PyTorch bring"
            )
        return None if self.compiler else "needs a C++ compiler (g++ or clang++)"


def _group_size() -> int:
    """Of this process's group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def this_machine(device: torch.device) -> Machine:
    """What is here."""
    return Machine(
        kind=device.type,
        capability=torch.cuda.get_device_capability(device) if device.type == "cuda" else None,
        packages=frozenset(name for name in PACKAGES if importlib.util.find_spec(name) is not None),
        compiler=any(
            shutil.which(name) for name in (os.environ.get("CXX", "g++"), "c++", "clang++")
        ),
        ranks=_group_size(),
        flash_impls=_flash_impls(),
    )


def _flash_impls() -> frozenset[str]:
    """FA3 and FA4 in PyTorch 2.11; older ones may have no such list."""
    listed = getattr(torch.nn.attention, "list_flash_attention_impls", None)
    return frozenset(listed()) if listed is not None else frozenset()


def _dotted(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
