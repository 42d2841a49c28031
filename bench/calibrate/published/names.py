"""What the words of somebody else's latency table mean: models, GPUs, scopes, ways of running.

Every reading is returned with a note where it is not word for word, so that a table says what was
made of it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

MODEL_PATTERNS: tuple[tuple[str, str], ...] = (
    # letters, digits and dots of a name, lower case -> a name in configs/models; the first that is
    # found
    (r"wan(video)?v?2\.?1.*1\.3b", "wan2.1-t2v-1.3b"),
    (r"wan(video)?v?2\.?1.*14b", "wan2.1-t2v-14b"),
    (r"wan(video)?v?2\.?2.*14b", "wan2.2-t2v-a14b"),
    (r"wan(video)?v?2\.?2.*5b", "wan2.2-ti2v-5b"),
    (r"wan(video)?(t2v|i2v)?1\.3b", "wan2.1-t2v-1.3b"),
    (r"hunyuanvideov?1\.5", "hunyuanvideo-1.5"),
    (r"hunyuanvideo|hyvideo|^hunyuan$", "hunyuanvideo"),
    (r"cogvideoxv?1\.5", "cogvideox1.5-5b"),
    (r"cogvideox.*5b", "cogvideox-5b"),
    (r"cogvideox.*2b", "cogvideox-2b"),
    (r"ltxv?(video)?.*13b", "ltx-video-13b"),
    (r"ltxv?2(?!b)", "ltx-2"),
    (r"ltxv(ideo)?", "ltx-video-2b"),
    (r"mochi", "mochi-1"),
    (r"allegro", "allegro"),
    (r"sanavideo", "sana-video-2b"),
    (r"skyreelsv?2.*14b", "skyreels-v2-14b"),
    (r"latte", "latte"),
    (r"^ditxl2(512.*|256.*)?$", "dit-xl-2"),
    (r"cosmospredict2(?!\.5).*14b", "cosmos-predict2-14b"),
    (r"cosmospredict2(?!\.5).*2b", "cosmos-predict2-2b"),
)
DISTILLED = re.compile(
    r"distil|turbo|lightning|lcm|causvid|self-?forcing|fast-?(wan|hunyuan|video|ltx|mochi)|\bdmd|"
    r"accvideo|schnell|light(x2v|vae)|tiny-?(vae|ae)|teacache|magcache|fbcache|pruned",
    re.IGNORECASE,
)
GUIDANCE_DISTILLED = re.compile(r"(guidance|cfg)[-_ ]?(step[-_ ]?)?distil\w*", re.IGNORECASE)
"""One forward a step instead of two, each the base model's: `forwards_per_video` says so."""
VARIANT = re.compile(
    r"vace|control|animate|s2v|avatar|framepack|talk|foley|upscal|refiner", re.IGNORECASE
)
GUESSED = re.compile(r"from memory|assumed|not read|approximate", re.IGNORECASE)
GIVEN_FRAMES = re.compile(
    r"i2v|v2v|v2w|flf|image-?(to|2)|video-?(to|2)-?(video|world)", re.IGNORECASE
)
ENCODES_WHOLE_CLIP = ("wan2.1", "wan2.2-t2v", "skyreels", "cosmos")
"""Models whose image-to-video pipeline encodes a clip as long as the result, given frames first
(Wan, Cosmos)."""

GPU_WORDS: tuple[tuple[str, str], ...] = (
    # letters and digits of a name, its memory left out -> a name in configs/gpus, "" for a card
    # without a datasheet there
    (r"h100.*pcie", "h100-pcie"),
    (r"h100.*nvl", "h100-nvl"),
    (r"gh200|gb300", ""),
    (r"h200.*nvl", "h200-nvl"),
    (r"gb200", "gb200"),
    (r"b300(?!\d)", "b300"),
    (r"h[18]00(?!\d)", "h100-sxm"),
    (r"h200(?!\d)", "h200"),
    (r"b200(?!\d)", "b200"),
    (r"a[18]00(?!\d)", "a100-80gb"),
    (r"l40s", "l40s"),
    (r"l40(?!\d)", "l40"),
    (r"l20(?!\d)", "l20"),
    (r"rtxpro6000", "rtx-pro-6000"),
    (r"(rtx)?6000ada", "rtx-6000-ada"),
    (r"4090d", ""),
    (r"4090(?!\d)", "rtx-4090"),
    (r"h20(?!\d)", "h20"),
)
GPU_REMARKS = {
    "h800": "H800: an H100 SXM with less NVLink",
    "a800": "A800: an A100 80 GB with less NVLink",
    "h100": "H100 without a form factor: SXM taken",
    "a100": "A100 without a size: 80 GB taken",
}

