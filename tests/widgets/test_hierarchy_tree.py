"""The hierarchy tree without a browser: its state agrees with what the system answers."""

import pytest
import torch
from matplotlib.figure import Figure

from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.widgets import HierarchyTree


@pytest.fixture
def panel(monkeypatch):
    monkeypatch.setenv("VLMLAB_STRICT", "1")
    made = HierarchyTree("vehicles", system="zero_shot", shots=1)
    yield made
    made.close()
    assert made.box.comm is None


def test_every_node_says_what_the_system_says_among_its_children(panel):
    answer, tree, method = panel.answer, panel.tree, panel._fitted["zero_shot"]
    f = method.backbone.encode_image(method.backbone.preprocess(answer["pixels"]))
    for node in tree.inner:
        names = tree.children[node]
        method.set_classes(names, method.templates)
        with torch.no_grad():
            assert answer["nodes"][node] == names[int(method.logits(Batch(features=f)).argmax())]
        assert sum(answer["share"][name] for name in names) == pytest.approx(1, abs=1e-4)
    assert answer["true"] in tree.classes and set(answer["right"]) == set(tree.path(answer["true"]))


def test_contradictions_are_nodes_above_the_named_leaf_that_say_otherwise(panel):
    seen = set()
    for number in range(0, 24, 2):
        panel.chooser.number.value = number
        answer, tree = panel.answer, panel.tree
        above = tree.path(answer["leaf"])
        for node in above:
            on_path = answer["nodes"][node] in (answer["leaf"], *above)
            assert on_path != (node in answer["torn"])
        all_right = answer["leaf"] == answer["true"] and all(answer["right"].values())
        assert answer["consistent"] == all_right and not (answer["consistent"] and answer["torn"])
        seen.add(bool(answer["torn"]))
    assert True in seen  # zero-shot prediction contradicts itself somewhere


def test_three_lives(panel):
    still = panel.static()
    assert isinstance(still, Figure) and panel.answer["leaf"] in still.alt
    assert panel.facts()["nodes"] == len(panel.tree.inner) and panel.error == ""
    assert panel.drawn.value.count("<li>") == len(panel.tree.parent)


def test_a_system_that_learns_is_fitted_when_it_is_chosen(panel):
    panel.system.value = "coop"
    assert panel.error == "" and panel.answer["system"] == "coop"
    assert panel._fitted["coop"].trainable_parameters and panel.answer["leaf"] in panel.tree.classes


def test_a_dataset_without_a_tree_is_refused(monkeypatch):
    monkeypatch.setenv("VLMLAB_STRICT", "1")
    with pytest.raises(VlmlabError, match="comes without a class hierarchy"):
        HierarchyTree("digits", system="zero_shot", shots=1)
