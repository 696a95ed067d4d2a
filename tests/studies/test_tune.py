"""One search for every system: the same trials, on validation images, none of them on test images."""

import json

import numpy as np
import pytest

from vlmlab.errors import VlmlabError
from vlmlab.learning.evaluate import evaluate
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import adapt, run_experiment, shared_bank
from vlmlab.studies.store import ResultStore
from vlmlab.studies.table import table
from vlmlab.studies.tune import SEEDS, TRIALS, as_log, drawn, space, tune


def search(tmp_path, system="taskres", **how):
    how = {"backbone": "tiny", "shots": 2, "trials": 3, "seeds": (11, 12), "workers": 0} | how
    return tune(system, ["colours"], ResultStore(tmp_path), **how)


def test_validation_images_are_measured_and_no_test_image_is_read(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(toys.test, "pixels", lambda *a: pytest.fail("a test image was looked at"), raising=False)
    experiment = Experiment("taskres", "colours", "tiny", 2, 11, validation=True)
    adapted = adapt(experiment)
    expected = evaluate(adapted.method, toys.val, shared_bank("tiny"), 11)["accuracy"]
    found = run_experiment(experiment)
    assert found["metrics"]["accuracy"] == pytest.approx(expected, abs=1e-3) and found["validation"] is True
    assert experiment.key != Experiment("taskres", "colours", "tiny", 2, 11).key


def test_every_trial_is_measured_and_the_first_is_the_present_setting(toys, tmp_path):
    trials, chosen = search(tmp_path)
    assert [trial.settings for trial in trials] == drawn(space("taskres", shared_bank("tiny").backbone), 3)
    assert trials[0].settings == {} and trials[0].gain == 0 and chosen in (0, 1, 2)
    assert all(trial.values.shape == (1, 2) for trial in trials)
    plain = run_experiment(Experiment("taskres", "colours", "tiny", 2, 12, validation=True))
    assert trials[0].values[0, 1] == plain["metrics"]["accuracy"]
    assert trials[2].gain == pytest.approx((trials[2].values - trials[0].values).mean())
    log = json.loads(as_log("taskres", trials, chosen, shots=2))
    assert log["chosen"] == chosen and np.allclose(log["trials"][1]["values"], trials[1].values)


def test_what_is_not_better_than_its_error_does_not_replace_the_present_setting(toys, tmp_path, monkeypatch):
    reached = iter([50, 60, 70, 49, 61, 71, 60, 70, 80])  # no change but luck; ten points better

    def run(experiment, download=False, checkpoint=None):
        return {"metrics": {"accuracy": float(next(reached))}}

    monkeypatch.setattr("vlmlab.studies.run.run_experiment", run)
    trials, chosen = search(tmp_path, seeds=(11, 12, 13))
    assert chosen == 2 and trials[2].gain == 10 and trials[2].error == 0
    assert 0 < trials[1].gain < trials[1].error


def test_luck_alone_leaves_the_setting(toys, tmp_path, monkeypatch):
    reached = iter([50, 60, 70, 49, 61, 71, 40, 50, 60])
    monkeypatch.setattr(
        "vlmlab.studies.run.run_experiment", lambda *a, **k: {"metrics": {"accuracy": float(next(reached))}}
    )
    assert search(tmp_path, seeds=(11, 12, 13))[1] == 0


def test_a_search_goes_on_where_it_was(toys, tmp_path, monkeypatch):
    whole, _ = search(tmp_path)
    monkeypatch.setattr("vlmlab.studies.run.run_experiment", lambda *a, **k: pytest.fail("it was measured again"))
    again, _ = search(tmp_path)
    assert [t.values.tolist() for t in again] == [t.values.tolist() for t in whole]


def test_the_rule_is_the_same_for_every_system(toys):
    backbone = shared_bank("tiny").backbone
    now = space("coop", backbone)
    lr = dict(now)["lr"]
    assert lr[1] == pytest.approx(100 * lr[0])
    assert set(space("tip_adapter", backbone)) and "lr" not in space("tip_adapter", backbone)
    assert len(drawn(now, TRIALS)) == TRIALS and drawn(now, TRIALS) == drawn(now, TRIALS)
    assert not set(SEEDS) & {0, 1, 2}, "the measured tables have these seeds"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"system": "zero_shot"}, "zero_shot has no learning rate and no weight to search"),
        ({"names": ["lrr"]}, "unknown setting of taskres that can be searched 'lrr'; did you mean lr"),
        ({"trials": 1}, "needs two trials or more"),
        ({"split": "shift"}, "own validation images; leave out the targets and split shift"),
    ],
)
def test_mistakes_are_told(toys, tmp_path, how, message):
    with pytest.raises(VlmlabError, match=message):
        search(tmp_path, **how)


def test_a_dataset_without_validation_images(toys, tmp_path):
    object.__setattr__(toys, "val", toys.val.subset([]))
    with pytest.raises(VlmlabError, match="colours has no validation images"):
        search(tmp_path)


def test_a_table_is_of_test_images(toys, tmp_path):
    search(tmp_path)
    with pytest.raises(VlmlabError, match="a table is of test images"):
        table(ResultStore(tmp_path).results())
