"""The panel of VPT's prompt distribution, without a browser."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from vlmlab.methods.method import Batch
from vlmlab.widgets import PromptSamples


@pytest.fixture
def panel(monkeypatch):
    monkeypatch.setenv("VLMLAB_STRICT", "1")
    panel = PromptSamples(shots=1, epochs=2, samples=2)
    yield panel
    panel.close()


def test_three_lives(panel):
    still = panel.static()
    assert isinstance(still, Figure) and still.alt and panel.error == "" and panel.chart.value
    assert panel.facts() == panel.facts() and panel.facts()["samples"] == 10
    panel.close()
    assert panel.box.comm is None and plt.get_fignums() == []


def test_it_shows_what_the_system_predicts(panel):
    method, answer = panel.method, panel.answer
    method.noise = panel.noise[:10]
    images = method.backbone.preprocess(answer["pixels"])
    with torch.no_grad():
        expected = method.logits(Batch(images=images)).exp()[0]
    np.testing.assert_allclose(answer["mean"], expected, atol=1e-5)
    assert answer["first"] == method.classes[int(expected.argmax())]


def test_width_zero_leaves_the_mean_prompt_alone(panel):
    panel.width.value = 0.0
    samples = panel.answer["samples"]
    np.testing.assert_allclose(samples, samples[:1].repeat(len(samples), 0), atol=1e-5)
    assert panel.answer["agree"] == 1 and panel.answer["deviation"] == 0
    panel.width.value, panel.count.value = 1.0, 1
    assert len(panel.answer["samples"]) == 1 and "1 sample " in panel.static().alt


def test_another_picture_is_another_distribution(panel):
    before = panel.answer["samples"]
    panel.chooser.number.value += 1
    assert not np.allclose(before, panel.answer["samples"])
