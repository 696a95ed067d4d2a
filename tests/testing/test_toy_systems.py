"""The interfaces of detectors and segmenters carry: toy systems go through everything that a system of the survey goes through."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from IPython import display as ipython_display

from vlmlab import registry
from vlmlab.cli import main
from vlmlab.datasets import Task
from vlmlab.errors import ForeignCheckpoint
from vlmlab.learning.fit import fit
from vlmlab.studies import bench, run
from vlmlab.studies.adaptation import Plan
from vlmlab.studies.adaptation import run as run_report
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt, run_experiment
from vlmlab.studies.store import ResultStore
from vlmlab.studies.sweep import suited, sweep
from vlmlab.studies.table import read_table, table, write_table
from vlmlab.studies.templates import templates
from vlmlab.studies.verify import claims, judged, verify
from vlmlab.testing import cases, toys
from vlmlab.testing.toy_systems import ToyDetector, ToySegmenter

MAIN = {"toy_detector": "ap50", "toy_segmenter": "miou"}


def learns_base_classes(system: str):
    """A claim of a user's own system: what was learned from base classes is better than its start."""

    def measure():
        asked = [
            [Experiment(system, "tableau", "tiny", 0, seed, config=(("epochs", n),)) for n in (1, 20)]
            for seed in (1, 2)
        ]
        metric = f"{MAIN[system]}_base"
        found = [[run_experiment(one)["metrics"] for one in pair] for pair in asked]
        gains = [after[metric] - before[metric] for before, after in found]
        ceilings = {"recall of proposals": found[0][1].get("recall_base", 100.0)}
        return judged(system, "learning helps on base classes", {}, gains, ceilings)

    return staticmethod(measure)


class Detecting(ToyDetector):
    claim = "learning helps on base classes"
    measure = learns_base_classes("toy_detector")


class Segmenting(ToySegmenter):
    claim = "learning helps on base classes"
    measure = learns_base_classes("toy_segmenter")


@pytest.fixture(autouse=True)
def world(monkeypatch, tmp_path):
    """The toys are registered, as a user's own systems are; "tableau" and every backbone are toys, too."""
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path / "cache"))
    for system in (Detecting, Segmenting):
        monkeypatch.setitem(registry._registered, system.info.key, system)
    monkeypatch.setattr(run, "load_backbone", lambda name, device: toys.backbone())
    monkeypatch.setattr(run, "load_dataset", lambda name, **how: toys.dense_dataset())
    run.shared_bank.cache_clear()
    run.shared_dataset.cache_clear()
    yield
    run.shared_bank.cache_clear()
    run.shared_dataset.cache_clear()


def asked(system: str, seed: int = 1) -> Experiment:
    return Experiment(system, "tableau", "tiny", shots=0, seed=seed)


@pytest.mark.parametrize(("check", "system"), cases(ToyDetector, ToySegmenter), ids=str)
def test_they_keep_the_contract(check, system):
    check(system)


def test_a_detector_is_measured_by_groups_with_its_ceilings_and_beside_zero_shot_prediction():
    metrics = run_experiment(asked("toy_detector"))["metrics"]
    for group in ("base", "new"):
        assert metrics[f"recall_{group}"] == 100 and f"ap_{group}" in metrics
    assert metrics["ap50_base"] > 50 and metrics["teacher_base"] > 50  # of three base classes
    assert metrics["ap50"] == pytest.approx((metrics["ap50_base"] + metrics["ap50_new"]) / 2, abs=1e-3)


def test_a_segmenter_is_measured_by_groups_and_beside_maskclip():
    result = run_experiment(asked("toy_segmenter"))
    assert result["metrics"]["miou_base"] > 40 and "pixel_accuracy" in result["metrics"]
    assert result["zero_shot"].keys() == result["metrics"].keys()


@pytest.mark.parametrize("system", MAIN)
def test_a_stopped_run_resumes_to_the_same_bits(system, tmp_path):
    whole = adapt(asked(system))
    steps, file = [], tmp_path / "checkpoint.pt"
    stopped = adapt(
        asked(system), on_step=lambda *step: steps.append(step), should_stop=lambda: len(steps) >= 7, checkpoint=file
    )
    assert stopped.record.stopped and not torch.equal(stopped.method.weight, whole.method.weight)
    assert torch.equal(adapt(asked(system), checkpoint=file).method.weight, whole.method.weight)


@pytest.mark.parametrize("change", ["boxes", "semantic", "caption"])
def test_a_checkpoint_of_other_annotations_belongs_to_another_run(change, tmp_path):
    data, file = toys.dense_dataset(), tmp_path / "checkpoint.pt"

    def annotated(**changes):
        """The training images, of which the first has another annotation."""
        train = copy.copy(data.train)
        train._annotate = lambda i: dataclasses.replace(data.train.truth(i), **(changes if i == 0 else {}))
        train._caption = lambda i: "another sentence" if change == "caption" and changes and i == 0 else "a sentence"
        task = Task(toys.backbone(), dataclasses.replace(data, train=train), 0, seed=1)
        return task.seen_by("open-vocabulary")

    first = data.train.truth(0)
    other = {"boxes": {"boxes": first.boxes + 1}, "semantic": {"semantic": first.semantic + 1}}
    fit(ToySegmenter(toys.backbone()), annotated(), checkpoint=file)
    fit(ToySegmenter(toys.backbone()), annotated(), checkpoint=file)  # the same: it goes on
    with pytest.raises(ForeignCheckpoint, match="annotations"):
        fit(ToySegmenter(toys.backbone()), annotated(**other.get(change, {"boxes": first.boxes})), checkpoint=file)


