"""Bytes sent per rank: the dispatch mode, the closed form and torch's CommDebugMode agree."""

from typing import Any

import pytest
import torch
from torch.distributed.tensor.debug import CommDebugMode
from torch.utils._python_dispatch import TorchDispatchMode

from bench.core.errors import UserError
from bench.core.load import load_point
from bench.core.specs.point import Point
from bench.count.parallel.closed import step_messages
from bench.count.parallel.point import check_mesh, closed_messages, count_rank
from bench.count.parallel.sent import sent_bytes
from models.parallel.spec import parse_parallel

MODELS = ("tiny", "tiny-joint", "tiny-factorised")
MESHES = (
    "data=2",
    "cfg=2",
    "ulysses=2",
    "ulysses=4",
    "ring=2",
    "ring=3",
    "ring=8",
    "tensor=2",
    "tensor=4",
    "cfg=2,ulysses=2",
    "cfg=2,ulysses=4",
    "cfg=2,ring=4",
    "cfg=2,tensor=4",
    "ring=2,ulysses=2",
    "ring=4,ulysses=4",
    "ulysses=2,tensor=2",
    "ring=5,tensor=2",
    "cfg=2,ring=2,ulysses=2,tensor=2",
    "data=4,cfg=2,ulysses=4",
    "data=2,ring=7,ulysses=2,tensor=2",
)


class TorchsOwn(CommDebugMode):
    """torch's counter of calls, without its tracker of modules, which loses count of parents."""

    def __enter__(self) -> "TorchsOwn":
        self.comm_counts.clear()
        self.advanced_module_tracker.module_parents_dict = {"": set()}
        TorchDispatchMode.__enter__(self)
        return self

    def __exit__(self, *error: Any) -> None:
        TorchDispatchMode.__exit__(self, *error)


def point(model: str, mesh: str, blocks: int = 2) -> Point:
    changes = {"denoiser.depth": blocks, "recipe.parallel": parse_parallel(mesh)}
    return load_point(model, "tiny-video", "eager", changes)


@pytest.mark.parametrize("model", MODELS)
def test_three_counters_agree_on_twenty_meshes(model: str) -> None:
    refused = []
    for mesh in MESHES:
        # The others have blocks of two kinds.
        asked = point(model, mesh, blocks=1 if model == "tiny" else 2)
        torch_own = TorchsOwn()
        try:
            counted = count_rank(asked, torch_own)  # raises where trace and closed form differ
        except UserError as error:
            refused.append(str(error))
            continue
        assert counted.closed_form
        calls = sum(sent.calls for sent in counted.sent)
        assert sum(torch_own.get_comm_counts().values()) == calls, (mesh, counted.sent)
    if model == "tiny-factorised":
        assert all("needs all tokens; use ulysses" in said for said in refused)
        assert len(refused) == sum("ring" in mesh for mesh in MESHES)
    else:
        assert refused == []


def test_a_step_of_ulysses_and_guidance_by_hand() -> None:
    """tiny on tiny-video: 576 tokens of width 256 in bfloat16, 144 on each of four ranks."""
    asked = point("tiny", "cfg=2,ulysses=4")
    config, element = asked.model.denoiser, 2
    assert (asked.model.tokens(asked.workload), config.width) == (576, 256)
    chunk, width = 144, 256
    exchanged = 2 * (3 + 1) * chunk * width * element * 3 // 4  # 2 blocks, q k v and the answer
    patches = chunk * config.out_channels * 4 * element * 3  # to three other ranks
    latents = config.in_channels * element
    for n in asked.model.latent_shape(asked.workload):
        latents *= n
    messages = closed_messages(asked)
    assert sum(sent.bytes_sent for sent in messages) == exchanged + patches + latents


@pytest.mark.parametrize(
    ("collective", "expected"),
    [
        ("all-to-all", 75),  # 100 bytes, three quarters leave
        ("all-gather", 300),  # to three others
        ("reduce-scatter", 75),
        ("all-reduce", 150),  # reduce-scatter, then all-gather of a quarter
        ("point-to-point", 100),
    ],
)
def test_bytes_of_one_call_among_four_ranks(collective: str, expected: int) -> None:
    assert sent_bytes(collective, 4, 100) == expected


def test_an_odd_number_of_tokens_sends_as_if_padded() -> None:
    config = point("tiny", "ulysses=2").model.denoiser
    from models.parallel.spec import Parallel

    odd, even = (
        step_messages(config, (1, 6, w), Parallel(ulysses=2), batch=1, element=4, guided=False)
        for w in (10, 12)  # 15 and 18 tokens: chunks of 8 and 9
    )
    ratio = odd[-1].bytes_sent / even[-1].bytes_sent
    assert ratio == pytest.approx(8 / 9)


def test_ranks_share_the_flops() -> None:
    alone = count_rank(point("tiny", "data=1")).flops
    guided = count_rank(point("tiny", "cfg=2")).flops
    spread = count_rank(point("tiny", "cfg=2,ulysses=4")).flops
    assert guided == alone / 2
    assert guided / 4 < spread < guided / 4 * 1.02  # modulation is every rank's own


@pytest.mark.parametrize(
    ("mesh", "said"),
    [
        ("ulysses=3", "ulysses 3 does not divide 4 heads"),
        ("ulysses=2,tensor=4", "ulysses 2 x tensor 4 does not divide 4 heads"),
        ("ring=4096", "4096 ranks share"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused_in_a_line(mesh: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_mesh(point("tiny", mesh))


def test_public_denoisers_are_traced() -> None:
    changes = {
        "recipe.parallel": {"ulysses": 2},
        "denoiser.config.num_layers": 2,
    }
    counted = count_rank(load_point("wan-tiny", "tiny-video", "eager", changes))
    assert not counted.closed_form
    assert counted.bytes_sent > 0
    assert torch.distributed.is_initialized() is False


def test_sharded_weights_are_gathered_in_each_forward() -> None:
    """Each block's weights, cut in two along their first dimension, once a forward."""
    alone, sharded = (point("tiny", f"data=2,shard_weights={yes}") for yes in ("false", "true"))
    with_weights = count_rank(sharded)
    (weights,) = with_weights.weights
    assert count_rank(alone).weights == []
    width, hidden = 256, 1024
    linears = [(3 * width, width), (width, width), (hidden, width), (width, hidden)]
    linears += [(6 * width, width)]  # its modulation
    elements = sum(rows * columns + rows for rows, columns in linears)
    assert weights.message.bytes_sent == elements // 2 * 2  # half of them, in bfloat16
    assert weights.calls == 2 * 2  # blocks, forwards


@pytest.mark.parametrize(
    ("model", "mesh", "said"),
    [
        ("tiny-ar", "ulysses=2", "auto-regressive: it runs on one rank"),
        ("wan-tiny", "tensor=2", "along ulysses and ring alone"),
        ("wan-tiny", "ring=2", "no CPU has one"),
        ("wan-tiny", "ulysses=7", "does not divide"),
    ],
)
def test_what_cannot_be_cut_is_one_line(model: str, mesh: str, said: str) -> None:
    asked = load_point(model, "tiny-video", "eager", {"recipe.parallel": parse_parallel(mesh)})
    with pytest.raises(UserError, match=said):
        count_rank(asked)
