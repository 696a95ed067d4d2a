"""The study of RO-ViT's recipe: what is stopped goes on, and the better arm alone meets the test images."""

import pytest

from vlmlab.datasets import Task
from vlmlab.features.bank import FeatureBank
from vlmlab.studies import region_pretraining
from vlmlab.studies.region_pretraining import Study, main
from vlmlab.testing import toys

SETTINGS = {"pretrain_epochs": 2, "pretrain_batch": 4, "epochs": 1}


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path / "cache"))
    bank = FeatureBank(toys.backbone(), disk=False)

    def task(seed):
        return Task(bank.backbone, toys.dense_dataset(), 0, seed)

    return lambda name: Study(task, bank, tmp_path / name, SETTINGS)


def numbers(study):
    return [{name: value for name, value in row.items() if name != "minutes"} for row in study.rows()]


def test_a_study_that_was_stopped_ends_like_an_unbroken_one(study):
    whole = study("whole.csv")
    assert whole.run(seeds=(1,), echo=lambda _: None)
    broken, asked = study("broken.csv"), []

    def stop():
        asked.append(0)
        return len(asked) in (2, 6, 9)

    turns = 0
    while not broken.run(seeds=(1,), echo=lambda _: None, stop=stop):
        turns += 1
    assert turns >= 2 and numbers(broken) == numbers(whole)


def test_each_epoch_is_measured_and_the_better_arm_alone_is_tested(study):
    own = study("rows.csv")
    own.run(seeds=(1, 2), echo=lambda _: None)
    for arm in region_pretraining.ARMS:
        for seed in (1, 2):
            looked = [row for row in own.of(arm, seed) if row["measured_on"] == "validation"]
            assert [row["epoch"] for row in looked] == ["0", "1", "2"]
            assert looked[-1]["minutes"] and not looked[0]["minutes"]
    first = {row["named_base"] for row in own.rows() if row["epoch"] == "0"}
    assert len(first) == 1  # both begin with the same tower
    tested = [row for row in own.rows() if row["measured_on"] == "test"]
    assert {row["arm"] for row in tested} == {own.better((1, 2))} and len(tested) == 2
    assert all(row["ap50_base"] for row in tested)


def test_a_file_of_something_else_is_refused(tmp_path, capsys):
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    assert main(["--list", "--out", str(other)]) == 2
    assert "--out" in capsys.readouterr().err
