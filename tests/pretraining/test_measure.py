"""The card's figures: what they are measured on, and that they tell a trained backbone from chance."""

import numpy as np
import pytest

from vlmlab.backbones.loading import load_backbone
from vlmlab.pretraining import measure
from vlmlab.world.captions import caption
from vlmlab.world.domains import DOMAINS
from vlmlab.world.mixture import SHOWN, STYLES
from vlmlab.world.scene import sample_scene


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("micro-vit", device="cpu")


def test_no_caption_uses_a_synonym():
    rng = np.random.default_rng(0)
    said = " ".join(caption(sample_scene(rng, pool=SHOWN, styles=STYLES), rng) for _ in range(1000)).split()
    for domain in DOMAINS.values():
        said += " ".join(domain.caption(k, rng) or "" for k in range(len(domain.classes)) for _ in range(20)).split()
    assert "cat" in said
    assert not set(measure.SYNONYMS.values()) & set(said)


def test_the_backbone_names_what_it_was_taught(backbone):
    known = ("apple", "star", "tree", "pizza")
    pictures = [p.pixels for p in measure.singles(known, 5, "photo", 1, 64)]
    scores = measure.image_features(backbone, pictures) @ measure.word_features(backbone, measure.named(known)).T
    right = (scores.argmax(1).numpy() == np.repeat(np.arange(4), 5)).mean()
    assert right > 0.6


def test_local_features_find_the_object(backbone):
    assert measure.dense(backbone, 1, measure.BASE, scenes=10)["miou"] > 0.4
