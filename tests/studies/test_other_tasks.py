"""Tasks beyond one label per image: what runs, and what is refused before anything is computed."""

import dataclasses

import pytest

from vlmlab.datasets import load_dataset
from vlmlab.errors import VlmlabError
from vlmlab.studies import run
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import run_experiment
from vlmlab.world.objects import NOVEL


@pytest.fixture
def small(monkeypatch):
    """tableau with few test images."""
    full = load_dataset("tableau")
    cut = dataclasses.replace(full, test=full.test.subset(range(40)))
    monkeypatch.setattr(run, "shared_dataset", lambda name, *a, **k: cut if name == "tableau" else load_dataset(name))
    return cut


def test_dualcoop_recognises_categories_that_it_never_learned(small, monkeypatch):
    from vlmlab.methods.text_prompt.dualcoop import DualCoOp

    asked, inner = [], DualCoOp.set_classes

    def spied(self, classes, templates):
        asked.append(tuple(classes))
        inner(self, classes, templates)

    monkeypatch.setattr(DualCoOp, "set_classes", spied)
    settings = (("epochs", 1), ("n_neg", 2), ("n_pos", 2))
    result = run_experiment(Experiment("dualcoop", "tableau", shots=1, split="base", config=settings))
    assert set(result["metrics"]) == {"map", "base", "new", "harmonic_mean"}
    assert result["metrics"]["map"] == result["metrics"]["base"]
    assert set(result["zero_shot"]) == set(result["metrics"])
    base, new = asked[0], asked[-2]
    assert set(new) == set(NOVEL) and not set(base) & set(new) and asked[-1] == base


def test_tai_dp_runs_without_a_picture_to_learn_from(small):
    settings = (("captions", 60), ("epochs", 2), ("n_ctx", 2))
    result = run_experiment(Experiment("tai_dp", "tableau", shots=0, split="base", config=settings))
    assert set(result["metrics"]) == {"map", "base", "new", "harmonic_mean"}
    assert result["trainable_parameters"] == 2 * 2 * 128


def test_captions_of_one_s_own_are_read_and_a_wrong_file_is_told(small, tmp_path):
    file = tmp_path / "captions.txt"
    file.write_text("a fish and a bird\na house\n" * 10)
    settings = (("sentences", str(file)), ("epochs", 1), ("n_ctx", 2))
    assert run_experiment(Experiment("tai_dp", "tableau", shots=0, config=settings))["metrics"]["map"] > 0
    file.write_text("nothing to see")
    with pytest.raises(VlmlabError, match="none of 1 sentences names any of the 47 classes"):
        run_experiment(Experiment("tai_dp", "tableau", shots=0, config=settings))


@pytest.mark.parametrize(
    ("system", "dataset", "words"),
    [
        ("coop", "tableau", "coop does classification; tableau has ground truth for multi-label classification"),
        ("tai_dp", "objects", "tai_dp does multi-label classification; objects has .*: choose tableau"),
        ("denseclip", "objects", "denseclip does segmentation; objects has ground truth for classification"),
        ("protect", "tableau", "protect does classification, hierarchical classification; tableau has"),
    ],
)
def test_a_pair_without_a_common_task_names_the_tasks(system, dataset, words):
    with pytest.raises(VlmlabError, match=words) as caught:
        run_experiment(Experiment(system, dataset))
    assert "\n" not in str(caught.value)


def test_levels_of_a_tree_are_measured_for_any_system_that_can_change_its_words():
    result = run_experiment(Experiment("zero_shot", "scenes", shots=0, split="hierarchy"))
    figures = result["metrics"]
    assert figures["hca"] <= figures["accuracy"] and 0 < figures["mta"] <= 100
    with pytest.raises(VlmlabError, match="digits comes without a class hierarchy"):
        run_experiment(Experiment("zero_shot", "digits", shots=0, split="hierarchy"))


def test_denseclip_learns_from_masks_and_not_from_crops(small):
    settings = (("epochs", 1), ("channels", 8), ("layers", 1), ("width", 16), ("encoder_rate", 0.0))
    result = run_experiment(Experiment("denseclip", "tableau", shots=1, config=settings))
    assert {"miou", "pixel_accuracy"} <= set(result["metrics"])
    with pytest.raises(VlmlabError, match="masks, which are not cropped"):
        run_experiment(Experiment("denseclip", "tableau", shots=1, config=settings, views=2))
