"""The explore page: its table, its answers, its server, and the file it is exported to."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bench.calibrate.estimate import estimate
from bench.calibrate.evidence.forecast import forecast, usual_conditions
from bench.calibrate.read import read_calibration
from bench.core.errors import UserError
from bench.core.load import load_point
from bench.count.cache import CountCache
from bench.count.shipped import shipped_work
from bench.explore import grid as explore_grid
from bench.explore.choices import OWN_CLIPS, choices, own_clip
from bench.explore.data import read_table
from bench.explore.grid import asked_of, grid, left_out_errors
from bench.explore.page import document
from bench.explore.published import AS_PUBLISHED, PUBLISHED, published_source
from bench.explore.whatif import Answers, Question
from bench.results.store import point_records, read_records
from support.explore import ask, lines, rewrite


def test_the_table_says_what_the_records_say(results):
    table, records = read_table(results), point_records(read_records(results / "cpu/real"))
    assert len(table) == len(records)
    assert table.problems == []
    for i, record in enumerate(records):
        row = {name: column[i] for name, column in table.columns.items()}
        assert (row["model"], row["workload"], row["tokens"]) == (
            record.model,
            record.workload,
            record.tokens,
        )
        step = record.timings["denoise_step"]
        assert (row["step_s"], row["step_low_s"], row["step_high_s"], row["n"]) == (
            step.median_s,
            step.low_s,
            step.high_s,
            step.n,
        )
        assert row["flops_per_s"] == record.counts["denoise_step"].flops / step.median_s
        assert row["result"] == "cpu/real"


def test_a_whole_video_is_the_sum_of_its_stages(results):
    table = read_table(results)
    i = next(i for i, m in enumerate(table.columns["minutes"]) if m is not None)
    record = point_records(read_records(results / "cpu/real"))[i]
    workload, stages = (
        record.point["workload"],
        {name: t.median_s for name, t in record.timings.items()},
    )
    seconds = workload["steps"] * stages["denoise_step"] + stages["vae_decode"]
    seconds += stages["text_encode"] * (2 if workload["guidance"] == "cfg" else 1)
    assert table.columns["video_s"][i] == pytest.approx(seconds)
    assert table.columns["minutes"][i] == pytest.approx(
        workload["frames"] / workload["fps"] * 60 / seconds
    )
    assert (
        table.columns["minutes_low"][i]
        < table.columns["minutes"][i]
        < table.columns["minutes_high"][i]
    )


@pytest.mark.parametrize(
    "broken",
    [
        '{"schema_version":1,"kind"',
        "[]\n",
        '{"schema_version":1,"kind":"point"}\n',
        "\0\xff\n",
        "9" * 5000 + "\n",
        "[" * 100_000 + "\n",
    ],
)
def test_a_broken_line_is_said_and_the_rest_is_read(results, broken):
    whole = lines(results)
    rewrite(results, [*whole, broken])
    table = read_table(results)
    assert len(table) == sum(r["kind"] == "point" for r in whole)
    assert len(table.problems) == 1
    assert table.problems[0].startswith(f"cpu/real/records.jsonl:{len(whole) + 1}: left out")


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 99},
        {"timings": {"denoise_step": {"median_s": 0.0, "low_s": 0.0, "high_s": 0.0, "n": 1}}},
        {"point": None},
        {"model": 7},
        {"tokens": "many"},
    ],
)
def test_a_record_that_cannot_be_shown_is_said(results, change):
    records = lines(results)
    point = next(r for r in records if r["kind"] == "point")
    point |= change
    rewrite(results, records)
    assert len(read_table(results).problems) == 1


def test_the_last_record_of_a_point_counts(results):
    records = lines(results)
    again = json.loads(json.dumps(next(r for r in records if r["kind"] == "point")))
    again["timings"]["denoise_step"]["median_s"] = 123.0
    before = len(read_table(results))
    rewrite(results, [*records, again])
    assert len(read_table(results)) == before
    assert 123.0 in read_table(results).columns["step_s"]


def test_words_are_named_once(results):
    document = read_table(results).document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    models = document["columns"]["model"]
    assert len(models["words"]) == len(set(models["words"])) < len(models["codes"])
    assert document["calibrations"][0]["id"] == "cpu/real"


def test_hidden_directories_and_links_are_left_out(results, tmp_path):
    shutil.copytree(results / "cpu", results / ".hidden")
    (tmp_path / "outside").mkdir()
    shutil.copytree(results / "cpu", tmp_path / "outside" / "cpu")
    (results / "link").symlink_to(tmp_path / "outside")
    assert set(read_table(results).columns["result"]) == {"cpu/real"}


def test_an_answer_is_the_estimate_of_that_point(results):
    answer, question = Answers(results).answer(ask()), ask()
    expected = estimate(question.point("eager-fp32"), read_calibration(results / "cpu/real"))
    assert answer["minutes_per_gpu_hour"] == expected.minutes_per_gpu_hour.as_dict()
    assert answer["step_s"] == expected.step_s.as_dict()
    assert answer["provenance"] == expected.provenance
    assert answer["warnings"] == expected.warnings
    assert answer["frames"] == 17  # 16 are asked; the VAE takes 4 k + 1


def test_steps_and_frame_rate_need_no_new_count(results, monkeypatch):
    import bench.count.point as count

    real, counted = count.count_point, []
    monkeypatch.setattr(count, "count_point", lambda point: (counted.append(point), real(point))[1])
    answers = Answers(results)
    first, more = answers.answer(ask()), answers.answer(ask(steps="40"))
    answers.answer(ask(fps="16", seconds="1"))
    assert len(counted) == 1
    assert more["step_s"]["value"] == pytest.approx(first["step_s"]["value"])
    fresh = Answers(results).answer(ask(steps="40"))
    assert fresh == more
    assert len(counted) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"model": "../../etc/passwd"}, "unknown model"),
        ({"model": "/tmp/x.yaml"}, "unknown model"),
        ({"model": "tiney"}, "did you mean tiny"),
        ({"calibration": "../../etc"}, "no result"),
        ({"calibration": "cpu"}, "no result"),
        ({"calibration": "/"}, "no result"),
        ({"recipe": "fp99"}, "not calibrated"),
        ({"gpu": "h1000"}, "did you mean"),
        ({"guidance": "yes"}, "none, cfg"),
        ({"width": "65"}, "65"),
        ({"frames": "7"}, "unknown field"),
        ({"width": "ten"}, "not a number"),
        ({"steps": "-1"}, "between"),
        ({"seconds": "nan"}, "between"),
        ({"fps": "inf"}, "between"),
        ({"width": "999968", "height": "999968", "seconds": "1000"}, "pixels"),
    ],
)
def test_a_question_that_cannot_be_answered_says_why(results, words, said):
    with pytest.raises(UserError, match=said):
        Answers(results).answer(ask(**words))


def small_grid(monkeypatch, results, sizes, seconds, guidances=("none",), gpus=()) -> dict:
    """A grid of the calibrations of `results` with one toy, in this process."""
    monkeypatch.setattr(explore_grid, "sizes_of", lambda model: sizes)
    monkeypatch.setattr(explore_grid, "SECONDS_TO_COUNT", seconds)
    monkeypatch.setattr(explore_grid, "GUIDANCES", guidances)
    asked = asked_of(read_table(results).calibrations, ["tiny"], gpus)
    return grid(results, asked, processes=1)


def nodes_of(made: dict, place: int = 0) -> list[dict]:
    return [dict(zip(made["fields"], n, strict=True)) for n in made["cells"][place]["nodes"]]


def test_the_grid_holds_exact_answers_and_says_how_well_it_interpolates(results, monkeypatch):
    made = small_grid(monkeypatch, results, ((64, 64), (65, 64)), (0.5, 1.0, 2.0))
    assert {(c["width"], c["guidance"]) for c in made["cells"]} == {(64, "none")}
    assert {(c["width"], c["guidance"]) for c in made["missing"]} == {(65, "none")}
    assert all("65" in c["reason"] for c in made["missing"])
    node = nodes_of(made)[1]
    exact = Answers(results).answer(ask(fps="24", seconds="1", steps="50"))
    assert (node["frames"], node["tokens"]) == (exact["frames"], exact["tokens"])
    assert node["frames"] == 25
    seconds = node["step"][0] * 50 + node["rest"][0]
    assert seconds == pytest.approx(exact["video_s"]["value"], rel=1e-4)
    assert made["words"][node["evidence"]] == exact["evidence"]
    assert [made["words"][i] for i in node["warnings"]] == exact["warnings"]
    assert made["left_out_errors"]["n"] == 1
    assert 0 < made["left_out_errors"]["worst"] < 1


def test_a_grid_in_several_processes_is_that_of_one(results, monkeypatch):
    """As exported: the parts come in any order, and stand in the order of the question."""
    sources = [published_source()]
    asked = asked_of(sources, ["wan2.1-t2v-14b", "sora-20b"], [])
    one, two = (grid(results, asked, processes=n) for n in (1, 2))
    assert one["cells"]
    assert [c | {"nodes": None} for c in one["cells"]] == [
        c | {"nodes": None} for c in two["cells"]
    ]
    assert [nodes_of(one, i) for i in range(3)] == [nodes_of(two, i) for i in range(3)]


def test_by_default_a_page_holds_known_models_and_each_devices_newest_headline():
    def calibration(name: str, device: str, gpu: str = "h100-sxm") -> dict:
        return {"id": name, "device_name": device, "gpu": gpu, "headline_model": "sora-20b"}

    old, new = calibration("h/1", "H100"), calibration("h/2", "H100")
    sources = [old, new, calibration("cpu/1", "EPYC", "cpu"), published_source()]
    asked = asked_of(sources, [], ["h200"])
    assert [(a.source, a.model, a.gpus) for a in asked[:2]] == [
        ("h/2", "sora-20b", (None, "h200")),
        ("cpu/1", "sora-20b", (None, "h200")),
    ]
    assert [a.model for a in asked[2:]] == list(explore_grid.MODELS)
    assert all(a.source == PUBLISHED and "b200" in a.gpus for a in asked[2:])
    named = asked_of(sources, ["tiny"], [])
    assert [a.source for a in named] == ["h/1", "h/2", "cpu/1", PUBLISHED]


def test_a_model_is_asked_about_with_its_own_clip_first():
    """And an exported page has it exactly: its size is a cell, its length a node."""
    offered = choices()
    assert offered["clips"]["hunyuanvideo"] == {
        "width": 1280,
        "height": 720,
        "frames": 129,
        "fps": 24.0,
        "steps": 50,
        "guidance": "none",
    }
    for model in explore_grid.MODELS:
        clip = own_clip(model)
        assert offered["sizes"][model][0] == (clip.width, clip.height)
        lengths = explore_grid.with_own(explore_grid.SECONDS, model)
        assert any(round(s * explore_grid.GRID_FPS) == clip.frames for s in lengths)
    assert set(OWN_CLIPS) <= set(offered["models"])


def test_the_work_of_the_default_page_travels_with_the_package():
    """So that its export counts nothing of the published source."""
    shipped = shipped_work()
    counts = CountCache()
    for point in explore_grid.points_by_default():
        shape = point.model.vae.latent_shape(
            point.workload.frames, point.workload.height, point.workload.width
        )
        denoiser = point.model.model_dump(mode="json")["denoiser"]
        assert counts.key(["forward", denoiser, shape]) in shipped, point.label


def test_a_cpus_calibration_answers_for_no_gpu_and_the_panel_offers_none(results, monkeypatch):
    """Refused before anything is counted; an exported page has the reason in the place of the
    cell."""
    monkeypatch.setattr(Answers, "_count", lambda self, point: pytest.fail("counted in vain"))
    refused = (
        r"^a calibration of cpu .* is not carried over to h100-sxm: .*; give a result measured"
    )
    with pytest.raises(UserError, match=refused):
        Answers(results).answer(ask(gpu="h100-sxm"))
    monkeypatch.undo()
    (calibration,) = read_table(results).calibrations
    assert (calibration["kind"], calibration["default_recipe"]) == ("cpu", "eager-fp32")
    offered = [g["name"] for g in choices()["gpus"] if g["kind"] == calibration["kind"]]
    assert offered == ["cpu"]
    made = small_grid(monkeypatch, results, ((64, 64),), (1.0, 2.0), gpus=["h100-sxm"])
    own, carried = made["cells"] + made["missing"]
    assert (own["gpu"], len(own["nodes"])) == ("cpu", 2)
    assert "is not carried over to h100-sxm" in carried["reason"]


def test_beside_a_cpu_no_card_is_shown_and_beside_evidence_every_one(results):
    answers = Answers(results)
    assert answers.with_cards(ask())["cards"] == []
    asked = Question(PUBLISHED, "wan2.1-t2v-14b", 1280, 720, 81 / 16, 16.0, 50, "cfg")
    answer = answers.with_cards(asked)
    assert {c["gpu"] for c in answer["cards"]} == set(published_source()["cards"])
    minutes = [c["minutes_per_gpu_hour"]["value"] for c in answer["cards"]]
    assert minutes == sorted(minutes, reverse=True)
    own = next(c for c in answer["cards"] if c["gpu"] == "h100-sxm")
    assert own["minutes_per_gpu_hour"] == answer["minutes_per_gpu_hour"]
    assert answer["evidence"].startswith("fitted to ")
    assert "held-out error" in answer["evidence"]
    assert answers.with_cards(replace(asked, gpu="rtx-4090"))["cards"] == answer["cards"]


def test_left_out_errors_are_those_of_a_power_law():
    nodes = [{"frames": f, "step": [float(f) ** 1.5] * 3} for f in (10, 20, 40, 80)]
    assert left_out_errors([{"nodes": nodes}])["worst"] == pytest.approx(0, abs=1e-12)
    nodes[1]["step"][0] *= 2
    errors = left_out_errors([{"nodes": nodes}])
    assert errors["worst"] == pytest.approx(0.5)  # a half of the doubled one is foreseen, and its
    assert errors["mean"] == pytest.approx(
        (0.5 + 2**0.5 - 1) / 2
    )  # neighbour by the root of two too much


def test_the_page_answers_by_what_others_published_as_predict_does(tmp_path: Path) -> None:
    asked = Question(PUBLISHED, "wan2.1-t2v-14b", 1280, 720, 81 / 16, 16.0, 50, "cfg")
    answer = Answers(tmp_path).answer(asked)
    expected = forecast(
        load_point("wan2.1-t2v-14b", "720p-81f", "eager-bf16"),
        "h100-sxm",
        usual_conditions("wan2.1-t2v-14b"),
    )
    assert answer["video_s"] == expected.video_s.as_dict()
    assert (answer["gpu"], answer["recipe"]) == ("h100-sxm", AS_PUBLISHED)
    slower = Answers(tmp_path).answer(replace(asked, gpu="rtx-4090", recipe="eager-bf16"))
    assert slower["video_s"]["value"] > answer["video_s"]["value"]
    for wrong, said in (
        (replace(asked, gpu="h1000"), "h1000"),
        (replace(asked, recipe="../x"), "unknown recipe"),
        (replace(asked, recipe="eager-fp32"), "fp32"),
    ):
        with pytest.raises(UserError, match=said):
            Answers(tmp_path).answer(wrong)


def test_the_page_offers_what_others_published_without_any_result(tmp_path: Path) -> None:
    (source,) = document(read_table(tmp_path))["calibrations"]
    assert source["id"] == PUBLISHED
    assert "rtx-4090" in source["cards"]
    assert "eager" in source["recipes"]
    assert "draft-fp32" not in source["recipes"]  # no row is of it
