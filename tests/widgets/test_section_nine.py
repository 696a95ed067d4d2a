"""The panels of section 9, by use."""

import pytest

from vlmlab.studies.directions.test_time import tda
from vlmlab.widgets import Stream


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
