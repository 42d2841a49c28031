"""What each recipe needs of a machine, and what cannot be combined."""

import pytest

from bench.core.errors import UserError
from bench.core.load import load, names
from bench.core.specs.recipe import Recipe
from bench.measure.device.machine import Machine
from bench.measure.recipes.apply import unsupported
from support.measure.recipes import point

STAGES = ("trajectory", "vae_decode")


EVERYTHING = frozenset({"torchao", "triton", "diffusers", "sageattention", "flash_attn_interface"})


CPU_MACHINE = Machine(kind="cpu", capability=None, packages=EVERYTHING, compiler=True)


def card(*capability: int) -> Machine:
    return Machine(
        kind="cuda",
        capability=capability,
        packages=EVERYTHING,
        compiler=True,
        flash_impls=frozenset({"FA3"}),
    )


def bare_card(*capability: int) -> Machine:
    return Machine(
        kind="cuda", capability=capability, packages=frozenset({"triton"}), compiler=True
    )


@pytest.mark.parametrize(
    ("name", "machine", "reason"),
    [
        ("eager-tf32", CPU_MACHINE, "dtype tf32 needs CUDA with compute capability 8.0"),
        (
            "eager-tf32",
            card(7, 5),
            "dtype tf32 needs CUDA with compute capability 8.0; this device has 7.5",
        ),
        ("eager-tf32", card(8, 0), None),
        (
            "eager-fp16",
            CPU_MACHINE,
            "dtype fp16 needs CUDA: a CPU's float16 convolutions take minutes",
        ),
        (
            "fp8-bf16",
            card(8, 0),
            "quantise fp8 needs CUDA with compute capability 8.9; this device has 8.0",
        ),
        ("fp8-bf16", card(9, 0), None),
        ("sparse-bf16", CPU_MACHINE, "sparsity 2:4 needs CUDA with compute capability 8.0"),
        ("sparse-bf16", card(8, 6), None),
        ("autotune-bf16", CPU_MACHINE, "compile autotune needs CUDA, for its graphs"),
        ("offload-weights-bf16", CPU_MACHINE, "offload weights needs CUDA: a CPU has one memory"),
        ("eager-bf16-cudnn", CPU_MACHINE, "attention cudnn needs CUDA"),
        (
            "int8-weight-fp32",
            Machine("cpu", None, frozenset(), True),
            "quantise int8-weight needs torchao (pip install 'ldt-bench[quantise]')",
        ),
        (
            "compile-full-fp32",
            Machine("cpu", None, EVERYTHING, False),
            "compile full needs a C++ compiler (g++ or clang++)",
        ),
        (
            "compile-full-bf16",
            Machine("cuda", (9, 0), frozenset(), True),
            "compile full needs triton, which CUDA builds of PyTorch bring",
        ),
        ("eager-fp32", Machine("cpu", None, frozenset(), False), None),
        (
            "eager-bf16-flash3",
            CPU_MACHINE,
            "attention flash3 needs CUDA with compute capability 9.0",
        ),
        (
            "eager-bf16-flash3",
            card(10, 0),
            "attention flash3 needs CUDA with compute capability 9.0; this device has 10.0",
        ),
        (
            "eager-bf16-flash3",
            bare_card(9, 0),
            (
                "attention flash3 needs flash_attn_interface (FlashAttention-3, built from the"
                " folder hopper of its repository)"
            ),
        ),
        (
            "eager-bf16-flash3",
            Machine("cuda", (9, 0), EVERYTHING, True),
            (
                "attention flash3 needs a PyTorch with"
                " torch.nn.attention.activate_flash_attention_impl, as 2.11 has"
            ),
        ),
        (
            "eager-bf16-fp8-attention",
            card(8, 9),
            "attention fp8-flash3 needs CUDA with compute capability 9.0; this device has 8.9",
        ),
        (
            "eager-bf16-sage",
            card(7, 5),
            "attention sage needs CUDA with compute capability 8.0; this device has 7.5",
        ),
        (
            "eager-bf16-sage",
            bare_card(8, 0),
            "attention sage needs sageattention (pip install 'ldt-bench[attention]')",
        ),
        ("eager-bf16-sage", card(8, 0), None),
        (
            "fp8-regional-bf16",
            bare_card(9, 0),
            "quantise fp8 needs torchao (pip install 'ldt-bench[quantise]')",
        ),
        ("cuda-graph-bf16", CPU_MACHINE, "cuda_graph needs CUDA"),
        ("cudnn-benchmark-bf16", CPU_MACHINE, "cudnn_benchmark needs CUDA"),
        (
            "vae-compiled-fp32",
            Machine("cpu", None, EVERYTHING, False),
            "compile_vae full needs a C++ compiler (g++ or clang++)",
        ),
        ("fastest-attention-fp32", Machine("cpu", None, frozenset(), False), None),
    ],
)
def test_each_recipe_says_what_it_lacks(name, machine, reason):
    assert unsupported(load(Recipe, name), machine) == reason


def test_a_whole_h100_lacks_nothing():
    assert not [name for name in names("recipes") if unsupported(load(Recipe, name), card(9, 0))]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"quantise": "fp8"}, "quantise fp8 with dtype fp32: it takes bf16"),
        ({"sparsity": "2:4"}, "sparsity 2:4 with dtype fp32: it takes bf16 or fp16"),
        (
            {"dtype": "bf16", "sparsity": "2:4", "quantise": "fp8"},
            "quantise fp8 with sparsity 2:4: one of the two alone",
        ),
        (
            {"compile": "full", "guidance": "packed"},
            "compile full with guidance packed: one of the two alone",
        ),
        (
            {"guidance": "packed", "batch": 2},
            "guidance packed: own denoisers pack requests, at batch 1",
        ),
        ({"sampler": "lcm", "steps": 9}, "lcm takes 1 to 8; nearest: 8"),
        ({"denoiser": {"atention": "full"}}, "denoiser.atention is not one of"),
        (
            {"cache": {"kind": "pab", "every": 2, "warmup": 1, "last": 0}},
            "cache pab is diffusers', for public models",
        ),
        (
            {"guidance": "packed", "cache": {"kind": "taylor", "every": 2, "warmup": 1, "last": 0}},
            "cache taylor with guidance packed: one of the two alone",
        ),
        ({"cache": {"kind": "taylor", "every": 0, "warmup": 1, "last": 0}}, "every is 0"),
        (
            {
                "draft": {
                    "denoiser": {"depht": 1},
                    "schedule": {"share": 0.5, "draft_runs": "early"},
                }
            },
            "denoiser.depht is not one",
        ),
        ({"denoiser": {"attention": "windowed"}}, "window"),
        ({"quantize": "fp8"}, "did you mean"),
        ({"attention": "sage"}, "attention sage with dtype fp32: it takes bf16 or fp16"),
        (
            {"attention": "fastest", "compile": "regional"},
            "attention fastest with compile regional: one of the two alone",
        ),
        (
            {"cuda_graph": True, "compile": "full"},
            "cuda_graph True with compile full: one of the two alone",
        ),
        (
            {"cuda_graph": True, "guidance": "packed"},
            "cuda_graph True with guidance packed: one of the two alone",
        ),
        (
            {"compile_vae": "full", "vae_chunk": 2},
            "compile_vae full with vae_chunk 2: one of the two alone",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_combined_is_said_in_one_line(recipe, message):
    with pytest.raises(UserError, match=message) as caught:
        point(recipe)
    assert "\n" not in str(caught.value)
