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
    method.prepare(task(CLASSES))
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


@pytest.mark.parametrize(("variant", "where"), [("prepend_modified", "before"), ("append_unmodified", "after")])
def test_vcd_has_the_numbers_of_the_official_implementation(variant, where, backbone, files):
    numbers = golden("cupl_vcd")
    method = prepared(VCD, backbone, files / "vcd.json", name=where)
    assert method.texts == [
        s for group in json.loads(str(numbers[f"vcd/{variant}/descriptions_json"])).values() for s in group
    ]
    for c in range(5):
        same(method.features[method.owner == c], numbers[f"vcd/{variant}/description_encodings_{c}"])
    for how in ("mean", "max", "sum"):
        one = prepared(VCD, backbone, files / "vcd.json", name=where, aggregate=how)
        same(
            one.logits(Batch(images=noise_images(32))) / backbone.logit_scale,
            numbers[f"vcd/{variant}/description_scores_{how}"],
        )


def test_sentences_connect_as_the_release_does():
    assert sentence("oak tree", "green leaves") == "oak tree, which has green leaves"
    assert sentence("dog", "a large dog") == "dog, which is a large dog"
    assert sentence("car", "used for racing") == "car, which is used for racing"
    assert sentence("plane", "can fly") == "plane, which can fly"


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

    drawn = [d.name for d in DATASETS if d.offline and d.tasks == ("classification",) and d.splits["train"]]
    for name in drawn:
        classes = load_dataset(name).classes
        for kind in ("sentences", "descriptors"):
            texts = of_classes(load_descriptions(name, kind), classes)
            assert min(map(len, texts)) >= 2, (name, kind)


def test_descriptions_that_lack_something_are_told(tmp_path, backbone):
    for content, said in (
        ("[1, 2]", "no JSON of the form"),
        ('{"cat": []}', "no descriptors for 'cat'"),
        ("{", "no JSON"),
    ):
        (tmp_path / "own.json").write_text(content)
        with pytest.raises(VlmlabError, match=said):
            prepared(VCD, backbone, tmp_path / "own.json")
    (tmp_path / "own.json").write_text('{"Tabby_Cat": ["striped"]}')
    with pytest.raises(VlmlabError, match="lack 'golden retriever'"):
        prepared(CuPL, backbone, tmp_path / "own.json")
    method = CuPL(backbone)
    with pytest.raises(VlmlabError, match="no descriptions of photographs"):
        method.prepare(
            types.SimpleNamespace(dataset=types.SimpleNamespace(name="photographs"), classes=[], templates=[])
        )
