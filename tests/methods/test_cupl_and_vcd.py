import json
import types

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import same
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.other.cupl import CuPL
from vlmlab.methods.other.vcd import VCD, sentence


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


@pytest.fixture
def files(tmp_path):
    """The descriptions that the official implementations were given."""
    numbers = golden("cupl_vcd")
    for name, key in (("cupl", "cupl/prompts_json"), ("vcd", "vcd/descriptors_json")):
        (tmp_path / f"{name}.json").write_text(str(numbers[key]))
    return tmp_path


def prepared(system, backbone, path, **settings):
    method = system(backbone, system.configure(backbone, descriptions=str(path), **settings))
    given = task(CLASSES)
    given.dataset = types.SimpleNamespace(name="zoo", classes=CLASSES)
    method.prepare(given)
    return method


@pytest.mark.parametrize(("both", "weights", "logits"), [(False, "cupl", "cupl"), (True, "gpt_both", "both")])
def test_cupl_has_the_numbers_of_the_official_implementation(both, weights, logits, backbone, files):
    numbers = golden("cupl_vcd")
    method = prepared(CuPL, backbone, files / "cupl.json", both=both, templates="imagenet80")
    same(method.classifier.T, numbers[f"cupl/zeroshot_weights_{weights}"])
    found = method.logits(Batch(images=noise_images(32)))
    expected = torch.from_numpy(numbers[f"cupl/logits_{logits}"])
    same(found / found.abs().max(), expected / expected.abs().max())  # the release has another scale
    assert torch.equal(found.argmax(1), expected.argmax(1))


@pytest.mark.parametrize(
    ("variant", "where", "clause"), [("prepend_modified", "before", True), ("append_unmodified", "after", False)]
)
def test_vcd_has_the_numbers_of_the_official_implementation(variant, where, clause, backbone, files):
    numbers = golden("cupl_vcd")
    method = prepared(VCD, backbone, files / "vcd.json", name=where, clause=clause)
    assert method.texts == [
        s for group in json.loads(str(numbers[f"vcd/{variant}/descriptions_json"])).values() for s in group
    ]
    for c in range(5):
        same(method.features[method.owner == c], numbers[f"vcd/{variant}/description_encodings_{c}"])
    for how in ("mean", "max", "sum"):
        one = prepared(VCD, backbone, files / "vcd.json", name=where, clause=clause, aggregate=how)
        same(
            one.logits(Batch(images=noise_images(32))) / backbone.logit_scale,
            numbers[f"vcd/{variant}/description_scores_{how}"],
        )


def test_sentences_connect_as_the_release_does():
    assert sentence("oak tree", "green leaves") == "oak tree, which has green leaves"
    assert sentence("dog", "a large dog") == "dog, which is a large dog"
    assert sentence("car", "used for racing") == "car, which is used for racing"
    assert sentence("plane", "can fly") == "plane, which can fly"
    assert sentence("oak tree", "green leaves", "after") == "which has green leaves, oak tree"
    assert sentence("oak tree", "green leaves", "after", clause=False) == "green leaves, oak tree"
    assert sentence("oak tree", "green leaves", "before", clause=False) == "oak tree, green leaves"
    # Its test is of letters: published descriptors were scored with these sentences.
    assert sentence("dog", "canine teeth") == "dog, which canine teeth"
    assert sentence("moth", "antennae") == "moth, which is antennae"
    assert sentence("hat", "maybe a ribbon") == "hat, which maybe a ribbon"


def test_the_explanation_adds_up_to_the_score(backbone, files):
    method = prepared(VCD, backbone, files / "vcd.json")
    f = F.normalize(backbone.encode_image(noise_images(32)), dim=-1)
    explained = method.explain(f[0], 2)
    assert len(explained) == 4 and explained == sorted(explained, key=lambda pair: -pair[1])
    mean = sum(cosine for _, cosine in explained) / 4
    assert mean == pytest.approx(
        float(method.logits(Batch(images=noise_images(32)))[0, 2] / backbone.logit_scale), abs=1e-5
    )