NO_SCOPE = re.compile(
    r"^\W*(unstated|unknown|unclear|not stated|n/?a|none|nan|null|tbd|-*)\W*$", re.IGNORECASE
)
WHOLE = re.compile(
    r"pipeline|end.?to.?end|\be2e\b|\btotal|overall|whole|full|complete|all (the"
    r" )?(stages|parts)|everything|"
    r"generat|wall.?clock|inference time|latency of a video|video file|entire|end.?2.?end|\ball\b|"
    r"^\W*(video|pipe|wall|inference|latency)\W*$",
    re.IGNORECASE,
)
PIPELINE = re.compile(r"pipeline|end.?to.?end|\be2e\b", re.IGNORECASE)
DENOISER = re.compile(
    r"\bdit\b|denois|transformer|diffusion|sampling|sampler|backbone|\bunet\b|\bsteps?\b|forward|"
    r"\bloop\b",
    re.IGNORECASE,
)
VAE = re.compile(r"\bvae\b|decod|autoencoder", re.IGNORECASE)
TEXT = re.compile(r"text|prompt|\bt5\b|umt5|clip encoder|\bencoders?\b", re.IGNORECASE)
LEFT_OUT = re.compile(
    r"\b(?:excl(?:udes|uding|uded|\.)?|without|w/o|no|not"
    r" (?:incl\w*\.?|counting|with)|minus|except)"
    r"(?![-\w])([^;:)]*)",
    re.IGNORECASE,
)
ONLY = re.compile(r"\b(only|alone|just)\b", re.IGNORECASE)
PER_STEP = re.compile(
    r"per[ -](denoising |sampling |diffusion )?(step|iteration|it\b)|\bs(ec(onds?)?)?/(step|it)\b|"
    r"(one|single) (denoising )?step\b|step (time|latency)|"
    r"^\W*((dit|denois\w*|transformer|sampling) )?step\W*$",
    re.IGNORECASE,
)
PER_FORWARD = re.compile(
    r"(per|one|single)[ -](dit |denoiser |transformer |model )?(forward|call|evaluation)|/forward",
    re.IGNORECASE,
)

QUANTISED = re.compile(
    r"fp8|f8|e4m3|int8|int4|fp4|nf4|w8a8|w4a|gguf|\bq[2-8]_|8.?bit|4.?bit|quant", re.IGNORECASE
)
FP8 = re.compile(r"fp8|float8|bf16 ?[,+/]? ?fp8( linear\w*)?", re.IGNORECASE)
HALF = re.compile(r"bf16|fp16|float16|half|16.?bit", re.IGNORECASE)
SPARSE = re.compile(
    r"sage|sparse|radial|sliding|\bsta\b|\bvsa\b|block.?mask|linear attention", re.IGNORECASE
)
FAST = re.compile(r"fa-?3|flash.?att\w*[ -]?v?3|cudnn", re.IGNORECASE)
UNSURE = re.compile(r"unstated|unknown|\bor\b|\?", re.IGNORECASE)


class Unusable(ValueError):
    """Why a row cannot be fitted, in a few words."""


@dataclass(frozen=True)
class Scope:
    """Which stages a latency holds."""

    vae: bool
    text: bool
    per: str
    """video | step | forward"""
    guessed: bool = field(default=False, compare=False)
    """The words say nothing that is known: a whole video's, as most tables mean."""

    def __str__(self) -> str:
        parts = ["text"] * self.text + ["denoising"] + ["vae decode"] * self.vae
        return " + ".join(parts) + ("" if self.per == "video" else f", per {self.per}")


def read_scope(text: str) -> Scope:
    """'full pipeline incl. VAE decode' -> all stages; 'dit_only' -> denoising; unknown words -> all
    stages, guessed.

    Raises Unusable where it is empty or 'unstated', or names stages without denoising."""
    text = text.replace("_", " ")
    if NO_SCOPE.match(text):
        raise Unusable(
            f"scope {text!r}: it does not say what the latency holds"
            if text.strip()
            else "scope is empty"
        )
    left_out = " ".join(m.group(1) for m in LEFT_OUT.finditer(text))
    said = LEFT_OUT.sub(" ", text)
    per = "forward" if PER_FORWARD.search(said) else "step" if PER_STEP.search(said) else "video"
    denoiser, vae, some_text = (bool(p.search(said)) for p in (DENOISER, VAE, TEXT))
    text_to_video = re.search(r"text[ -]?(to|2)[ -]?video", said, re.IGNORECASE) is not None
    whole = bool(WHOLE.search(said)) and not (ONLY.search(said) and (denoiser or vae or some_text))
    if per != "video":
        return Scope(vae=False, text=False, per=per)
    if whole and denoiser and not (vae or some_text or PIPELINE.search(said)):
        whole = False  # 'total denoising time', 'full diffusion loop'
    if whole or text_to_video:
        return Scope(vae=not VAE.search(left_out), text=not TEXT.search(left_out), per="video")
    if denoiser:
        return Scope(
            vae=vae and not VAE.search(left_out),
            text=some_text and not TEXT.search(left_out),
            per="video",
        )
    if vae or some_text:
        raise Unusable(f"scope {text!r}: no denoising in it")
    return Scope(
        vae=not VAE.search(left_out), text=not TEXT.search(left_out), per="video", guessed=True
    )


