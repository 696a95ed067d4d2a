import json

import numpy as np
import pytest

from vlmlab.errors import VlmlabError
from vlmlab.studies.adaptation import Plan, by_family, photographs, summary
from vlmlab.studies.adaptation import run as study_run
from vlmlab.studies.report import report


def test_a_test_time_system_runs_once_per_seed(tmp_path):
    few, base = Plan(["tpt", "coop"], ["digits"], "micro-vit", [1, 4], [1, 2], 0, tmp_path).experiments()
    assert [(e.system, e.shots, e.seed) for e in few if e.system == "tpt"] == [("tpt", 0, 1), ("tpt", 0, 2)]
    assert sorted((e.shots, e.seed) for e in few if e.system == "coop") == [(1, 1), (1, 2), (4, 1), (4, 2)]
    assert {(e.system, e.shots, e.split) for e in base} == {("coop", 4, "base")}


def test_all_systems_are_those_of_section_6_that_classify(tmp_path):
    plan = Plan(["all"], ["pictures/mine"], "photo", [1, 4], [1], 0, tmp_path, base_new=["all"])
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
