import types

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from vlmlab.datasets.drawn import draw_named
from vlmlab.datasets.image_set import ArrayPictures, ImageSet
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.other.sus_x import SuSX, divergence, rescaled
from vlmlab.methods.other.zero_shot import ZeroShot

TEMPLATES = ["a photo of a {}."]


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


@pytest.fixture(scope="module")
def numbers():
    return {key: torch.from_numpy(value) for key, value in golden("sus_x").items()}


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def heap(count=20):
    pixels = torch.randint(0, 256, (count, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pictures = ArrayPictures(lambda: pixels.numpy(), "noise")
    return ImageSet(pictures, [0] * count, [str(i) for i in range(count)]).unlabelled()


def asked(classes=CLASSES, **given):
    dataset = types.SimpleNamespace(name="zoo", classes=list(classes))
    return types.SimpleNamespace(classes=list(classes), templates=TEMPLATES, seed=0, dataset=dataset, **given)


def built(backbone, task=None, **settings):
    method = SuSX(backbone, SuSX.configure(backbone, **({"count": 3} | settings)))
    method.prepare(asked(unlabelled=heap()) if task is None else task)
    return method


def test_the_numbers_of_the_official_implementation(numbers, backbone):
    method = built(backbone, alpha=1.7, beta=5.5, gamma=0.9, temperature=0.5)
    method.classifier, method.keys = numbers["classifier"], numbers["support"]
    method.values = F.one_hot(torch.arange(20) % 5, 5).float()
    method.say = method.opinion(method.keys)
    f = numbers["f"]
    kl = divergence(method.opinion(f), method.say)
    same(kl, numbers["kl"])
    # The release rescales by the test images themselves.
    affinity = f @ method.keys.T
    method.divergences = torch.stack([kl.min(), kl.max()])
    method.cosines = torch.stack([affinity.min(), affinity.max()])
    same(rescaled(kl, method.divergences, method.cosines), numbers["rescaled"])
    assert backbone.logit_scale != 100
    expected = numbers["logits"] + (backbone.logit_scale - 100) * f @ numbers["classifier"].T
    same(method.logits(Batch(features=f)), expected)


def test_divergence_is_that_of_pytorch():
    noise = torch.Generator().manual_seed(0)
    p, q = (torch.randn(n, 5, generator=noise).log_softmax(-1) for n in (3, 4))
    expected = torch.stack([F.kl_div(q, one.expand_as(q), log_target=True, reduction="none").sum(-1) for one in p])
    same(divergence(p, q), expected)
    assert divergence(p, p).diagonal().abs().max() < 1e-6


def test_phi_takes_the_range_of_divergences_to_that_of_cosines():
    span, target = torch.tensor([1.0, 3.0]), torch.tensor([0.2, 0.8])
    same(rescaled(torch.tensor([1.0, 2.0, 3.0]), span, target), torch.tensor([0.2, 0.5, 0.8]))


def test_the_nearest_pictures_of_the_heap_are_retrieved_for_every_name(backbone):
    method, pictures = built(backbone), heap()
    features = F.normalize(backbone.encode_image(backbone.preprocess(pictures.images(slice(None)))), dim=-1)
    for c in range(len(CLASSES)):
        order = (features @ method.classifier[c]).argsort(descending=True)[:3]
        found = method.keys[method.values.argmax(1) == c]
        torch.testing.assert_close(found, features[order])
    assert method.keys.shape[0] == 15 and (method.values.sum(0) == 3).all()


def test_phi_s_ranges_are_those_of_the_support_set_whatever_the_block(backbone, monkeypatch):
    method = built(backbone)
    assert method.divergences[0].abs() < 1e-5 and method.cosines[1] == pytest.approx(1, abs=1e-5)
    apart = divergence(method.say, method.say)
    torch.testing.assert_close(method.divergences[1], apart.max())
    torch.testing.assert_close(method.cosines[0], (method.keys @ method.keys.T).min())
    monkeypatch.setattr("vlmlab.methods.other.sus_x.ROWS_AT_ONCE", 4)
    torch.testing.assert_close(built(backbone).divergences, method.divergences, rtol=1e-4, atol=1e-6)


def test_without_support_it_is_zero_shot(backbone):
    zero_shot = ZeroShot(backbone)
    zero_shot.prepare(asked())
    batch = Batch(features=backbone.encode_image(noise_images(32)))
    method = built(backbone, alpha=0.0, gamma=0.0)
    torch.testing.assert_close(method.logits(batch), zero_shot.logits(batch))
    assert list(method.parameters()) == []
    assert not torch.allclose(built(backbone).logits(batch), zero_shot.logits(batch), atol=1e-3)


def test_other_names_get_their_own_support(backbone):
    method = built(backbone)
    method.set_classes(CLASSES[2:4], TEMPLATES)
    batch = Batch(features=backbone.encode_image(noise_images(32)))
    fresh = built(backbone, asked(CLASSES[2:4], unlabelled=heap()))
    torch.testing.assert_close(method.logits(batch), fresh.logits(batch))


def test_pictures_are_drawn_by_name(backbone):
    method = built(backbone, asked(["fish", "heron"]), source="drawn")
    assert method.keys.shape == (6, 64) and method.values.argmax(1).tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(VlmlabError, match=r"cannot draw 'tabby cat' .*source=retrieved"):
        built(backbone, asked(["fish", "tabby cat"]), source="drawn")


def test_what_is_drawn_is_no_picture_of_the_suite():
    from vlmlab.datasets import load_dataset

    drawn = draw_named(["apple", "heron"], 2, size=32)
    assert draw_named(["apple"], 1, size=32).images([0])[0].tolist() == drawn.images([0])[0].tolist()
    assert not (drawn.images([0])[0] == drawn.images([1])[0]).all()
    data = load_dataset("objects", size=32)
    ids = {*data.train.ids, *data.val.ids, *data.test.ids}
    assert not ids & set(drawn.ids)


def test_a_heap_must_be_there(backbone):
    with pytest.raises(VlmlabError, match="no unlabelled training images"):
        built(backbone, asked(unlabelled=heap(0)))


def test_sentences_join_the_templates(backbone):
    task = asked(["robin", "heron"])
    task.dataset.name = "creatures"
    plain, joined = (built(backbone, task, source="drawn", sentences=s) for s in (False, True))
    assert not torch.allclose(plain.classifier, joined.classifier, atol=1e-3)


def test_names_that_are_refused_change_nothing(backbone):
    method = built(backbone, asked(["fish", "heron", "apple"]), source="drawn")
    batch = Batch(features=backbone.encode_image(noise_images(32)))
    before = method.logits(batch)
    with pytest.raises(VlmlabError, match="cannot draw 'tabby cat'"):
        method.set_classes(["fish", "tabby cat"], TEMPLATES)
    assert method.classes == ["fish", "heron", "apple"] and torch.equal(method.logits(batch), before)
