"""Hierarchical consistency and treecut accuracy on scores that are known."""

import types

import pytest
import torch

from vlmlab.datasets.hierarchy import Hierarchy
from vlmlab.errors import VlmlabError
from vlmlab.learning import evaluate as module
from vlmlab.learning.evaluate import evaluate_hierarchy

CLASSES = ["cat", "dog", "car", "bus"]
TREE = Hierarchy({"all": ["animal", "vehicle"], "animal": ["cat", "dog"], "vehicle": ["car", "bus"]}, CLASSES)


class Scored:
    """A method whose score of a name for image i is a table's entry."""

    def __init__(self, table):
        self.table, self.classes, self.templates = table, list(CLASSES), ["{}"]
        self.info = types.SimpleNamespace(key="scored", tasks=("classification",))
        self.backbone = None

    def set_classes(self, classes, templates):
        self.classes = list(classes)


@pytest.fixture(autouse=True)
def known_scores(monkeypatch):
    def predict(method, pictures, bank, seed):
        return torch.tensor([[row[name] for name in method.classes] for row in method.table])

    monkeypatch.setattr(module, "predict", predict)
    monkeypatch.setattr(module, "FeatureBank", lambda *a, **k: None)


class Labels:
    def __init__(self, labels):
        self.labels = torch.tensor(labels)

    def __len__(self):
        return len(self.labels)


def scores(leaf, top):
    return {name: float(name == leaf) for name in CLASSES} | {n: float(n == top) for n in ("animal", "vehicle")}


def test_consistency_needs_the_leaf_and_every_node_above():
    table = [
        scores("cat", "animal"),  # right everywhere
        scores("dog", "vehicle"),  # right leaf, wrong above
        scores("bus", "vehicle"),  # a car: wrong leaf, right above
        scores("cat", "animal"),  # a bus: wrong twice
    ]
    method = Scored(table)
    found = evaluate_hierarchy(method, Labels([0, 1, 2, 3]), TREE)
    assert found["accuracy"] == 50 and found["hca"] == 25
    # At the root images 1 and 3 are right; the fourth falls to 'car' (a tie goes to the first) among the vehicles.
    assert found["per_node"] == {"all": 50, "animal": 100, "vehicle": 0}
    assert method.classes == CLASSES


def test_treecut_accuracy_is_the_mean_over_cuts():
    method = Scored([scores("cat", "animal"), scores("dog", "vehicle")])
    found = evaluate_hierarchy(method, Labels([0, 1]), TREE)
    cuts = TREE.cuts()
    rates = []
    for cut in cuts:
        right = 0
        for row, label in zip(method.table, (0, 1), strict=True):
            values = [row[name] for name in cut.names]
            right += values.index(max(values)) == int(cut.of_class[label])
        rates.append(right / 2)
    assert found["mta"] == pytest.approx(100 * sum(rates) / len(cuts)) and 50 <= found["mta"] <= 100


def test_a_method_that_is_right_is_consistent():
    table = [scores(c, "animal" if c in ("cat", "dog") else "vehicle") for c in CLASSES]
    # The node above must win over its leaves' rivals in mixed cuts, too.
    found = evaluate_hierarchy(Scored(table), Labels([0, 1, 2, 3]), TREE)
    assert found["accuracy"] == found["hca"] == found["mta"] == 100


def test_pictures_with_several_labels_have_no_path():
    with pytest.raises(VlmlabError, match="one label each"):
        evaluate_hierarchy(Scored([]), Labels([[1, 0, 0, 1]]), TREE)
    with pytest.raises(VlmlabError, match="no image"):
        evaluate_hierarchy(Scored([]), Labels([]), TREE)


def test_a_method_of_fixed_classes_is_refused_and_left_as_it_was():
    class Fixed(Scored):
        def set_classes(self, classes, templates):
            if list(classes) != CLASSES:
                raise VlmlabError("this head belongs to its classes")

    with pytest.raises(VlmlabError, match="belongs to its classes"):
        evaluate_hierarchy(Fixed([scores("cat", "animal")]), Labels([0]), TREE)
