import types

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import Pictures, task
from vlmlab.errors import VlmlabError
from vlmlab.learning.evaluate import predict
from vlmlab.methods.method import Batch
from vlmlab.methods.other.transclip import (
    TransCLIP,
    affinity,
    beginning,
    gaussians,
    log_gaussian,
    swept,
)


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


@pytest.fixture(scope="module")
def numbers():
    return {key.removeprefix("transclip/"): torch.from_numpy(value) for key, value in golden("transclip").items()}


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def built(backbone, **settings):
    method = TransCLIP(backbone, TransCLIP.configure(backbone, **settings))
    method.prepare(task(CLASSES, support=Pictures([0, 1, 2, 3, 4] * 2), val=Pictures([0, 1, 2, 3, 4], seed=1)))
    return method


def test_every_step_has_the_numbers_of_the_official_implementation(numbers):
    f, y = numbers["f"], numbers["y"]
    near = affinity(f, f, 3)
    same(near.to_dense(), numbers["affinity"])
    mu = beginning(f, y, 8)
    same(mu, numbers["mu_init"])
    g = log_gaussian(f, mu, torch.full((16,), 1 / 16))
    same(g, numbers["log_gaussian"])
    z = y
    for _ in range(5):
        z = swept(z, y[:0], y, g, near, 1.0, 3)
    same(z, numbers["z_after_sweeps"])
    mean, variance = gaussians(f, z / len(f))
    same(mean, numbers["mu_after"])
    same(variance, numbers["variance_after"])


def test_shots_weigh_in_the_gaussians_as_in_the_official_implementation(numbers):
    f, z, s = numbers["f"], numbers["z_after_sweeps"], numbers["support"]
    labels = F.one_hot(torch.arange(10) % 5, 5).float()
    weighted = torch.cat([z / len(f), 50 * 0.02 / 10 * labels])
    mean, variance = gaussians(torch.cat([f, s]), weighted)
    same(mean, numbers["mu_with_shots"])
    same(variance, numbers["variance_with_shots"])
    same(F.normalize(labels.T @ s, dim=-1), numbers["mu_init_shots"])


def test_the_whole_prediction_is_that_of_the_official_implementation(numbers, backbone):
    method = built(backbone)
    z = method.assigned(numbers["f"], numbers["y"])
    same(z, numbers["z"])
    right = torch.arange(120) % 5
    assert (z.argmax(1) == right).sum() > (numbers["y"].argmax(1) == right).sum()  # the numbers are worth comparing


def test_logits_are_the_logarithm_of_the_assignments_of_the_batch_together(backbone):
    method = built(backbone)
    batch = Batch(features=backbone.encode_image(noise_images(32)))
    f = F.normalize(batch.features, dim=-1)
    z = method.assigned(f, (backbone.logit_scale * f @ method.classifier.T).softmax(-1))
    same(method.logits(batch).exp(), z)
    alone = torch.cat([method.logits(Batch(features=one[None])) for one in batch.features])
    assert not torch.allclose(alone, method.logits(batch), atol=1e-3)
    order = torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
    same(method.logits(Batch(features=batch.features[order])), method.logits(batch)[order])


def test_evaluation_shows_it_all_pictures_at_once(backbone):
    method, seen = built(backbone), []
    own = method.logits
    method.logits = lambda batch: (seen.append(len(batch.features)), own(batch))[1]
    features = torch.randn(1500, 64, generator=torch.Generator().manual_seed(0))
    bank = types.SimpleNamespace(features=lambda pictures: features)
    assert predict(method, Pictures([0] * 1500, side=1), bank).shape == (1500, 5)
    assert seen == [1500]


def test_a_picture_is_not_its_own_neighbour(numbers, monkeypatch):
    f = numbers["f"]
    near = affinity(torch.cat([f, f[:2]]), f, 3).to_dense()
    assert (near[:120].diagonal() == 0).all() and ((near > 0).sum(1) <= 3).all()
    assert near[120, 0] == pytest.approx(1.0, abs=1e-5)  # a support image keeps its nearest test image
    monkeypatch.setattr("vlmlab.methods.other.transclip.ROWS_AT_ONCE", 50)
    same(affinity(torch.cat([f, f[:2]]), f, 3).to_dense(), near)


def test_labelled_pictures_join_with_their_labels(backbone):
    method = built(backbone, labelled=True)
    batch = Batch(features=backbone.encode_image(noise_images(32)))
    assert method.given.sum() == 10 and torch.equal(method.given.argmax(1), torch.tensor([0, 1, 2, 3, 4] * 2))
    with_labels = method.logits(batch).exp()
    same(with_labels.sum(1), torch.ones(8))
    assert not torch.allclose(with_labels, built(backbone).logits(batch).exp(), atol=1e-3)
    # A test image that lies on a support image is drawn to its class.
    method.support = F.normalize(batch.features[:5], dim=-1)
    drawn = []
    for label in (2, 3):
        method.given = torch.eye(5)[[label, *(c for c in range(5) if c != label)]]
        drawn.append(method.logits(batch)[0].exp())
    assert drawn[0][2] > drawn[1][2] and drawn[1][3] > drawn[0][3]
    with pytest.raises(VlmlabError, match="use TransCLIP with labelled=false"):
        method.set_classes(CLASSES[:3], ["a photo of a {}."])


def test_one_picture_and_no_picture_are_no_error(backbone):
    method = built(backbone)
    one = method.logits(Batch(features=backbone.encode_image(noise_images(32))[:1]))
    assert one.shape == (1, 5) and one.isfinite().all()
    assert list(method.parameters()) == []
    method.set_classes(CLASSES[:3], ["a photo of a {}."])
    assert method.logits(Batch(features=backbone.encode_image(noise_images(32)))).shape == (8, 3)


def test_labels_must_be_there_to_join(backbone):
    method = TransCLIP(backbone, TransCLIP.configure(backbone, labelled=True))
    with pytest.raises(VlmlabError, match="ask for a shot"):
        method.prepare(task(CLASSES))


def test_labelled_pictures_of_an_earlier_task_are_forgotten(backbone):
    method, fresh = built(backbone, labelled=True), TransCLIP(backbone, TransCLIP.configure(backbone, labelled=True))
    for one in (method, fresh):
        one.prepare(task(CLASSES[:3], support=Pictures([0, 1, 2]), val=Pictures([0, 1, 2], seed=1)))
    batch = Batch(features=backbone.encode_image(noise_images(32)))
    assert torch.equal(method.logits(batch), fresh.logits(batch))


@pytest.mark.parametrize("copies", [1, 2, 7])
def test_pictures_without_variance_are_left_to_the_texts(copies, backbone):
    method = built(backbone)
    for feature in backbone.encode_image(noise_images(32)):
        features = feature.expand(copies, -1)
        y = (backbone.logit_scale * F.normalize(features, dim=-1) @ method.classifier.T).softmax(-1)
        z = method.logits(Batch(features=features)).exp()
        assert torch.equal(z.argmax(1), y.argmax(1))
        if copies == 1:
            torch.testing.assert_close(z, y, rtol=0, atol=1e-3)
