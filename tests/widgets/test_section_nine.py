"""The panels of section 9, by use."""

import pytest

from vlmlab.studies.directions.test_time import tda
from vlmlab.widgets import CaptionDiet, Phrasebook, Stream, Teachers


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    monkeypatch.setenv("VLMLAB_STRICT", "1")


def test_the_stream_fills_its_cache_and_goes_back():
    panel = Stream("textures", images=60, arrived=60)
    full = panel.facts()
    panel.arrived.value = 10
    early = panel.facts()
    assert early["arrived"] == 10 and early["cached"] <= 10 and early["cached"] < full["cached"]
    assert max(i for places in panel.cached().values() for i in places) < 10
    panel.places.value = 1
    assert panel.facts()["cached"] == len(panel.cached())
    panel.weight.value, panel.arrived.value = 0.0, 60
    panel.order.value = "sorted"
    assert "sorted" in panel.static().alt
    panel.close()


def test_the_cache_of_the_panel_is_that_of_tda():
    panel = Stream("textures", images=60, arrived=60, places=2)
    one = panel.answer["one"]
    held = [i for places in panel.cached().values() for i in places]
    # Without the others, TDA's last image gets the same votes.
    rule = tda(positive_shots=2, negative_shots=0)
    chosen = sorted({*held, 59})
    alone = rule(one.features[chosen], one.words, one.scale)[-1]
    assert alone.allclose(rule(one.features, one.words, one.scale)[-1], atol=1e-3)
    panel.close()


def test_a_diet_is_trained_once_and_its_captions_are_those_of_the_image():
    panel = CaptionDiet(("one caption",), steps=8, images=60)
    first = panel.answer["curves"]["one caption"]
    assert len({*panel.answer["captions"]["one caption"]}) == 1 and first[-1][0] == 8
    panel.image.value = 7
    assert panel.answer["curves"]["one caption"] is first, "another image trains nothing"
    panel.diets.value = ("one caption", "everything")
    assert list(panel.facts()) == ["one caption", "everything"] and "everything" in panel.static().alt
    panel.close()


def test_a_phrasebook_without_pairs_is_the_frozen_tower():
    panel = Phrasebook(0)
    assert panel.facts()["english"] > 85 > panel.facts()["french"] + 40 and len(panel.answer["sample"]) == 6
    panel.steps = 3
    panel.pairs.value = 50
    assert list(panel.answer["results"]) == ["frozen", "50 pairs"] and "French" in panel.static().alt
    panel.close()


def test_teachers_in_dispute_are_not_of_one_mind():
    panel = Teachers("textures", images=30)
    said = panel.answer["said"]
    assert all(said["micro-vit"][i] != said["micro-rn"][i] for i in panel.places())
    before = panel.places()
    panel.page.value = 2
    assert panel.places() != before
    panel.show.value = "all"
    assert panel.places() == list(range(6, 12))
    found = panel.facts()
    assert found["either"] >= max(found["micro-vit"], found["micro-rn"])
    panel.close()
