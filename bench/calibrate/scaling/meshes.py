"""A mesh as sources write it: "cfg 2 x ulysses 4, HSDP 8" -> degrees by axis."""

import re

from bench.calibrate.published.names import Unusable
from models.parallel.spec import Parallel

DEGREE = re.compile(
    r"(cfg|ulysses|ring|tp|tensor parallel|sequence parallel|cp|vae (?:patch|tile|parallel))"
    r"(?: parallel)? (\d+)"
)
AXIS = {"tp": "tensor", "tensor parallel": "tensor"}
SEQUENCE = ("sequence parallel", "cp")
"""Whatever cuts the tokens and is not named: read as Ulysses, the default of the engines here."""
ONE_KIND = {
    "usp": {},
    "sequence parallel": {},
    "fsdp+ulysses": {"shard_weights": True},
    "fsdp+ulysses/ring (xdit usp)": {"shard_weights": True},
    "tensor parallel": {"tensor": True},
    "": {},
}
"""The whole text where it gives no degree: all cards are of one axis.  Empty in HunyuanVideo's
tables alone, whose other half says USP."""
UNREAD = ("attention2d", "layerwise offload", "feature cache")


def read_mesh(text: str, cards: int) -> Parallel:
    """Raises Unusable for a mesh that is not said, or that is not of so many cards."""
    words = " ".join(text.lower().split())
    for term in UNREAD:
        if term in words:
            raise Unusable(f"mesh {text!r}: {term} is not modelled")
    if words in ONE_KIND:
        kind = ONE_KIND[words]
        axis = "tensor" if kind.get("tensor") else "ulysses"
        return Parallel(**{axis: cards}, shard_weights=bool(kind.get("shard_weights")))
    degrees: dict[str, int] = {}
    for name, number in DEGREE.findall(words):
        axis = "ulysses" if name in SEQUENCE else AXIS.get(name, name)
        degrees["vae" if axis.startswith("vae") else axis] = int(number)
    mesh = Parallel(**degrees, shard_weights="hsdp" in words or "fsdp" in words)
    if not degrees or mesh.ranks != cards:
        raise Unusable(f"mesh {text!r}: not of {cards} cards as it is written")
    return mesh
