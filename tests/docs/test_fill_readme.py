"""The README's figures come from results/: what is stale is found and said, whatever is there is
coped with."""

import json
import shutil
import subprocess
import sys

import pytest

from support.paths import ROOT

sys.path.insert(0, str(ROOT / "docs"))
import fill_readme
import h100_plan
import pencil_page
import waterfall_svg

from bench.studies.pencil.waterfall import Bar

NO_H100 = "No H100 record is in this repository yet"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository without results -> run(*options): exit code."""
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / h100_plan.PLAN, tmp_path / "docs")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for page, blocks in fill_readme.PAGES.items():
        empty = "\n".join(f"<!-- fill: {name} -->\n<!-- end -->\n" for name in blocks)
        (tmp_path / page).write_text(f"# By hand\n\n{empty}\nMore by hand, 7 %.\n")
    monkeypatch.setattr(fill_readme, "ROOT", tmp_path)

    def run(*options: str) -> int:
        monkeypatch.setattr(sys, "argv", ["fill_readme.py", *options])
        return fill_readme.main()

    run.root = tmp_path
    return run


def add(checkout, measured, when: str, gpu: str = "cpu"):
    """A copy of the measured result as one of another time, and of another card."""
    directory = checkout.root / "results" / gpu / f"{when}_micro"
    shutil.copytree(measured[0], directory)
    for name in ("records.jsonl", "calibration.json"):
        lines = (
            (directory / name).read_text().splitlines()
            if name.endswith("l")
            else [(directory / name).read_text()]
        )
        texts = []
        for line in lines:
            document = json.loads(line)
            if "environment" in document:
                document["environment"]["gpu"] = gpu
                document["started_utc"] = f"{when[:4]}-{when[4:6]}-{when[6:8]}T00:00:00+00:00"
            for part in (document, document.get("headline"), document.get("reference")):
                if part and "gpu" in part:
                    part["gpu"] = gpu
            texts.append(json.dumps(document))
        (directory / name).write_text("\n".join(texts) + "\n")
    return directory


def readme(checkout) -> str:
    return (checkout.root / "README.md").read_text()


def chain(checkout) -> str:
    """The page of the pencil's factors."""
    return (checkout.root / "docs/pencil.md").read_text()


def test_without_results_it_says_so(checkout, capsys):
    assert checkout("--check") == 1
    assert "9 stale: python docs/fill_readme.py" in capsys.readouterr().err
    assert checkout() == 0
    assert checkout("--check") == 0
    assert "No result is in this repository yet, of any device." in readme(checkout)
    assert NO_H100 in chain(checkout)
    assert readme(checkout).startswith("# By hand\n")
    assert readme(checkout).endswith("More by hand, 7 %.\n")
    assert "No result with a headline is in this repository yet." in readme(checkout)
    assert "$ ldt-bench predict wan2.1-t2v-14b -w 720p-81f --gpu h100-sxm" in readme(checkout)
    assert "pencil's 5.03 minutes of video per H100-hour" in readme(checkout)
    assert "| pencil estimate |  | 5.03 | claimed |" in chain(checkout)
    assert "34.09 PFLOP" in chain(checkout)


def test_a_new_result_makes_it_stale_and_is_shown(checkout, measured, capsys):
    checkout()
    add(checkout, measured, "20260101T000000Z")
    capsys.readouterr()
    assert checkout("--check") == 1
    said = capsys.readouterr()
    assert "+| cpu | `micro` | 2026-01-01 | tiny tiny-image |" in said.out
    assert "2 stale" in said.err
    assert checkout() == 0
    assert checkout("--check") == 0
    assert NO_H100 in readme(checkout)
    listed = (checkout.root / "results/README.md").read_text()
    assert "(cpu/20260101T000000Z_micro)" in listed
    assert "`ldt-bench run results/cpu/20260101T000000Z_micro/suite.json --device cpu`" in listed
    assert " of 5 |" in listed


def test_the_newest_of_each_card_and_suite(checkout, measured):
    for when in ("20260102T000000Z", "20260101T000000Z"):
        add(checkout, measured, when)
    add(checkout, measured, "20251231T000000Z", gpu="l40s")
    checkout()
    table = readme(checkout).split("fill: results")[1].split("<!-- end -->")[0]
    assert "2026-01-02" in table
    assert "2026-01-01" not in table
    assert "| l40s | `micro` | 2025-12-31 |" in table
    assert NO_H100 in table
    listed = (checkout.root / "results/README.md").read_text()
    assert listed.index("20251231") < listed.index("20260101") < listed.index("20260102")


