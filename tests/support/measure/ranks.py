"""A few processes that talk through gloo, for what one process cannot show."""

import multiprocessing
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

PATIENCE_S = 240


def on_ranks(world: int, folder: Path, function: Callable[..., Any], *args: Any) -> list[Any]:
    """What function(*args) gives on each of `world` ranks.  A module-level function of one thread a
    rank; its answer is tensors and plain values.  Raises RuntimeError with a rank's traceback."""
    spawn = multiprocessing.get_context("forkserver")
    spawn.set_forkserver_preload(["torch", "torch.distributed", "torch._dynamo", "models.pipeline"])
    ranks = [
        spawn.Process(target=_rank, args=(i, world, folder, function, args), daemon=True)
        for i in range(world)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(PATIENCE_S)
        rank.kill()
    answers = []
    for i in range(world):
        file = folder / f"answer-{i}"
        if not file.exists():
            raise RuntimeError(f"rank {i} of {world} gave no answer")
        answer = torch.load(file, weights_only=False)
        if isinstance(answer, str) and answer.startswith("Traceback"):
            raise RuntimeError(f"rank {i} of {world}: {answer}")
        answers.append(answer)
    return answers


def _rank(
    index: int, world: int, folder: Path, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=index, world_size=world)
    try:
        answer = function(*args)
    except Exception:
        answer = traceback.format_exc()
    torch.save(answer, folder / f"answer-{index}")
    dist.destroy_process_group()
