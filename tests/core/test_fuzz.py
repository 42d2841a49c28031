"""What a fuzz found, and the fuzz itself: short here, long behind `slow`.

    LDT_BENCH_FUZZ=5000 pytest -m slow tests/core/test_fuzz.py -n0 -s

Every mistake is a UserError (or YamlError, Unusable) of one line; anything else fails the test.
With -s it says how many cases of each kind were tried.
"""

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from bench.calibrate.calibration import FittedStage
from bench.calibrate.published.names import Unusable
from bench.calibrate.published.numbers import number_in
from bench.core.errors import MAX_MESSAGE, UserError, one_line
from bench.core.load import load
from bench.core.specs.model import Model
from bench.report.render import markdown_text
from support.cli import cli
from support.fuzz.kinds import KINDS

MANY = int(os.environ.get("LDT_BENCH_FUZZ", "5000"))
"""Cases of each kind in the long run: eleven kinds make 55,000."""
SILENT = pytest.mark.filterwarnings("ignore")  # each of thousands of broken cases has its own


@pytest.fixture(scope="module")
def tried():
    """Cases by kind, shown at the end."""
    counted: Counter[str] = Counter()
    yield counted
    rows = [*counted.items(), ("all", counted.total())]
    print("\nfuzz: cases tried\n" + "\n".join(f"  {name:<18}{n:>8,}" for name, n in rows))


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


@SILENT
@pytest.mark.parametrize("kind", KINDS)
def test_short(kind, tmp_path, tried):
    fuzz(kind, 30, tmp_path, tried)


@SILENT
@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_long(kind, tmp_path, tried):
    fuzz(kind, MANY, tmp_path, tried)


def fuzz(kind, cases, folder, tried):
    """So many cases of a kind; the folder is for its files."""
    how = settings(max_examples=cases, deadline=None, suppress_health_check=list(HealthCheck))
    with KINDS[kind].begin(folder) as attempt:

        @how
        @given(KINDS[kind].cases)
        def one(case):
            tried[kind] += 1
            attempt(case)

        one()
