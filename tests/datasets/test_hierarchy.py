import json

import pytest
import torch

from vlmlab.datasets import load_dataset
from vlmlab.datasets.catalog import DATASETS
from vlmlab.datasets.hierarchy import Hierarchy, hierarchy_of, read_hierarchy
from vlmlab.errors import VlmlabError
from vlmlab.files import data_path

CLASSES = ["cat", "dog", "robin", "car", "bus"]
TREE = {"all": ["animal", "vehicle"], "animal": ["pet", "robin"], "pet": ["dog", "cat"], "vehicle": ["car", "bus"]}


def tree():
    return Hierarchy(TREE, CLASSES)


def test_every_class_has_a_path_from_the_root():
    one = tree()
    assert one.root == "all" and one.inner == ("all", "animal", "pet", "vehicle")
    assert one.path("cat") == ["all", "animal", "pet"] and one.path("bus") == ["all", "vehicle"]
    assert one.path("pet") == ["all", "animal"] and one.path("all") == []


def test_the_children_of_a_node_are_a_label_set_of_the_classes_below_it():
    animals = tree().below("animal")
    assert animals.names == ("pet", "robin") and animals.of_class.tolist() == [0, 0, 1, -1, -1]
    assert tree().below("all").of_class.tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("drop", [0.0, 0.3, 0.7, 1.0])
def test_a_cut_covers_every_class_once(drop):
    one, generator = tree(), torch.Generator().manual_seed(0)
    for _ in range(20):
        cut = one.cut(drop, generator)
        assert len(set(cut.names)) == len(cut.names) and cut.of_class.min() >= 0
        for name, place in zip(CLASSES, cut.of_class.tolist(), strict=True):
            assert cut.names[place] in [name, *one.path(name)[1:]]  # the root answers for nothing
        assert set(cut.of_class.tolist()) == set(range(len(cut.names)))


def test_the_ends_of_the_drop_rate_are_the_leaves_and_the_root_s_children():
    assert set(tree().cut(0.0).names) == set(CLASSES)
    assert tree().cut(1.0).names == ("animal", "vehicle")


def test_below_a_closed_node_nothing_is_open():
    generator, seen = torch.Generator().manual_seed(1), set()
    for _ in range(200):
        names = set(tree().cut(0.5, generator).names)
        assert not ("animal" in names and names & {"pet", "cat", "dog", "robin"})
        seen.add(frozenset(names))
    # animal closed; animal open and pet closed; both open; each with vehicle open or closed.
    assert len(seen) == 6


def test_stored_cuts_are_five_per_rate_all_different_and_the_same_for_a_seed():
    groups = [[f"{a}{b}" for b in range(3)] for a in "abcdefgh"]
    classes = [name for group in groups for name in group]
    wide = Hierarchy({"all": list("abcdefgh")} | {g[0][0]: g for g in groups}, classes)  # 2^8 cuts
    first, again, other = wide.cuts(0), wide.cuts(0), wide.cuts(1)
    assert len(first) == len({c.names for c in first}) == 25 and [c.names for c in first] == [c.names for c in again]
    assert [c.names for c in first] != [c.names for c in other]
    sizes = [sum(len(c.names) for c in first[i : i + 5]) for i in range(0, 25, 5)]
    assert sizes == sorted(sizes)  # the fewer nodes are closed, the more names


def test_a_small_tree_gives_each_of_its_cuts_once():
    assert len({c.names for c in tree().cuts()}) == len(tree().cuts()) == 6


def test_a_part_of_the_tree_has_no_node_without_a_choice():
    part = tree().of(["cat", "robin", "bus"])
    assert part.children == {"all": ("animal", "bus"), "animal": ("cat", "robin")}
    assert part.classes == ["cat", "robin", "bus"]
    assert tree().of(["dog", "cat"]).children == {"pet": ("dog", "cat")}  # not even the root
    assert tree().of(["dog"]).children == {"all": ("dog",)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vehicle": ["car", "bus", "cat"]}, "'cat' stands below 'pet' and 'vehicle'"),
        ({"pet": ["dog", "cat", "animal"], "all": ["vehicle"]}, "stands above itself"),
        ({"vehicle": ["car", "bus", "boat"]}, "'boat' is a leaf of the hierarchy and no class"),
        ({"vehicle": ["car"]}, "class 'bus' is missing"),
        ({"all": ["animal"]}, "nothing stands above"),
        ({"car": ["bus"], "vehicle": ["car"]}, "'car' is a class and has others below it"),
        ({"vehicle": []}, "'vehicle'|class 'car'"),
    ],
)
def test_what_is_no_tree_over_the_classes_is_refused_in_one_line(change, words):
    with pytest.raises(VlmlabError, match=words) as caught:
        Hierarchy(TREE | change, CLASSES)
    assert "\n" not in str(caught.value)


def test_a_tree_of_one_s_own_is_read_from_a_file(tmp_path):
    file = tmp_path / "tree.json"
    file.write_text(json.dumps(TREE))
    assert read_hierarchy(file, CLASSES).inner == tree().inner
    file.write_text(json.dumps({"provenance": "me", "children": TREE}))
    assert read_hierarchy(file, CLASSES).inner == tree().inner


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON of the form"),
        ("[]", "no JSON of the form"),
        ("{}", "no JSON of the form"),
        ('{"all": "cat"}', "no JSON of the form"),
        ('{"all": ["cat"], "all": ["dog"]}', "lists the children of 'all' twice"),
        (json.dumps(TREE | {"vehicle": ["car"]}), "class 'bus' is missing in tree.json"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, words):
    file = tmp_path / "tree.json"
    file.write_text(text)
    with pytest.raises(VlmlabError, match=words):
        read_hierarchy(file, CLASSES)
    with pytest.raises(VlmlabError, match="there is no hierarchy"):
        read_hierarchy(tmp_path / "none.json", CLASSES)


@pytest.mark.parametrize("name", ["objects", "tableau", "objects-sketch", "vehicles", "food", "scenes", "aerial"])
def test_embedded_trees_fit_their_datasets(name):
    dataset = load_dataset(name)
    one = hierarchy_of(dataset)
    assert one.classes == dataset.classes and len(one.inner) > 3
    assert all(len(below) > 1 for below in one.children.values())


def test_trees_of_the_standard_sets_have_as_many_leaves_as_these_have_classes():
    counts = {d.name: d.classes for d in DATASETS}
    for file in data_path("hierarchies").glob("*.json"):
        children = json.loads(file.read_text())["children"]
        leaves = [n for below in children.values() for n in below if n not in children]
        assert len(leaves) == len(set(leaves)) == counts[file.stem]


def test_a_dataset_without_a_tree_says_how_to_give_one():
    with pytest.raises(VlmlabError, match="digits comes without a class hierarchy"):
        hierarchy_of(load_dataset("digits"))