def test_an_h100s_record_ends_the_waterfall(checkout, measured):
    checkout()
    before = (checkout.root / pencil_page.PICTURE).read_text()
    add(checkout, measured, "20260101T000000Z", gpu="h100-sxm")
    checkout()
    assert NO_H100 not in readme(checkout) + chain(checkout)
    linked = "20260101T000000Z_micro](../results/h100-sxm/20260101T000000Z_micro/report."
    assert linked in chain(checkout)
    assert "GEMM ceiling of this h100-sxm" in chain(checkout)
    assert "| measured |" in readme(checkout)
    assert (checkout.root / pencil_page.PICTURE).read_text() != before


def test_a_figure_changed_by_hand_is_stale(checkout, capsys):
    checkout()
    changed = chain(checkout).replace("| 5.03 |", "| 6.03 |")
    (checkout.root / "docs/pencil.md").write_text(changed)
    capsys.readouterr()
    assert checkout("--check") == 1
    out = capsys.readouterr().out
    assert "-| pencil estimate |  | 6.03 | claimed |" in out
    assert "+| pencil estimate |  | 5.03 | claimed |" in out


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda root: (root / "README.md").write_text("# nothing\n"),
            "blocks none; wanted, once each: waterfall",
        ),
        (
            lambda root: (root / "README.md").write_text(
                (root / "README.md").read_text().replace("fill: answer", "fill: anser")
            ),
            "anser",
        ),
        (
            lambda root: (root / h100_plan.PLAN).write_text(
                (root / h100_plan.PLAN)
                .read_text()
                .replace('"suite_sha256": "', '"suite_sha256": "0')
            ),
            "--plan",
        ),
        (
            lambda root: (
                (root / "results/cpu/x").mkdir(parents=True),
                (root / "results/cpu/x/records.jsonl").write_text("{}\n"),
            ),
            "results/cpu/x",
        ),
    ],
)
def test_what_cannot_be_filled_is_one_line(checkout, capsys, damage, message):
    checkout()
    damage(checkout.root)
    capsys.readouterr()
    assert checkout("--check") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_plan_keeps_what_the_pages_show(checkout):
    quantity = {"value": 60.0, "low": 30.0, "high": 120.0}
    rows = [
        {
            "point": p,
            "stages": ["denoise_step"],
            "provenance": "extrapolated",
            "predicted_s": 7.0,
            "low_s": 5.0,
            "high_s": 9.0,
        }
        for p in ("ceilings", "a", "b")
    ]
    document = {"points": rows, "total": quantity, "cost_usd": quantity, "basis": "b", "more": 1}
    h100_plan.write_plan(checkout.root, dict.fromkeys(h100_plan.PLANNED_SUITES, document))
    checkout()
    middle, span = h100_plan.spanned(quantity, h100_plan.seconds)
    page = (checkout.root / "docs/h100.md").read_text()
    assert (
        f"| `run h100-anchor` | 2 | {middle} | {span} | $60.00 | $30.00 to $120.00 | extrapolated |"
        in page
    )
    assert page.count("| a | denoise_step | 7 s | 5 s to 9 s |") == 3
    assert page.count("| `run ") == len(h100_plan.PLANNED_SUITES)


def test_each_of_the_three_commands_is_predicted_to_end_in_nine_minutes():
    """And the ablations of 50 recipes under fourteen, where 35 took 22 before stages were reused;
    the anchor is in the third."""
    suites = h100_plan.read_plan(ROOT)["suites"]
    for name in h100_plan.HALF_HOUR:
        assert suites[name]["total"]["value"] < 9 * 60, name
    assert suites["ablations"]["total"]["value"] < 14 * 60
    anchor = suites["h100-anchor"]["rows"][0]
    assert anchor["point"] == "sora-20b sora-1min-512 eager-bf16-cudnn-chunks"
    assert anchor["stages"] == ["denoise_step"]
    assert anchor["predicted_s"] > 200


def test_the_picture_is_an_svg_with_a_bar_a_factor():
    from xml.etree import ElementTree

    bars = [
        Bar("a <b> & c", 1.0, 5.0, "claimed"),
        Bar("half", 0.5, 2.5, "counted"),
        Bar("more", 0.5, 1.25, "counted", extra=True),
    ]
    root = ElementTree.fromstring(waterfall_svg.draw(bars))
    texts = ["".join(e.itertext()) for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "a <b> & c" in texts
    assert any(t.startswith("2.5") and "×0.5" in t and "counted" in t for t in texts)
    widths = [
        float(e.get("width"))
        for e in root.iter("{http://www.w3.org/2000/svg}rect")
        if e.get("height") == "16"
    ]
    assert widths[0] - widths[1] == pytest.approx(
        widths[1] - widths[2], abs=0.11
    )  # a factor 2 each, on a log axis


def test_it_needs_no_torch():
    code = (
        "import sys; sys.argv = ['fill_readme.py', '--check']; sys.path.insert(0, 'docs')\n"
        "import fill_readme; fill_readme.main(); assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
