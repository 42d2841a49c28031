"""What a fuzz of 31,000 cases found, and the fuzz itself: short here, long behind `slow`.

Every mistake is a UserError (or YamlError, Unusable) of one line; anything else fails the test.
"""

import contextlib
import json
import os
import string

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.calibrate.calibration import FittedStage
from bench.calibrate.published.names import Unusable
from bench.calibrate.published.numbers import number_in
from bench.core.errors import MAX_MESSAGE, EnvironmentFault, UserError, one_line
from bench.core.load import load, load_point, parse_overrides
from bench.core.read_yaml import YamlError, read_yaml
from bench.core.specs.demand import Demand
from bench.core.specs.model import Model
from bench.core.specs.suite import Suite
from bench.report.render import markdown_text
from bench.results.readable import known_part
from support.cli import cli
from support.records import point_record

MANY = int(os.environ.get("LDT_BENCH_FUZZ", "10000"))
"""Cases of each kind in the long run: six kinds make 60,000."""
short = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
long = settings(max_examples=MANY, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("count", "tiny", "-w", "tiny-clip", "--set", "workload.=1"), "workload is not one value"),
        (("count", "tiny", "-w", "tiny-clip", "--set", 'width="\\UFFFFFFFF"'), "not a YAML value"),
        (("list", "model\ud800s".encode("utf-8", "surrogatepass").decode("utf-8", "replace")), ""),
    ],
)
def test_what_the_fuzz_found_is_one_line(words, said):
    done = cli(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_half_of_a_surrogate_pair_names_no_file(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text('extends: "a/\\ud800.yaml"\n')
    with pytest.raises(UserError, match="no file has such a name|malformed YAML"):
        load(Model, str(path))


@pytest.mark.parametrize("text", ["_1", "1__2", "_", "1" * 32_000, "9" * 101, "", "nan", "-1"])
def test_cells_that_are_no_numbers(text):
    with pytest.raises(Unusable) as caught:
        number_in("latency_s", text)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "bad", [{"flops": -1}, {"flops": 0}, {"tokens": 0}, {"measured_s": 5e-324}]
)
def test_a_calibration_has_bounds(bad):
    good = {
        "point": "p",
        "stage": "denoise_step",
        "tokens": 1,
        "flops": 1,
        "measured_s": 1.0,
        "fitted_s": 1.0,
        "held_out_s": None,
    }
    FittedStage.model_validate(good)
    with pytest.raises(ValueError, match=next(iter(bad))):
        FittedStage.model_validate(good | bad)


def test_a_message_has_an_end():
    said = one_line("x" * 200_000)
    assert len(said) < MAX_MESSAGE + 100
    assert said.endswith("(200,000 characters)")
    assert one_line("\x1b[31m\ud800") == "\\x1b[31m\\ud800"


def test_names_are_no_html_in_markdown():
    assert markdown_text("<img src=x onerror=alert(1)>") == "&lt;img src=x onerror=alert(1)>"
    assert markdown_text("a < b | c") == "a < b \\| c"


def foreseen(call, *args):
    """Runs it; every mistake must be one of ours, in one line."""
    try:
        call(*args)
    except (UserError, EnvironmentFault, YamlError, Unusable) as error:
        said = one_line(str(error))
        assert said.strip()
        assert "\n" not in said


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


def set_a_field(path, value):
    text = json.dumps(value, default=str)
    overrides = parse_overrides([f"{path}={text}"])
    load_point("tiny", "tiny-clip", "eager-fp32", overrides)


def a_yaml(folder, kind, base, changes):
    """A preset with some of its fields replaced, as a file."""
    path = folder / "fuzz.yaml"
    data = dict(base) | changes
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8", errors="replace")
    foreseen(load, kind, str(path))


def a_stored_point(path, value):
    record = json.loads(json.dumps(point_record().point))
    part = record
    for name in path[:-1]:
        part = part.get(name) if isinstance(part, dict) else None
        if not isinstance(part, dict):
            return
    part[path[-1]] = value
    with contextlib.suppress(ValueError):  # a broken point; anything else is a crash
        known_part(record, "x")


KEYS = st.sampled_from(
    [*FIELDS, "points", "headline", "sampling", "platforms", "clips", "hours", "objective", "x"]
)


def each_kind(how):
    """The six kinds of cases, `how` often each."""

    @how
    @given(st.text(alphabet=string.printable + "\ud800\x85\u2028é", max_size=200))
    def yaml_text(text):
        foreseen(read_yaml, text)

    @how
    @given(st.one_of(TEXT, st.from_regex(r"[-~ ≈]*[\d_.,' e+-]{0,40}(s|ms|min)?")))
    def cells(text):
        foreseen(number_in, "latency_s", text)

    @how
    @given(PATHS, SCALARS)
    def options(path, value):
        foreseen(set_a_field, path, value)

    @how
    @given(
        st.lists(
            st.sampled_from(["model", "denoiser", "vae", "recipe", "width", "new"]),
            min_size=1,
            max_size=4,
        ),
        VALUES,
    )
    def stored(path, value):
        a_stored_point(path, value)

    return [yaml_text, cells, options, stored]


def presets(tmp_path, how):
    """Model, suite and demand files with fields replaced."""
    for kind, name in ((Model, "tiny"), (Suite, "smoke"), (Demand, "uploads")):
        preset(tmp_path, how, kind, load(kind, name).model_dump(mode="json", exclude={"name"}))


def preset(tmp_path, how, kind, base):
    @how
    @given(st.dictionaries(KEYS, VALUES, max_size=3))
    def case(changes):
        a_yaml(tmp_path, kind, base, changes)

    case()


def test_short(tmp_path):
    for kind in each_kind(short):
        kind()
    presets(tmp_path, short)


@pytest.mark.slow
def test_long(tmp_path):
    for kind in each_kind(long):
        kind()
    presets(tmp_path, long)
