"""What a fuzz tries: values of every type, paths of fields, and a document with one place of it
otherwise."""

from typing import Any

from hypothesis import strategies as st

TEXT = st.text(max_size=60)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=True),
    TEXT,
    st.sampled_from(["tiny", "sora-20b", "x.yaml", "a/b", "1e400", "~", "*a", "&a", "!!python/x"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=12,
)
FIELDS = ["denoiser", "vae", "text_encoders", "source", "extends", "python", "config", "weights"]
PATHS = st.one_of(
    TEXT,
    st.lists(
        st.sampled_from([*FIELDS, "model", "workload", "recipe", "0", "width", "", "parallel"]),
        min_size=1,
        max_size=4,
    ).map(".".join),
)
KEYS = st.sampled_from(
    [*FIELDS, "points", "headline", "sampling", "platforms", "clips", "hours", "objective", "x"]
)
GONE = object()
"""In the place of a value: the field is taken out."""
EDGES = [0, -1, 1, 1e-12, 5e-324, 1e308, 10**30, 0.5, "", "ok", "oom", [], {}, None, True, GONE]
PLACES = st.lists(st.integers(0, 1000), min_size=1, max_size=9)
"""The way down a document: which child, of however many there are."""
CHANGES = st.one_of(VALUES, st.sampled_from(EDGES))


def changed(data: Any, place: list[int], change: Any) -> Any:
    """The document with the value at that place replaced; the way down ends at a leaf."""
    if not place or not isinstance(data, (dict, list)) or not data:
        return change
    keys = list(data) if isinstance(data, dict) else range(len(data))
    key = keys[place[0] % len(keys)]
    copy = data.copy()
    copy[key] = changed(data[key], place[1:], change)
    if copy[key] is GONE:
        del copy[key]
    return copy
