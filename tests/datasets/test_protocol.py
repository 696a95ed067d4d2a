import dataclasses

import pytest

from tests.datasets.test_task import NAMES, dataset
from vlmlab.datasets.protocol import NEEDS, PROTOCOLS
from vlmlab.errors import VlmlabError
from vlmlab.registry import SETUPS, SystemInfo


def system(setup: str, tasks=("classification",)) -> SystemInfo:
    return SystemInfo("some", "Some", "", 2020, "6", "other", setup, "nothing", tasks)


def target(name: str, classes=None):
    return dataclasses.replace(dataset(), name=name, classes=classes or NAMES)


def test_few_shot_judges_the_classes_that_were_learned():
    learned, judged = PROTOCOLS["few-shot"].tasks(None, dataset(), shots=2, seed=3)
    assert judged == {"zoo": learned}
    assert (learned.shots, learned.seed, learned.split) == (2, 3, "all")


def test_base_to_new_learns_on_base_and_judges_on_both():
    learned, judged = PROTOCOLS["base-to-new"].tasks(None, dataset(), shots=2)
    assert learned.split == "base" and judged["base"] is learned
    assert judged["new"].classes == NAMES[3:] and len(judged["new"].support) == 0


def test_cross_dataset_learns_nothing_from_the_targets():
    learned, judged = PROTOCOLS["cross-dataset"].tasks(None, dataset(), [target("farm", list("vwxyz"))], shots=2)
    assert list(judged) == ["zoo", "farm"]
    assert judged["farm"].classes == list("vwxyz")
    assert len(learned.support) == 10 and len(judged["farm"].support) == 0


def test_domain_shift_needs_the_same_classes():
    _, judged = PROTOCOLS["domain-shift"].tasks(None, dataset(), [target("zoo-sketch")], shots=1)
    assert list(judged) == ["zoo", "zoo-sketch"]
    with pytest.raises(VlmlabError, match="farm has others than zoo; use cross-dataset"):
        PROTOCOLS["domain-shift"].tasks(None, dataset(), [target("farm", list("vwxyz"))], shots=1)


@pytest.mark.parametrize("key", ["cross-dataset", "domain-shift"])
def test_other_datasets_must_be_named(key):
    with pytest.raises(VlmlabError, match="name at least one target"):
        PROTOCOLS[key].tasks(None, dataset(), shots=1)


@pytest.mark.parametrize("key", ["test-time", "unsupervised", "transductive"])
def test_protocols_without_labels_draw_no_support(key):
    learned, _ = PROTOCOLS[key].tasks(None, dataset(), shots=4)
    assert len(learned.support) == 0


def test_impossible_pairs_are_refused_with_the_reason():
    reason = PROTOCOLS["test-time"].refusal(system("few-shot"))
    assert reason == "some is few-shot and needs labels, which the test-time protocol does not show"
    assert "unlabelled images" in PROTOCOLS["few-shot"].refusal(system("unsupervised"))
    assert PROTOCOLS["few-shot"].refusal(system("few-shot")) is None
    reason = PROTOCOLS["few-shot"].refusal(system("transductive"))
    assert reason == "some is transductive and needs all test images at once, which the few-shot protocol does not show"


def test_a_system_needs_ground_truth_of_its_task():
    reason = PROTOCOLS["few-shot"].refusal(system("training-free", ("segmentation",)), dataset())
    assert reason == "some does segmentation; zoo has ground truth for classification: choose tableau"


def test_zero_shot_has_a_place_everywhere_so_that_every_table_has_the_same_baseline():
    assert all(protocol.refusal(system("zero-shot"), dataset()) is None for protocol in PROTOCOLS.values())


def test_every_setup_says_what_it_needs():
    assert set(NEEDS) == set(SETUPS)
