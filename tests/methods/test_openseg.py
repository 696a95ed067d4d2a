"""OpenSeg: its equations on numbers that can be checked by hand, what its captions teach, and what they do not."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from vlmlab.learning.fit import fit
from vlmlab.methods.method import Batch
from vlmlab.methods.segmentation.openseg import OpenSeg, contrast, grounding
from vlmlab.testing import toys


def test_a_word_is_grounded_in_the_segments_that_are_like_it():
    z = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [0.6, 0.8]]])  # two images, two segments
    words, said = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    found = grounding(z, words, said, 0.5)
    share = math.exp(2) / (math.exp(2) + 1)  # of the segment with cosine 1 against that with cosine 0
    torch.testing.assert_close(found, torch.tensor([[share, share], [0.6, 0.7]]), rtol=1e-5, atol=1e-6)
    assert grounding(z, words, said, 1e-3)[0, 0] == pytest.approx(1)  # a hard choice at a low temperature
    assert grounding(z, words, said, 1e3)[0, 0] == pytest.approx(0.5, abs=1e-3)


def test_the_contrast_is_the_mean_of_both_directions():
    similarity = torch.tensor([[0.9, 0.1], [0.3, 0.2]])
    rows = [math.log(1 + math.exp((0.1 - 0.9) / 0.5)), math.log(1 + math.exp((0.3 - 0.2) / 0.5))]
    columns = [math.log(1 + math.exp((0.3 - 0.9) / 0.5)), math.log(1 + math.exp((0.1 - 0.2) / 0.5))]
    assert float(contrast(similarity, 0.5)) == pytest.approx((sum(rows) + sum(columns)) / 4, rel=1e-5)
    assert float(contrast(similarity[:1, :1], 0.5)) == 0 == float(contrast(similarity[:0, :0], 0.5))


def test_masks_learn_from_segments_without_labels():
    method, _ = run(epochs=1)
    masks = torch.full((2, 3, 4), -20.0)
    masks[0, 0, :2] = masks[0, 1, 2:] = 20.0
    counted = torch.tensor([True, True, True, False])
    truths = [
        (torch.zeros(2, dtype=torch.long), torch.tensor([[0.0, 0, 1, 0], [1, 1, 0, 0]]), counted),
        (torch.zeros(0, dtype=torch.long), torch.zeros(0, 4), torch.ones(4, dtype=torch.bool)),
    ]
    assert float(method.mask_loss(masks, truths)) == pytest.approx(0, abs=1e-4)  # the pixel that does not count is free
    soft = (masks * 0.01).requires_grad_()
    (gradient,) = torch.autograd.grad(method.mask_loss(soft, truths), soft)
    assert gradient[0, :2].any() and not gradient[0, 2].any() and not gradient[1].any()
    assert not gradient[0, :, 3].any()


def run(**settings):
    config = OpenSeg.configure(toys.backbone(), **({"epochs": 3, "warmup_epochs": 0, "batch_size": 4} | settings))
    method, task = OpenSeg(toys.backbone(), config), toys.task_for("openseg")
    return method, fit(method, task.seen_by("open-vocabulary"))


def test_it_begins_as_what_clip_sees_under_the_masks():
    method, _ = run(epochs=1, lr=0.0)
    images = method.framed([toys.dense_dataset().test.images(0)])[0]
    with torch.no_grad():
        masks, z = method.propose(images)
        local = F.normalize(method.backbone.image.local_features(images), dim=1)
        small = method.network(images, method.read(images)[:, : method.channels])[-1][0].sigmoid()
        features = F.interpolate(local, size=small.shape[-2:], mode="bilinear")
        pooled = torch.einsum("bnhw,behw->bne", small, features)
    torch.testing.assert_close(z, F.normalize(pooled, dim=-1), rtol=1e-4, atol=1e-5)
    assert masks.shape[-2:] == images.shape[-2:]


def test_captions_name_and_masks_do_not():
    with_captions, without = run()[0], run(ground_weight=0.0)[0]
    assert with_captions.align.weight.any() and not without.align.weight.any()
    batch = Batch(images=with_captions.framed([toys.dense_dataset().test.images(0)])[0])
    with torch.no_grad():
        assert not torch.allclose(with_captions.logits(batch), without.logits(batch), atol=1e-4)


def test_kept_tokens_are_those_that_would_be_computed(monkeypatch):
    method, record = run()
    assert len(method.frozen._kept) == 12
    monkeypatch.setattr("vlmlab.methods.dense.pixels.MOST_KEPT", 0)
    monkeypatch.setattr("vlmlab.learning.fit.MOST_TOLD", 0)  # nor does ground truth stay in memory
    assert run()[1].losses == pytest.approx(record.losses, rel=1e-4)


def test_the_names_of_masks_are_not_read(monkeypatch):
    _, record = run()
    segments = OpenSeg.true_segments

    def turned(self, truth):
        return segments(self, replace(truth, labels=truth.labels.flip(0)))

    monkeypatch.setattr(OpenSeg, "true_segments", turned)
    assert run()[1].losses == pytest.approx(record.losses, rel=1e-6)
