import pytest
import torch
from torch.nn import functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import same
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.other.zero_shot import ZeroShot
from vlmlab.methods.templates import SETS, choose


def prepared(backbone, own=("a photo of a {}.",), **settings):
    method = ZeroShot(backbone, ZeroShot.configure(backbone, **settings))
    method.prepare(task(CLASSES, own))
    return method


@pytest.mark.parametrize(("name", "side"), [("vit", 32), ("rn", 64), ("asym", 32)])
def test_logits_of_clip_itself(name, side):
    method = prepared(tiny_backbone(name))
    same(method.logits(Batch(images=noise_images(side))), golden("base")[f"{name}/logits_per_image"])


def test_templates_are_averaged_as_unit_features():
    backbone = tiny_backbone("vit")
    templates = ["a photo of a {}.", "itap of a {}."]
    parts = [F.normalize(backbone.encode_text([t.format(c) for c in CLASSES]), dim=-1) for t in templates]
    torch.testing.assert_close(prepared(backbone, templates).classifier, F.normalize(sum(parts) / 2, dim=-1))
    same(prepared(backbone, templates).classifier.norm(dim=-1), torch.ones(5))


def test_a_set_or_a_sentence_in_place_of_the_datasets_templates():
    backbone = tiny_backbone("vit")
    photo = prepared(backbone, ["itap of a {}."], templates="photo")
    sentence = prepared(backbone, ["itap of a {}."], templates="a photo of a {}.")
    torch.testing.assert_close(photo.classifier, sentence.classifier)
    assert not torch.allclose(photo.classifier, prepared(backbone, ["itap of a {}."]).classifier)
    assert {name: len(sentences) for name, sentences in SETS.items()} == {
        "photo": 1, "name": 1, "imagenet7": 7, "imagenet80": 80, "imagenet60": 60, "scene85": 85, "lasp35": 35,
        "imagenet7scene": 8, "masked32": 32, "vild14": 14, "clipseg9": 9,
    }  # fmt: skip
    assert all(sentence.count("{}") == 1 for sentences in SETS.values() for sentence in sentences)
    assert choose("imagenet7+dataset", ["itap of a {}."]) == [*SETS["imagenet7"], "itap of a {}."]
    assert choose("a {} + its shadow", []) == ["a {} + its shadow"]
    for wrong in ("imagenet", "photo+imagenet"):
        with pytest.raises(VlmlabError, match="'imagenet' is no set; give dataset, photo"):
            choose(wrong, [])


def test_features_in_a_batch_are_used_as_they_are():
    backbone = tiny_backbone("vit")
    method = prepared(backbone)
    features = backbone.encode_image(noise_images(32))
    from_images = method.logits(Batch(images=noise_images(32)))
    torch.testing.assert_close(method.logits(Batch(features=7 * features)), from_images)


def test_classes_are_switched():
    method = prepared(tiny_backbone("vit"))
    full = method.logits(Batch(images=noise_images(32)))
    method.set_classes(CLASSES[3:], ["a photo of a {}."])
    torch.testing.assert_close(method.logits(Batch(images=noise_images(32))), full[:, 3:])
    assert method.classes == CLASSES[3:] and list(method.parameters()) == []
