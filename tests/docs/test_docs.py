"""The docs: links lead somewhere, walk-throughs run, the schema's page is the code's, deploy files
say the README's."""

import os
import re
import subprocess
import sys
import unicodedata
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from support.paths import BLOCK, ROOT

sys.path.insert(0, str(ROOT / "docs"))
import make_schema

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("results/README.md")])
WALKS = sorted([*(ROOT / "docs").glob("add-a-*.md"), ROOT / "docs" / "tasks.md"])
LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    heads = [
        re.sub(r"[*`]|\[([^\]]*)\]\([^)]*\)", r"\1", h)
        for h in re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    ]
    return {
        "".join(
            c
            for c in h.strip().lower().replace(" ", "-")
            if c in "-_" or unicodedata.category(c)[0] in "LN"
        )
        for h in heads
    }


def broken(page: Path, root: Path = ROOT) -> list[str]:
    """Links of a page that lead to no file of this repository, or to no heading; those to the
    network are not followed."""
    found = []
    for target in LINK.findall(re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if (
            not file.exists()
            or not file.is_relative_to(root.resolve())
            or (anchor and file.suffix == ".md" and anchor not in anchors(file))
        ):
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert broken(page) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "a.md"
    page.write_text(
        "# A head, *here*\n[x](a.md#a-head-here) [y](a.md#nowhere) [z](b.md) [w](https://x.org) "
        "![p](none.png)\n```\n[in code](c.md)\n```\n[o](../../etc)\n"
    )
    assert broken(page, tmp_path) == ["a.md#nowhere", "b.md", "none.png", "../../etc"]


MEASURED_PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def suites_named(page: Path) -> set[str]:
    """What stands after `ldt-bench run`, but options, files and the word that stands for any."""
    named = re.findall(r"ldt-bench\s+run\s+([\w./-]+)", page.read_text())
    return {n for n in named if not n.startswith("-") and not n.endswith(".yaml") and n != "SUITE"}


def test_every_suite_that_is_named_exists():
    from bench.core.presets import names

    named = {page.name: suites_named(page) for page in MEASURED_PAGES}
    assert {"smoke", "h100-rates", "scaling"} <= set().union(*named.values())
    unknown = {page: found - set(names("suites")) for page, found in named.items()}
    assert {page: found for page, found in unknown.items() if found} == {}


def test_there_is_something_to_check():
    assert len(WALKS) == 6
    assert all(any(kind == "sh" for _, kind, _ in BLOCK.findall(p.read_text())) for p in WALKS)
    assert sum(len(LINK.findall(p.read_text())) for p in PAGES) > 20


@pytest.mark.parametrize("page", WALKS, ids=lambda p: p.stem)
def test_a_walk_through_runs_as_it_stands(page, here, measured, tmp_path, monkeypatch):
    """Each file is written where it says, in a copy of the configs; each `ldt-bench` line exits
    with 0."""
    from bench.core import presets

    (tmp_path / "configs").mkdir()
    for kind in presets.KINDS:
        (tmp_path / "configs" / kind).symlink_to(ROOT / "configs" / kind)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        presets,
        "resources",
        SimpleNamespace(
            files=lambda package: (
                tmp_path / "configs" if package == "configs" else resources.files(package)
            )
        ),
    )
    ran = []
    for file, kind, text in BLOCK.findall(page.read_text()):
        if kind != "sh":
            assert file, f"{page.name}: a {kind} block without its `<!-- file: -->`"
            place = tmp_path / file
            if place.parent.is_symlink():  # a folder of presets of its own, with the new one in it
                originals = place.parent.resolve()
                place.parent.unlink()
                place.parent.mkdir()
                for preset in originals.glob("*.yaml"):
                    (place.parent / preset.name).symlink_to(preset)
            assert not place.exists(), f"{page.name}: {file} is there already"
            place.write_text(text)
            continue
        for line in text.splitlines():
            words = line.replace("results/cpu/...", str(measured[0])).split()
            assert words[0] == "ldt-bench", line
            code, out, err = here(*words[1:])
            assert code == 0, f"{line}\n{err}"
            assert out
            ran.append(out)
    assert any("my-" in out or "tiny" in out for out in ran)


