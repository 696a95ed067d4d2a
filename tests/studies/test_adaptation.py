import json

import numpy as np
import pytest

from vlmlab.errors import VlmlabError
from vlmlab.studies.adaptation import Plan, photographs, summary
from vlmlab.studies.report import report


def test_a_test_time_system_runs_once_per_seed(tmp_path):
    few, base = Plan(["tpt", "coop"], ["digits"], "micro-vit", [1, 4], [1, 2], 0, tmp_path).experiments()
    assert [(e.system, e.shots, e.seed) for e in few if e.system == "tpt"] == [("tpt", 0, 1), ("tpt", 0, 2)]
    assert sorted((e.shots, e.seed) for e in few if e.system == "coop") == [(1, 1), (1, 2), (4, 1), (4, 2)]
    assert {(e.system, e.shots, e.split) for e in base} == {("coop", 4, "base")}


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

    row = {"system": "coop", "dataset": "digits", "shots": 1, "metrics": {"accuracy": 40.0}, "zero_shot": {"accuracy": 9.0}}
    said = summary(Results([row], [], ["tpt on digits: too dark"]))
    assert "9.0 %" in said and "40.0 %" in said and "too dark" in said
