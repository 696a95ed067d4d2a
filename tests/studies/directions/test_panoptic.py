"""Panoptic segmentation without training: what a half that is true leaves to the other."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from vlmlab.errors import VlmlabError
from vlmlab.studies.directions import panoptic


@pytest.fixture(scope="module")
def made():
    """Two images of 32 pixels: two things of one class and one of another on a ground; the places say the classes exactly."""
    semantic = torch.full((2, 32, 32), 2)
    segment = torch.full((2, 32, 32), 5)
    for n, (kind, x, y) in enumerate(((0, 2, 2), (0, 20, 2), (1, 10, 20))):
        semantic[:, y : y + 8, x : x + 8], segment[:, y : y + 8, x : x + 8] = kind, n
    local = F.one_hot(semantic[:, 1::2, 1::2], 3).movedim(-1, 1).float()
    groups = {"base": [0], "new": [1], "grounds": [2]}
    return panoptic.Scenes(("a", "b", "grass"), torch.eye(3), local, semantic, segment, groups)


@pytest.mark.parametrize(
    ("masks", "names"), [("true", "true"), ("true", "pooled"), ("clusters", "true"), ("clusters", "pooled")]
)
def test_places_that_say_everything_give_everything(made, masks, names, monkeypatch):
    monkeypatch.setattr(panoptic.clusters, "__defaults__", (3, 0))
    found = panoptic.quality(made, panoptic.said(made, masks, names))
    assert found == pytest.approx({"base": 100, "new": 100, "grounds": 100})


def test_with_wrong_words_masks_are_right_and_names_are_not(made):
    exchanged = dataclasses.replace(made, words=torch.eye(3)[[1, 0, 2]])
    found = panoptic.quality(exchanged, panoptic.said(exchanged, "true", "pooled"))
    assert found == pytest.approx({"base": 0, "new": 0, "grounds": 100})
    assert panoptic.quality(exchanged, panoptic.said(exchanged, "true", "true"))["base"] == pytest.approx(100)


def test_things_that_are_one_segment_lose_quality(made):
    given = [(kind, torch.where(kind == 0, 1, segment)) for kind, segment in panoptic.said(made, "true", "true")]
    found = panoptic.quality(made, given)
    assert found["base"] == 0 and found["new"] == pytest.approx(100), "two objects in one segment: neither is matched"


def test_parts_of_a_cluster_are_segments_and_small_ones_are_none(made):
    parts = panoptic.clusters(made.local[0], (32, 32), 3)
    assert len(parts.unique()) == 4 and int(parts.min()) == 0, "two of one class, one of another, and the ground"
    one = made.local[0].clone()
    one[:, 0, 15] = torch.eye(3)[1]  # a place of four pixels
    small = panoptic.clusters(one, (32, 32), 3)
    assert bool((small[:2, 30:] == -1).all()) and int((small == -1).sum()) == 4
    assert bool((panoptic.named(one, small, made.words)[:2, 30:] == -1).all())


def test_what_there_is_not_is_refused(made):
    with pytest.raises(VlmlabError, match="source of masks"):
        panoptic.said(made, "boxes")
    with pytest.raises(VlmlabError, match="source of names"):
        panoptic.said(made, names="guessed")