def test_the_schemas_page_is_the_codes():
    assert (ROOT / "docs/schema.md").read_text() == make_schema.page(), "python docs/make_schema.py"


def test_the_schemas_page_has_every_field_and_what_stands_beneath_it():
    from bench.results.readings import StageMemory
    from bench.results.records import PointRecord

    section = make_schema.section(StageMemory, [])
    assert "| `activations` | integer | peak_allocated less weights and inputs. |" in section
    queue = []
    rows = make_schema.section(PointRecord, queue)
    assert {"Environment", "StageCount", "Timing", "Memory", "SentinelReading"} <= {
        m.__name__ for m in queue
    }
    assert all(f"| `{name}` |" in rows for name in PointRecord.model_fields)


def test_the_glossary_has_every_word_of_the_code():
    from typing import get_args

    from bench.core.quantity import Provenance
    from bench.core.specs.model import Stage
    from bench.results.records import OUTCOMES

    text = (ROOT / "docs/glossary.md").read_text()
    words = [
        "model",
        "workload",
        "recipe",
        "gpu",
        "suite",
        "point",
        "record",
        "ceilings",
        "calibration",
        "estimate",
        *OUTCOMES,
        *get_args(Provenance),
        *get_args(Stage),
    ]
    assert [w for w in words if not re.search(rf"[*`]{re.escape(w)}[*`,]", text)] == []


def test_the_sites_contents_name_every_page():
    listed = set(re.findall(r"^([\w-]+)$", (ROOT / "docs/index.md").read_text(), re.MULTILINE))
    assert {p.stem for p in (ROOT / "docs").glob("*.md")} - {"index"} == listed


README = (ROOT / "README.md").read_text()
INSTALL = (
    README.split("<!-- main command -->")[1].split("```sh\n")[1].split(" && .venv/bin/ldt-bench")[0]
)
H100 = (ROOT / "docs/h100.md").read_text()
RENTED = H100.split("## On a rented card")[1].split("```sh\n")[1].split("```")[0]
DEPLOY = ROOT / "deploy"


def commands(path: Path) -> str:
    """What a file runs, its variables put in as its defaults say."""
    text = path.read_text()
    if path.suffix == ".yaml":
        task = yaml.safe_load(text)
        text = f"{task['setup']}\n{task['run']}"
        defaults = task["envs"]
    else:
        defaults = dict(re.findall(r"\b([A-Z]+)[=:]-?\$?\{?(?:[A-Z]+:-)?([\w.-]+)", text))
    for name, value in defaults.items():
        text = re.sub(rf'"?\$\{{?{name}(?::-[^}}]*)?\}}?"?', str(value), text)
    return text


@pytest.mark.parametrize("name", ["Dockerfile", "ssh.sh", "slurm.sh", "skypilot.yaml"])
def test_deploy_files_install_and_run_the_script(name):
    text = commands(DEPLOY / name)
    assert INSTALL in text
    assert "bash deploy/h100.sh" in text
    assert f"deploy/{name}" in H100
    assert len(text.splitlines()) < 40


def test_the_script_runs_the_pages_commands_in_their_order():
    text = commands(DEPLOY / "h100.sh").replace('"$bench"', ".venv/bin/ldt-bench")
    lines = [line.split("#")[0].strip() for line in RENTED.splitlines()]
    assert len(lines) == 4
    places = [text.index(line) for line in lines]
    assert places == sorted(places)


FAKE = """#!/bin/sh
echo "$*" >> calls
case "$1" in
  run) mkdir -p results/h100-sxm/$2; echo "{}" > results/h100-sxm/$2/records.jsonl ;;
  calibrate) mkdir -p results/h100-sxm/merged; echo "{}" > results/h100-sxm/merged/records.jsonl ;;
esac
echo "said by $1 $2"
case "$2" in FAILS) exit STATUS ;; esac
"""


