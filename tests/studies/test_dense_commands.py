"""What `vlmlab run` prints of a detector and of a segmenter on drawn scenes."""

import json

import pytest

from vlmlab.cli import main
from vlmlab.datasets.catalog import BY_NAME
from vlmlab.studies.run import shared_dataset

COUNTS = {"train": 60, "val": 10, "test": 40}


@pytest.fixture
def few_scenes(monkeypatch, tmp_path):
    """tableau with few scenes, in a cache of the test's own: what is drawn is stored under tableau's name."""
    monkeypatch.setenv("VLMLAB_CACHE", str(tmp_path))
    for split, count in COUNTS.items():
        monkeypatch.setitem(BY_NAME["tableau"].splits, split, count)
    shared_dataset.cache_clear()
    yield
    shared_dataset.cache_clear()


def printed(capsys, system: str, *settings: str) -> dict:
    chosen = [part for setting in settings for part in ("--set", setting)]
    assert main(["run", system, "--dataset", "tableau", "--json", *chosen]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_detector_stands_beside_the_teacher_on_its_proposals(few_scenes, capsys):
    result = printed(capsys, "vild", "epochs=2", "hidden=32")
    metrics, beside = result["metrics"], result["zero_shot"]
    wanted = {"ap50", "ap50_base", "ap50_new", "ap", "ap_base", "ap_new", "harmonic_mean", "recall_base", "recall_new"}
    assert wanted | {"teacher_base", "teacher_new"} <= set(metrics) == set(beside)
    assert all(0 <= value <= 100 for value in metrics.values())
    for name in ("recall_base", "recall_new", "teacher_base", "teacher_new"):
        assert metrics[name] == beside[name]
    assert beside["ap50_new"] > metrics["ap50_new"]  # two epochs of a small head


def test_a_segmenter_is_measured_by_group(few_scenes, capsys):
    result = printed(capsys, "zsseg", "epochs=1", "prompt_steps=2")
    assert set(result["metrics"]) == {"miou", "miou_base", "miou_new", "harmonic_mean", "pixel_accuracy"}
    assert set(result["zero_shot"]) == set(result["metrics"]) and result["zero_shot"]["miou_base"] > 0