def test_embedded_descriptions_cover_every_class_that_they_are_for(backbone):
    from vlmlab.datasets import load_dataset
    from vlmlab.datasets.catalog import DATASETS
    from vlmlab.datasets.descriptions import load_descriptions, of_classes

    embedded = [d.name for d in DATASETS if d.offline]
    assert {"tableau", "photographs", "objects-mosaic"} < set(embedded)
    for name in embedded:
        classes = load_dataset(name).classes
        for kind in ("sentences", "descriptors"):
            texts = of_classes(load_descriptions(name, kind), classes)
            assert min(map(len, texts)) >= 2, (name, kind)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "own.json is no JSON"),
        ("[1, 2]", "own.json holds a list"),
        ('{"cat": "striped"}', "'cat' must have a list of texts"),
        ('{"cat": [1]}', "'cat' must have a list of texts"),
        ('{"Tabby_Cat": ["striped"]}', r"lack 'golden retriever', 'sports car', 'oak tree' and 1 more of 5 classes"),
    ],
)
def test_a_file_of_another_form_is_told_in_one_line(content, said, tmp_path, backbone):
    (tmp_path / "own.json").write_text(content)
    for system in (CuPL, VCD):
        with pytest.raises(VlmlabError, match=said) as caught:
            prepared(system, backbone, tmp_path / "own.json")
        assert "\n" not in str(caught.value)


def test_a_class_without_texts_is_vcds_bare_name_and_cupls_error(tmp_path, backbone):
    (tmp_path / "own.json").write_text(json.dumps({name: [] for name in CLASSES}))
    assert prepared(VCD, backbone, tmp_path / "own.json").texts[0] == "golden retriever, which has "
    with pytest.raises(VlmlabError, match="no sentence for 'golden retriever'"):
        prepared(CuPL, backbone, tmp_path / "own.json")
    with pytest.raises(VlmlabError, match="there is no file"):
        prepared(CuPL, backbone, tmp_path / "absent.json")


def test_published_forms_load_by_name_whatever_the_spelling_and_order(tmp_path, backbone):
    table = {name.title().replace(" ", "_"): [f"a {name} in two words"] for name in reversed(CLASSES)}
    (tmp_path / "own.json").write_text(json.dumps(table))
    method = prepared(VCD, backbone, tmp_path / "own.json")
    assert [own[0] for own in method.own] == [f"a {name} in two words" for name in CLASSES]


def folder(name, classes):
    return types.SimpleNamespace(
        dataset=types.SimpleNamespace(name=name, classes=classes), classes=classes, templates=[]
    )


def test_a_folder_finds_the_descriptions_of_its_class_names(backbone):
    given = folder("my images", ["Motorbikes", "ceiling_fan", "platypus"])
    for system in (CuPL, VCD):
        method = system(backbone)
        method.prepare(given)
        own = system(backbone, system.configure(backbone, descriptions="caltech101"))
        own.prepare(folder("x", ["motorbike", "ceiling fan", "platypus"]))
        features = (method.classifier, own.classifier) if system is CuPL else (method.own, own.own)
        assert torch.equal(*features) if system is CuPL else features[0] == features[1]
        with pytest.raises(VlmlabError, match=r"no descriptions of x \(the nearest file of vlmlab lacks 'gnu' of 2"):
            system(backbone).prepare(folder("x", ["platypus", "gnu"]))
        with pytest.raises(VlmlabError, match="no descriptions of x; write"):
            system(backbone).prepare(folder("x", ["gnu", "aardvark"]))
        with pytest.raises(VlmlabError, match=r"no descriptions of mine\.txt; write"):  # no other file in its place
            system(backbone, system.configure(backbone, descriptions="mine.txt")).prepare(given)


def test_the_name_can_be_left_out_by_a_setting(backbone, files):
    method = prepared(VCD, backbone, files / "vcd.json", name="nowhere")
    assert method.texts == [text for own in method.own for text in own]


@pytest.mark.parametrize("system", [CuPL, VCD])
def test_names_that_are_refused_change_nothing(system, backbone, files):
    method, batch = prepared(system, backbone, files / f"{system.info.key}.json"), Batch(images=noise_images(32))
    before = method.logits(batch)
    with pytest.raises(VlmlabError, match="lack 'gnu' of 2 classes"):
        method.set_classes([CLASSES[0], "gnu"], ["a {}."])
    assert method.classes == CLASSES and torch.equal(method.logits(batch), before)
