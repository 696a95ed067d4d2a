"""SCLIP and NACLIP: the official features of places, and what their attention looks at."""

import numpy as np
import pytest
import torch

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.other.sclip import SCLIP, nearness


def built(name: str = "asym", **settings) -> SCLIP:
    backbone = tiny_backbone(name)
    method = SCLIP(backbone, SCLIP.configure(backbone, templates="photo", **settings))
    method.prepare(task(CLASSES))
    return method


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sclip", {}),
        ("csa", {}),
        ("naclip", {"attention": "neighbours"}),
        ("naclip_whole", {"attention": "neighbours", "reduced": False}),
        ("naclip_2", {"attention": "neighbours", "deviation": 2.0}),
    ],
)
def test_features_of_places_are_those_of_the_official_implementations(name, settings):
    found = built(**settings).places(noise_images(32)[:3]).flatten(2).transpose(1, 2)
    np.testing.assert_allclose(found.numpy(), golden("sclip")[name], rtol=1e-4, atol=5e-5)


def test_plain_attention_is_the_ordinary_last_layer():
    method = built(attention="plain")
    images = noise_images(32)[:2]
    plain = method.backbone.image.local_features(images, kind="plain")
    torch.testing.assert_close(method.places(images), plain, rtol=1e-4, atol=1e-5)


def test_near_places_get_more_and_the_class_token_nothing():
    w = nearness((3, 4), 1.0)
    assert w.shape == (13, 13) and (w[0] == 0).all() and (w[:, 0] == 0).all()
    assert w[1, 1] == 1 and w[1, 2] == pytest.approx(np.exp(-0.5)) and w[1, 2] > w[1, 3] > w[1, 12]
    assert torch.equal(w, w.T)


def test_images_of_any_size_get_a_word_for_every_pixel():
    found = built().predict([np.zeros((20, 50, 3), np.uint8)], ["cat", "dog"])
    assert found[0].shape == (20, 50) and set(found[0].unique().tolist()) <= {0, 1}
    assert built().logits(Batch(images=noise_images(32)[:2])).shape == (2, len(CLASSES), 32, 32)


def test_a_resnet_is_refused_in_a_line():
    with pytest.raises(VlmlabError, match="needs a ViT"):
        built("rn")
