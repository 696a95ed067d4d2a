import json
import re

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from vlmlab.errors import VlmlabError
from vlmlab.studies.adaptation import Plan, by_family, photographs, short_settings, summary
from vlmlab.studies.adaptation import run as study_run
from vlmlab.studies.report import report


def test_a_test_time_system_runs_once_with_the_first_seed(tmp_path):
    few, base = Plan(["tpt", "coop"], ["digits"], "micro-vit", [1, 4], [1, 2], 0, tmp_path).experiments()
    assert [(e.system, e.shots, e.seed) for e in few if e.system == "tpt"] == [("tpt", 0, 1)]
    assert {e.seed for e in few if e.system == "coop"} == {1, 2}
    assert sorted((e.shots, e.seed) for e in few if e.system == "coop") == [(1, 1), (1, 2), (4, 1), (4, 2)]
    assert {(e.system, e.shots, e.split) for e in base} == {("coop", 4, "base")}


def test_many_classes_have_larger_batches_also_in_a_folder(tmp_path):
    def batch(classes):
        for c in range(classes):
            for i in range(3):
                path = tmp_path / str(classes) / f"class {c}" / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((8, 8, 3), 9 * c, np.uint8)).save(path)
        return short_settings("coop", str(tmp_path / str(classes))).get("batch_size")

    assert (batch(21), batch(20)) == (128, None)
    assert short_settings("coop", "objects")["batch_size"] == 128 and not short_settings("coop", "digits")


def test_settings_of_a_report_go_to_the_systems_that_have_them(tmp_path):
    def plan(*settings):
        systems = ["coop", "cupl", "tpt"]
        return Plan(systems, ["objects"], "micro-vit", [1], [1], 0, tmp_path, settings=settings)

    few, base = plan("batch_size=512", "coop.epochs=3", "tpt.n_views=4").experiments()
    configs = {e.system: dict(e.config) for e in few}
    assert configs == {"coop": {"batch_size": 512, "epochs": 3}, "cupl": {}, "tpt": {"n_views": 4}}
    start = {"init": "a photo of a"}  # CoOp's on base and new classes
    assert dict(base[0].config) == configs["coop"] | start, "in place of what keeps a report short"
    for wrong, said in (
        ("bath_size=1", "did you mean batch_size"),
        ("plot.epochs=1", "'plot'"),
        ("epochs", "KEY=VALUE"),
        ("coop.lr=abc", "lr"),
        ("epochs=0", "epochs"),
    ):
        with pytest.raises(VlmlabError, match=said):
            plan(wrong)


def test_all_systems_are_those_of_section_6_that_classify(tmp_path):
    plan = Plan(["all"], ["images/mine"], "photo", [1, 4], [1], 0, tmp_path, base_new=["all"])
    assert {"coop", "vp", "tip_adapter", "cupl", "upl"} <= set(plan.systems)
    assert not {"maskclip", "dualcoop", "zero_shot", "all"} & set(plan.systems)
    few, base = plan.experiments()
    assert {e.system for e in few} == {e.system for e in base} == set(plan.systems)
    assert {e.shots for e in base if e.system == "coop"} == {4} and {e.shots for e in base if e.system == "cupl"} == {0}
    assert Plan(["tpt", "coop"], ["digits"], "micro-vit", [1], [1], 0, tmp_path).base_new == ["coop"]


def test_what_a_backbone_cannot_carry_is_one_line_per_system(tmp_path, monkeypatch):
    def run(experiment, download=False, checkpoint=None):
        if experiment.system == "maple":
            raise VlmlabError("photo's image tower has no tokens; choose a ViT")
        if experiment.seed == 2:
            raise VlmlabError("bad luck")
        return {"metrics": {"accuracy": 50.0}}

    monkeypatch.setattr("vlmlab.studies.run.run_experiment", run)
    results = study_run(Plan(["coop", "maple"], ["digits"], "photo", [1, 4], [1, 2], 0, tmp_path, base_new=[]))
    assert (
        len(results.few_shot) == 2
        and "maple (4 runs): photo's image tower has no tokens; choose a ViT" in results.failures
    )
    assert len(results.failures) == 2


