"""The backbone for real photographs: two frozen encoders and what joins them."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from tests.backbones.test_towers import names_are_checked
from vlmlab.backbones import load_backbone, photo
from vlmlab.datasets.photographs import photographs
from vlmlab.errors import VlmlabError
from vlmlab.files import data_path

WORDS = ("cat", "cup of coffee", "motorcycle", "rocket", "flower", "temple", "dog", "spoon", "tree", "boat")


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("photo", device="cpu")


def test_it_names_photographs_that_it_never_saw(backbone):
    shown = {name: image.copy() for name, image in photographs() if name in WORDS}
    assert len(shown) >= 5
    classes = backbone.class_embeddings(list(WORDS), ["a photo of a {}."])
    guesses = {}
    for name, image in shown.items():
        with torch.no_grad():
            feature = F.normalize(backbone.encode_image(backbone.preprocess(image)), dim=-1)
        guesses[name] = WORDS[int((feature @ classes.T).argmax())]
    right = sum(name == guess for name, guess in guesses.items())
    assert right >= len(shown) - 1, guesses


def test_local_features_of_a_larger_picture_average_to_its_feature(backbone):
    images = torch.rand(1, 3, 288, 352)
    local = backbone.image.local_features(images)
    assert local.shape == (1, 1280, 9, 11)
    with torch.no_grad():
        torch.testing.assert_close(local.mean((2, 3)), backbone.encode_image(images), rtol=1e-4, atol=1e-4)


def test_gradients_reach_learned_words_and_nothing_else(backbone):
    text = backbone.text
    tokens = text.tokenize(["X X a cat.", "X X a dog."])
    end = text.end_of_text(tokens)
    rest = text.embed(tokens)[:, 3:]
    context = torch.randn(2, 384, requires_grad=True)
    features = text.forward_shared_prefix(torch.cat([text.embed(tokens)[0, :1], context]), rest, end - 3)
    F.normalize(features, dim=-1).sum().backward()
    assert context.grad.abs().max() > 0
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())


def test_texts_are_encoded_as_the_sentence_encoder_does_before_the_alignment(backbone):
    sentence = photo.sentence_embeddings(["a photo of a cat."])
    with torch.no_grad():
        torch.testing.assert_close(
            backbone.encode_text(["a photo of a cat."]), backbone.model.text.proj(sentence), rtol=1e-4, atol=1e-5
        )


def test_ridge_regression_recalls_what_it_was_given_and_interpolates():
    anchors = F.normalize(torch.randn(40, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    rows = F.normalize(anchors @ torch.randn(8, 5, generator=torch.Generator().manual_seed(1)), dim=-1)
    exact = photo.Alignment(anchors, photo.fit_alignment(anchors, rows, 0.5, 1e-6), 0.5)
    torch.testing.assert_close(exact(3 * anchors), rows, rtol=1e-2, atol=1e-3)  # the length of a sentence is nothing
    between = F.normalize(anchors + 0.05 * anchors.roll(1, 0), dim=-1)
    smooth = photo.Alignment(anchors, photo.fit_alignment(anchors, rows, 0.5, 0.1), 0.5)
    assert F.cosine_similarity(smooth(between), rows).mean() > 0.8


def test_the_mean_feature_is_the_mean_of_a_rectified_normal_variable():
    shift, scale = torch.tensor([-1.0, 0.0, 5.5]), torch.tensor([1.0, -2.0, 3.0])
    drawn = (shift + scale * torch.randn(200_000, 3, generator=torch.Generator().manual_seed(0))).clamp(0, 6).mean(0)
    torch.testing.assert_close(photo.expected_activation(shift, scale), drawn, rtol=0.02, atol=0.01)


def test_the_committed_alignment_is_the_one_that_is_built(backbone):
    """Twenty names suffice: their anchors and what the weights make of them."""
    alignment = backbone.model.text.proj
    names = photo.IMAGENET_CLASSNAMES[:20]
    built = F.normalize(sum(photo.sentence_embeddings([t.format(n) for n in names]) for t in photo.TEMPLATES), dim=-1)
    torch.testing.assert_close(alignment.anchors[:20], built, rtol=0, atol=1e-3)
    rows = photo.centred_rows(photo._network_weights()["classifier.weight"])
    with torch.no_grad():
        nearest = (F.normalize(alignment(alignment.anchors[:1000]), dim=-1) @ rows.T).argmax(1)
    assert (nearest == torch.arange(1000)).float().mean() > 0.95


def test_tampered_weights_are_refused(tmp_path, monkeypatch):
    source = data_path("backbones")
    (tmp_path / "backbones").mkdir()
    manifest = json.loads((source / "photo.json").read_text())
    (tmp_path / "backbones" / "photo.json").write_text(json.dumps(manifest))
    raw = bytearray((source / manifest["weights"]).read_bytes())
    raw[-1] ^= 1
    (tmp_path / "backbones" / manifest["weights"]).write_bytes(raw)
    monkeypatch.setenv("VLMLAB_DATA", str(tmp_path))
    with pytest.raises(VlmlabError, match="vlmlab build photo") as error:
        photo.load_photo()
    assert "\n" not in str(error.value)


def test_names_are_checked_before_they_are_cut(backbone):
    names_are_checked(backbone.text)