def read_model(name: str, known: Sequence[str]) -> str:
    """A public name -> a name in configs/models.  Raises Unusable."""
    if not name.strip():
        raise Unusable("model is empty")
    plain = name.strip().lower()
    if plain in known:
        return plain
    name = GUIDANCE_DISTILLED.sub("", name)
    plain = re.sub(r"(?<=\d)_(?=\d)", ".", name.strip().lower())  # 1_3B
    if DISTILLED.search(name):
        raise Unusable(
            f"model {name!r}: a distilled or cached variant, whose forwards are not the base"
            " model's"
        )
    if QUANTISED.search(name):
        raise Unusable(f"model {name!r}: quantised")
    if VARIANT.search(name):
        raise Unusable(f"model {name!r}: a variant with parts that are not counted")
    squeezed = re.sub(
        r"[^a-z0-9.]", "", re.sub(r"^[^/]*/(?=[a-z])", "", plain)
    )  # an owner's name goes, DiT-XL/2 stays
    for pattern, config in MODEL_PATTERNS:
        if re.search(pattern, squeezed) and config in known:
            return config
    raise Unusable(f"model {name!r}: unknown")


def read_gpu(name: str, known: Sequence[str], device_names: dict[str, str]) -> tuple[str, str]:
    """A GPU as a table writes it -> (a name in configs/gpus, remark).  'H800/H100' are two names of
    one kind."""
    if not name.strip():
        raise Unusable("gpu is empty")
    counted = re.search(
        r"^\W*(\d+)\s*[x×*]\s*(?=[a-z])|(?<=[\s\d])[x×*]\s*(\d+)\W*$", name, re.IGNORECASE
    )
    if counted and int(counted.group(1) or counted.group(2)) != 1:
        raise Unusable(f"gpu {name!r}: several GPUs")
    if name.strip() in device_names:
        return device_names[name.strip()], ""
    if name.strip().lower() in known:
        return name.strip().lower(), ""
    kinds, remarks = set(), []
    for part in re.split(r"/|\bor\b|,", name):
        memory = re.search(r"(?<!\d)(\d{2,3})\s*gi?b?\b", part, re.IGNORECASE)
        squeezed = re.sub(
            r"[^a-z0-9]|^nvidia",
            "",
            (part if memory is None else part.replace(memory.group(0), "")).lower(),
        )
        if not squeezed:
            continue
        kind = next((config for pattern, config in GPU_WORDS if re.search(pattern, squeezed)), "")
        if kind == "a100-80gb" and memory is not None and memory.group(1) == "40":
            kind = "a100-40gb"
        if kind not in known:
            raise Unusable(f"gpu {name!r}: no datasheet in configs/gpus")
        kinds.add(kind)
        if squeezed in GPU_REMARKS and not (squeezed == "a100" and memory is not None):
            remarks.append(GPU_REMARKS[squeezed])
    if len(kinds) != 1:
        raise Unusable(f"gpu {name!r}: {'no' if not kinds else 'more than one'} kind of GPU")
    return kinds.pop(), "; ".join(remarks)


def read_precision(dtype: str) -> bool:
    """Are the linear layers in FP8?  Raises Unusable for other quantised formats, and for what does
    not run on the 16-bit units."""
    if FP8.fullmatch(dtype.strip()):
        return True
    if QUANTISED.search(dtype):
        raise Unusable(f"dtype {dtype!r}: quantised; the rates fitted are of 16 bits and of fp8")
    if re.search(r"fp32|float32|tf32", dtype, re.IGNORECASE) and not HALF.search(dtype):
        raise Unusable(f"dtype {dtype!r}: the rates fitted are of 16 bits")
    return False


def fast_attention(text: str) -> bool:
    """FlashAttention-3 or cuDNN, said without a doubt.  Raises Unusable for kernels that leave
    products out."""
    if SPARSE.search(text):
        raise Unusable(
            f"attention {text!r}: sparse or quantised, so its FLOPs are not the counted ones"
        )
    return bool(FAST.search(text)) and not UNSURE.search(text)
