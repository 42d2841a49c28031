"""What a measurement depends on: device, driver, libraries, threads, code.  Nothing that identifies
a person or host."""

import hashlib
import os
import platform
import re
import subprocess
from pathlib import Path

import torch

from bench.core.errors import EnvironmentFault
from bench.core.load import load, names
from bench.core.specs.gpu import Gpu
from bench.core.version import version
from bench.results.environment import Environment

CODE_VERSION_VARIABLE = "LDT_BENCH_CODE_VERSION"  # for a copy without .git


def choose_device(wanted: str | None) -> torch.device:
    """cuda where there is one, else cpu.  Raises EnvironmentFault where CUDA is asked for and
    cannot be had."""
    if wanted == "cpu" or (wanted is None and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = (
            f"torch {torch.__version__} is built for CUDA {torch.version.cuda}"
            if torch.version.cuda
            else f"torch {torch.__version__} is a build without CUDA"
        )
        raise EnvironmentFault(f"--device cuda: no CUDA device can be used here ({built})")
    return torch.device("cuda", torch.cuda.current_device())


def describe(device: torch.device) -> Environment:
    """The environment of this process on a device."""
    cuda = device.type == "cuda"
    properties = torch.cuda.get_device_properties(device) if cuda else None
    name = properties.name if properties else _cpu_name()
    uuid = str(properties.uuid) if properties and hasattr(properties, "uuid") else None
    return Environment(
        gpu=gpu_name(name) if cuda else "cpu",
        device=device.type,
        device_name=name,
        device_uuid_hash=hashlib.sha256(uuid.encode()).hexdigest()[:16] if uuid else None,
        driver=_driver() if cuda else None,
        cuda=torch.version.cuda if cuda else None,
        cudnn=torch.backends.cudnn.version() if cuda else None,
        torch=torch.__version__,
        python=platform.python_version(),
        os=f"{platform.system()} {platform.machine()}",
        threads=torch.get_num_threads(),
        memory_bytes=properties.total_memory
        if properties
        else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        code_version=code_version(),
    )


def gpu_name(device_name: str) -> str:
    """The datasheet in configs/gpus that lists this device; a slug of the name where none does."""
    for name in names("gpus"):
        if device_name in load(Gpu, name).device_names:
            return name
    return re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-")


def code_version() -> str:
    """Git SHA of the checkout (+ when files differ from it), else $LDT_BENCH_CODE_VERSION, else the
    package's."""
    root = Path(__file__).resolve().parents[3]
    if (root / ".git").exists():
        try:
            sha = _git(root, "rev-parse", "--short=12", "HEAD")
            return sha + (
                "+"
                if _git(root, "status", "--porcelain", "--", "bench", "models", "configs")
                else ""
            )
        except (OSError, subprocess.SubprocessError):
            pass  # no git here, or no commit yet: the package's version will do
    if os.environ.get(CODE_VERSION_VARIABLE):
        return os.environ[CODE_VERSION_VARIABLE]
    return version()


def _git(root: Path, *args: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *args], check=True, capture_output=True, text=True, timeout=10
    ).stdout.strip()


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def _driver() -> str | None:
    import pynvml

    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return None
