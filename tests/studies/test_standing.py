"""What must be there before an order of systems means something: counted by hand on small tables."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from vlmlab.cli.entry import main
from vlmlab.errors import VlmlabError
from vlmlab.studies import standing
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.store import ResultStore
from vlmlab.studies.table import table
from vlmlab.studies.verify import claims


def result(system, dataset="digits", accuracy=60.0, zero=50.0, shots=16, split="all", seed=1, **more):
    metrics = {"accuracy": accuracy} | {name: more.pop(name) for name in ("base", "new") if name in more}
    return {
        "system": system,
        "dataset": dataset,
        "backbone": "micro-vit",
        "shots": shots,
        "seed": seed,
        "split": split,
        "metrics": metrics,
        "zero_shot": {"accuracy": zero},
        "trainable_parameters": 1,
        "cpu_seconds": 1.0,
        "peak_mb": 1.0,
        "config": {},
    } | more


def measured(*results, **how):
    return pd.DataFrame(table(results, **how)).replace("", float("nan"))


def test_a_dataset_discriminates_if_zero_shot_leaves_room_and_the_median_system_moves():
    gains = {"coop": 1.0, "clip_adapter": 4.0, "tip_adapter": 9.0}
    rows = [result(key, accuracy=50 + gain) for key, gain in gains.items()]
    rows += [result(key, "flowers", 90 + gain, 90.0) for key, gain in gains.items()]
    rows += [result(key, "aerial", 50 + gain - 2) for key, gain in gains.items()]
    rows += [
        result("coop", shots=1, accuracy=99.0),
        result("vcd", shots=0, accuracy=99.0),
        result("coop", "food", split="base"),
    ]
    found = standing.discriminating(measured(*rows)).set_index("dataset")
    assert dict(found.median_gain) == {"digits": 4.0, "flowers": 4.0, "aerial": 2.0}
    assert dict(found.discriminates) == {"digits": True, "flowers": False, "aerial": False}
    assert set(found.loc["digits", "systems"].split(", ")) == set(gains)
    assert standing.discriminating(measured(result("vcd", shots=0))).empty


def test_new_classes_are_compared_on_the_datasets_that_all_have():
    rows = [
        result(key, shots=0, split="base", base=60.0, new=70.0, dataset=d)
        for d in ("digits", "food")
        for key in ("zero_shot",)
    ]
    rows += [result("coop", split="base", base=80.0, new=64.0), result("maple", split="base", base=80.0, new=71.0)]
    rows += [
        result("maple", "food", split="base", base=80.0, new=10.0),
        result("clip_adapter", split="base", base=1.0, new=1.0),
    ]
    found = standing.on_new_classes(measured(*rows)).set_index("system")
    assert dict(found.above_zero_shot) == {"zero_shot": 0.0, "maple": 1.0, "coop": -6.0}
    assert set(found.datasets) == {"digits"}
    assert standing.on_new_classes(measured(rows[2])).empty, (
        "without zero-shot prediction there is nothing to compare with"
    )


def test_a_verdict_on_another_sentence_is_not_counted(monkeypatch):
    counts = standing.verdicts()
    assert counts["claims"] == len(claims()) > counts["measured"] > 0
    assert counts["measured"] == counts["holds"] + counts["inconclusive"] + counts["not reproduced"]
    monkeypatch.setattr(standing, "claims", lambda: claims() | {"vild": "another sentence"})
    assert standing.verdicts()["measured"] == counts["measured"] - 1


def test_validation_images_have_a_table_of_their_own():
    on_validation = result("coop", validation=True)
    with pytest.raises(VlmlabError, match="a table is of test"):
        table([on_validation])
    with pytest.raises(VlmlabError, match="on validation and on test images"):
        table([on_validation, result("maple")], validation=True)
    assert len(table([on_validation], validation=True)) == 1


def test_from_the_command_line(tmp_path, capsys):
    store = ResultStore(tmp_path)
    for system in ("clip_adapter", "tip_adapter"):
        one = Experiment(system, "aerial", seed=11, validation=True)
        store.add(one, result(system, "aerial", 70.0, 48.0, seed=11, validation=True))
    assert main(["table", str(tmp_path), "--discriminating", "--json"]) == 0
    (line,) = json.loads(capsys.readouterr().out)
    assert line["median_gain"] == 22.0 and line["discriminates"] is True
    assert main(["table", str(tmp_path)]) == 2 and "validation" in capsys.readouterr().err
    assert main(["table", "--agreement", "--discriminating"]) == 2


def test_all_that_counts_stands_beside_the_orders(capsys):
    assert main(["table", "--agreement", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"orders", "discriminating_datasets", "claims_of_vlmlab_verify", "new_classes"} == set(found)
    assert {line["protocol"] for line in found["orders"]} >= {"base-to-new", "few-shot all classes"}
    here, on_validation = found["discriminating_datasets"]
    assert set(here["which"].split(", ")) == {"aerial", "objects-v2", "objects-sketch"}
    assert 0 < on_validation["discriminating"] <= on_validation["datasets"] == 10
    assert [line["system"] for line in found["new_classes"]] == ["zero_shot", *standing.CARRIED]