def test_a_report_over_a_folder_with_a_checkpoint_of_one_s_own(tmp_path, monkeypatch):
    """The path that needs no hub: arch@file, with random weights."""
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path / "cache"))
    tower = {"layers": 1, "width": 64}
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "patch_size": 16, **tower},
        "text_cfg": {"context_length": 32, "vocab_size": 49408, "heads": 1, **tower},
    }
    (tmp_path / "tiny-report.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-report.json")
    torch.save(open_clip.model.CLIP(**config).state_dict(), tmp_path / "own.pt")
    for part, seed in (("train", 1), ("test", 2)):
        rng = np.random.default_rng(seed)
        for name, colour in (
            ("crimson", (200, 20, 20)),
            ("teal", (20, 160, 150)),
            ("ochre", (200, 130, 30)),
            ("jet", (9, 9, 9)),
        ):
            (tmp_path / "mine" / part / name).mkdir(parents=True)
            for i in range(3):
                pixels = np.clip(rng.normal(colour, 20, (40, 40, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "mine" / part / name / f"{i}.png")
    backbone = f"tiny-report@{tmp_path / 'own.pt'}"
    systems = ["coop", "tip_adapter", "cupl"]
    plan = Plan(systems, [str(tmp_path / "mine")], backbone, [1], [1], 0, tmp_path / "store", base_new=["coop"])
    results = study_run(plan)
    assert {(r["system"], r["backbone"]) for r in results.few_shot} == {("coop", backbone), ("tip_adapter", backbone)}
    assert [r["system"] for r in results.base_new] == ["coop"] and "new" in results.base_new[0]["metrics"]
    (reason,) = results.failures
    assert reason.startswith("cupl on ") and "descriptions" in reason
    assert "not run: cupl" in summary(results) and not results.again
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "mine" / "train" / "jet" / "more.png")
    plan = Plan(["tip_adapter"], [str(tmp_path / "mine")], backbone, [1], [1], 0, tmp_path / "store", base_new=[])
    again = summary(study_run(plan))
    assert f"- measured again, since {tmp_path / 'mine'} has changed: images 24 -> 25" in again


def test_many_systems_get_a_chart_per_family():
    rows = [{"system": key} for key in ("coop", "maple", "tip_adapter", "cupl")]
    assert by_family(rows) == {"": rows} and by_family([]) == {}
    more = [{"system": key} for key in ("coop", "cocoop", "kgcoop", "plot", "lasp", "prograd", "vp", "maple", "cupl")]
    charts = by_family(more)
    assert list(charts) == ["text prompt", "visual prompt", "text visual prompt", "other"]
    assert sum(map(len, charts.values())) == len(more)


def test_an_empty_word_is_refused_before_anything_is_loaded():
    with pytest.raises(VlmlabError, match="empty word"):
        photographs("micro-vit", ["cat", " "])


@pytest.mark.slow
def test_the_report_says_what_the_store_holds(tmp_path):
    parameters = {"systems": ["tip_adapter"], "datasets": ["digits"], "shots": [1, 2], "seeds": [1], "workers": 0}
    files = report(parameters, tmp_path / "out", echo=lambda _: None)
    rows = json.loads(files["record"].read_text())["few_shot"]
    assert [(r["system"], r["shots"]) for r in rows] == [("tip_adapter", 1), ("tip_adapter", 2)]
    best = max(r["metrics"]["accuracy"] for r in rows)
    page = files["html"].read_text()
    assert f"{np.round(best, 1)} %" in page and "Base and new classes" in page


def test_losses_are_told_as_plainly_as_gains_and_so_is_what_was_measured():
    from vlmlab.studies.adaptation import Results, provenance

    def row(system, shots, accuracy, seed=1):
        return {
            "system": system, "dataset": "digits", "shots": shots, "seed": seed, "backbone": "micro-vit",
            "metrics": {"accuracy": accuracy}, "zero_shot": {"accuracy": 50.0}, "test_pictures": 250,
            "versions": {"vlmlab": "9.8", "torch": "1.2"},
        }  # fmt: skip

    rows = [row("coop", 1, 44.0), row("coop", 1, 45.0, seed=2), row("coop", 16, 70.0), row("tpt", 0, 49.8)]
    said = summary(Results(rows, [], []))
    assert "the best here is CoOp with 16 shots per class, 70.0 %" in said
    assert said.endswith("Below zero-shot prediction: CoOp, 1 shot (-5.5 points), TPT (-0.2 points).")
    assert summary(Results(rows[2:3], [], [])).endswith("Nothing here is below zero-shot prediction.")
    told = provenance(Results(rows, [], []))
    assert "Backbone micro-vit; seeds 1, 2; about 250 test images of each dataset; vlmlab 9.8, torch 1.2." in told
    assert re.match(r"Written on \d{4}-\d\d-\d\d\.", told)


def test_the_summary_names_failures(tmp_path):
    from vlmlab.studies.adaptation import Results

    row = {
        "system": "coop",
        "dataset": "digits",
        "shots": 1,
        "metrics": {"accuracy": 40.0},
        "zero_shot": {"accuracy": 9.0},
    }
    said = summary(Results([row], [], ["tpt on digits: too dark"]))
    assert "9.0 %" in said and "40.0 %" in said and "too dark" in said