def test_sweep_store_and_table(tmp_path):
    store = ResultStore(tmp_path)
    planned = suited(list(MAIN), ["tableau", "digits"], ["tiny"], shots=(1, 4), seeds=(1, 2), splits=("all", "base"))
    assert [(e.system, e.dataset, e.shots, e.split) for e in planned] == [
        (system, "tableau", 0, "all") for system in MAIN for _ in (1, 2)
    ]
    outcomes = sweep(planned, store, workers=0)
    assert not any(outcome.failure for outcome in outcomes)
    assert all(outcome.known for outcome in sweep(planned, store, workers=0))
    write_table(table(store.results()), tmp_path / "measured.csv")
    measured = read_table(tmp_path / "measured.csv").set_index("system")
    assert dict(measured.metric) == MAIN and list(measured.seeds) == [2, 2]
    for system, metric in MAIN.items():
        results = [outcome.result["metrics"] for outcome in outcomes if outcome.experiment.system == system]
        assert measured["mean"][system] == pytest.approx(sum(r[metric] for r in results) / 2, abs=0.01)
        assert measured["base"][system] == pytest.approx(sum(r[f"{metric}_base"] for r in results) / 2, abs=0.01)
    assert measured.zero_shot.between(0, 100).all()  # the same metric of the frozen backbone


def test_claims_of_one_s_own_systems_are_verified(capsys):
    assert set(MAIN) <= set(claims())
    (verdict,) = verify(["toy_segmenter"])
    assert verdict.outcome == "holds" and verdict.measured["difference"] > verdict.measured["difference_sd"]
    assert main(["verify", "toy_detector", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["outcome"] == "holds"


def test_bench_fits_them():
    measured = bench.bench([f"fit.{system}" for system in MAIN])
    assert all(measured[f"fit.{system}.seconds"]["value"] > 0 for system in MAIN)


def test_the_command_line_runs_them(capsys):
    assert main(["run", "toy_segmenter", "--dataset", "tableau", "--backbone", "micro-vit", "--json"]) == 0
    assert "miou_base" in json.loads(capsys.readouterr().out)["metrics"]
    assert main(["run", "toy_detector", "--dataset", "tableau", "--backbone", "micro-vit", "--split", "base"]) == 2
    assert main(["run", "toy_detector", "--dataset", "tableau", "--backbone", "micro-vit", "--views", "2"]) == 2
    told = capsys.readouterr().err.strip().split("\n")
    assert "leave out --split base" in told[-2] and "which are not cropped" in told[-1]


def test_a_report_shows_them(tmp_path, monkeypatch):
    """The cells of the template, run here: a kernel would not know the toys."""
    shown = []
    monkeypatch.setattr(ipython_display, "display", shown.append)
    monkeypatch.setattr("IPython.display.display", shown.append)
    cells = json.loads(templates()["adaptation"].read_text(encoding="utf-8"))["cells"]
    names = {"display": shown.append}
    given = {
        "systems": list(MAIN), "datasets": ["tableau"], "backbone": "tiny", "workers": 0, "out": str(tmp_path),
        "test_pictures": 0, "photo_backbone": "", "base_new": list(MAIN), "seeds": [1, 2],
    }  # fmt: skip
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
            names |= given if "parameters" in cell["metadata"].get("tags", ()) else {}
    record = json.loads(Path(tmp_path, "record.json").read_text())
    assert {row["system"] for row in record["few_shot"]} == set(MAIN) and not record["failures"]
    assert {row["system"] for row in record["base_new"]} == set(MAIN)
    said = "\n".join(one.data for one in shown if hasattr(one, "data"))
    assert "in mIoU, zero-shot prediction has" in said and "in AP50, zero-shot prediction has" in said


def test_a_report_runs_dense_systems_once_per_seed_on_all_classes(tmp_path):
    plan = Plan(list(MAIN), ["tableau"], "tiny", [1, 4], [1, 2], 0, tmp_path, base_new=list(MAIN))
    few, base = plan.experiments()
    assert {(e.shots, e.split) for e in few} == {(0, "all")} and len(few) == 4 and not base
    assert len(run_report(dataclasses.replace(plan, seeds=[1])).base_new) == 2


def test_a_panel_fits_and_shows_them(monkeypatch):
    monkeypatch.setenv("VLMLAB_STATIC", "1")  # nobody watches while it learns
    from vlmlab.widgets.method_lab import MethodLab

    for system in MAIN:
        lab = MethodLab(system, "tableau", "micro-vit", systems=tuple(MAIN))
        lab.start()
        lab.wait()
        facts = lab.facts()
        assert facts["parameters"] == 3 * toys.backbone().embed_dim and 0 < facts["accuracy"] <= 100, lab.error
        assert lab.static().axes
        lab.close()