def run_script(
    tmp_path, fails: str, status: int = 1
) -> tuple[subprocess.CompletedProcess, list[str], set[str]]:
    """deploy/h100.sh with an ldt-bench on the PATH that fails at one suite -> (how it ended, calls,
    what was packed)."""
    for folder in ("bin", "checkout/deploy", "checkout/results/h100-sxm/older"):
        (tmp_path / folder).mkdir(parents=True)
    old = tmp_path / "checkout/results/h100-sxm/older/records.jsonl"
    old.write_text("{}\n")
    os.utime(old, (1, 1))
    fake = tmp_path / "bin/ldt-bench"
    fake.write_text(FAKE.replace("FAILS", fails).replace("STATUS", str(status)))
    fake.chmod(0o755)
    script = tmp_path / "checkout/deploy/h100.sh"
    script.write_text((DEPLOY / "h100.sh").read_text())
    done = subprocess.run(
        ["bash", str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"},
    )
    (archive,) = (tmp_path / "checkout/results").glob("*.tar.gz")
    packed = subprocess.run(
        ["tar", "-tzf", str(archive)], capture_output=True, text=True, check=True
    ).stdout.split()
    return done, (tmp_path / "checkout/calls").read_text().splitlines(), set(packed)


def test_the_script_goes_on_when_the_second_suite_fails_and_packs_everything(tmp_path):
    done, calls, packed = run_script(tmp_path, "h100-rates")
    suites = ("h100-health", "h100-rates", "h100-anchor")
    assert done.returncode == 1
    assert [call.split()[:2] for call in calls[:4]] == [
        ["doctor", "--expect"],
        *(["run", name] for name in suites),
    ]
    assert calls[4] == "calibrate " + " ".join(
        f"results/h100-sxm/{name}" for name in sorted(suites)
    )
    assert {f"results/h100-sxm/{name}/records.jsonl" for name in (*suites, "merged")} <= packed
    assert not any("older" in name for name in packed)
    logs = {name.rpartition("/")[2] for name in packed if name.endswith(".log")}
    assert logs == {"doctor.log", "health.log", "rates.log", "anchor.log", "merged.log"}
    assert "failed: rates (exit code 1)" in done.stdout
    assert done.stdout.count("failed: ") == 1


def test_the_script_ends_well_where_all_do(tmp_path):
    done, calls, packed = run_script(tmp_path, "none")
    assert (done.returncode, len(calls)) == (0, 5)
    assert "packed: results/h100-" in done.stdout
    assert "failed" not in done.stdout
    assert packed


def test_the_script_stops_at_ctrl_c_and_still_packs(tmp_path):
    done, calls, packed = run_script(tmp_path, "h100-health", status=130)
    assert done.returncode == 1
    assert [call.split()[1] for call in calls] == ["--expect", "h100-health"]
    assert "results/h100-sxm/h100-health/records.jsonl" in packed
    for name in ("rates", "anchor"):
        assert f"failed: {name} (left out)" in done.stdout


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.sh")), ids=lambda p: p.name)
def test_deploy_scripts_parse(path):
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "set -euo pipefail" in path.read_text()


def test_the_task_file_and_the_image_have_their_parts():
    task = yaml.safe_load((DEPLOY / "skypilot.yaml").read_text())
    assert set(task) == {"name", "resources", "workdir", "envs", "setup", "run"}
    instructions = [
        line.split()[0]
        for line in (DEPLOY / "Dockerfile").read_text().splitlines()
        if line[:1].isalpha()
    ]
    assert instructions == ["ARG", "FROM", "RUN", "WORKDIR", "COPY", "RUN", "ENV", "CMD"]


def test_the_ssh_script_brings_results_back_although_the_node_fails(tmp_path):
    """With ssh and rsync replaced by what writes down how they were called."""
    for tool, then in (("ssh", "exit 1"), ("rsync", "exit 0")):
        (tmp_path / tool).write_text(
            f'#!/bin/sh\necho "{tool} $*" >> {tmp_path}/calls\ncat > /dev/null\n{then}\n'
        )
        (tmp_path / tool).chmod(0o755)
    copy = tmp_path / "checkout/deploy"
    copy.mkdir(parents=True)
    (copy / "ssh.sh").write_text((DEPLOY / "ssh.sh").read_text())
    done = subprocess.run(
        ["bash", str(copy / "ssh.sh"), "user@host"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
    )
    there, run, back = (tmp_path / "calls").read_text().splitlines()
    assert done.returncode == 1
    assert there.endswith("./ user@host:ldt-bench/")
    assert "PRICE=2.50" in run
    assert back.endswith("user@host:ldt-bench/results/ results/")
