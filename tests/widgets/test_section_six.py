"""Panels of survey section 6, without a browser: what they show is what the systems compute."""

from __future__ import annotations

import copy

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.registry import registry
from vlmlab.studies.table import COLUMNS
from vlmlab.views.style import STATES
from vlmlab.widgets import CacheSurface, CacheVotes, DescriptorBars, SectionBoard, VisualPromptBoard, WiseFTFrontier
from vlmlab.widgets.section_board import board, far_out, frontier
from vlmlab.widgets.support import cache_over

FRONTIER = {
    "dataset": "digits", "shifted": ("digits",), "shots": 1, "pictures": 30, "alphas": (0.0, 0.5, 1.0),
    "config": {"epochs": 1},
}  # fmt: skip
"""Digits under no shift at all: enough for the machinery, and quick."""

PANELS = {
    "visual-prompt board": lambda: VisualPromptBoard(kind="patch", pattern="noise"),
    "cache votes": lambda: CacheVotes(shots=1),
    "cache surface": lambda: CacheSurface(shots=1),
    "frontier": lambda: WiseFTFrontier(**FRONTIER),
    "descriptor bars": DescriptorBars,
}


@pytest.fixture
def strict(monkeypatch):
    monkeypatch.setenv("VLMLAB_STRICT", "1")


@pytest.fixture
def live(monkeypatch):
    monkeypatch.delenv("VLMLAB_STRICT", raising=False)


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_has_three_lives_and_leaves_nothing_behind(name, strict):
    panel = PANELS[name]()
    still = panel.static()
    assert isinstance(still, Figure) and len(still.alt) > 40
    assert all(isinstance(value, int | float | str | bool | list) for value in panel.facts().values())
    panel.close()
    panel.close()
    assert panel.error == "" and panel.box.comm is None and plt.get_fignums() == []


# --- visual prompts ----------------------------------------------------------------------------------------------------


def test_a_prompt_without_strength_is_no_prompt(strict):
    board = VisualPromptBoard(pattern="noise")
    assert not np.allclose(board.answer["before"], board.answer["after"], atol=1e-3)
    board.strength.value = 0.0
    np.testing.assert_allclose(board.answer["before"], board.answer["after"], atol=1e-6)
    np.testing.assert_array_equal(board.answer["pixels"], board.answer["plain"])
    board.close()


def test_a_frame_leaves_the_middle_alone_and_a_patch_moves(strict):
    board = VisualPromptBoard(pattern="noise")
    changed = (board.answer["pixels"] != board.answer["plain"]).any(-1)
    side = len(changed)
    width = side // 8
    assert changed[:width].mean() > 0.8 and not changed[width:-width, width:-width].any()
    board.shown.place = (7, 7)  # a click on the last place: the lower right corner
    assert board.kind.value == "patch" and board.map.place == (7, 7)
    changed = (board.answer["pixels"] != board.answer["plain"]).any(-1)
    assert not changed[: side // 2].any() and changed[-width:, -width:].mean() > 0.8
    place, word = board.answer["map"][7, 7], board.answer["watched"]
    assert place == pytest.approx(board.answer["after"][word], abs=1e-5), "the map holds what the bars say"
    board.close()


def test_vp_learns_once_and_only_when_it_is_asked_for(strict, monkeypatch):
    import vlmlab.studies.run as module

    fits, fit = [], module.fit
    monkeypatch.setattr(module, "fit", lambda *a, **k: fits.append(1) or fit(*a, **k))
    board = VisualPromptBoard(shots=1, pattern="noise")
    assert not fits
    board.pattern.value = "learned"
    board.strength.value = 0.5
    board.pattern.value = "noise"
    board.pattern.value = "learned"
    assert len(fits) == 1
    board.close()


def test_a_prompt_that_is_neither_is_told():
    with pytest.raises(VlmlabError, match="a frame or a patch"):
        VisualPromptBoard(kind="circle")


# --- the cache ---------------------------------------------------------------------------------------------------------


def test_the_bars_are_tip_adapter_s_logits(strict):
    panel = CacheVotes(shots=2, alpha=3.0, beta=4.0)
    shared, task = cache_over("digits", "micro-vit", 2, 1)
    method = copy.copy(shared)
    method.alpha, method.beta = torch.tensor(3.0), torch.tensor(4.0)
    backbone = method.backbone
    features = backbone.encode_image(backbone.preprocess(panel.chooser.pixels))
    logits = method.logits(Batch(features=features))[0].detach().numpy()
    np.testing.assert_allclose(panel.answer["zero_shot"] + panel.answer["votes"], logits, rtol=1e-4, atol=1e-4)
    by_hand = [panel.answer["weights"][task.support.labels.numpy() == c].sum() for c in range(len(method.classes))]
    np.testing.assert_allclose(panel.answer["votes"], 3.0 * np.array(by_hand), rtol=1e-4)
    panel.close()


def test_the_ends_of_the_sliders_are_the_ends_of_the_equation(strict):
    panel = CacheVotes(shots=2)
    panel.alpha.value = 0.0
    assert panel.facts()["with_cache"] == panel.facts()["zero_shot"] and not panel.answer["votes"].any()
    panel.alpha.value, panel.beta.value = 2.0, 0.0
    np.testing.assert_allclose(panel.answer["weights"], 1.0)
    np.testing.assert_allclose(panel.answer["votes"], 4.0, rtol=1e-5)
    panel.close()


def test_the_surface_knows_both_optima_and_yours(strict, monkeypatch):
    panel = CacheSurface(shots=1)
    val, test = panel.answer["surfaces"]
    assert panel.facts()["chosen_on_test"] == round(float(test.max()))
    assert panel.facts()["chosen_on_validation"] == round(float(test.flatten()[val.argmax()]))
    monkeypatch.setattr(panel, "_see", lambda *a: pytest.fail("computed for a mark"))
    before = panel.chart.value
    panel.alpha.value, panel.beta.value = 5, 7
    assert panel._places()[2] == (7, 5) and f"{test[7, 5]:.1f} %" in panel.note.value and panel.chart.value != before
    panel.close()


# --- the frontier ------------------------------------------------------------------------------------------------------


def test_the_slider_of_the_frontier_computes_nothing(strict, monkeypatch):
    panel = WiseFTFrontier(**FRONTIER)
    assert [row["alpha"] for row in panel.rows] == [0.0, 0.5, 1.0]
    assert all(row["same"] == row["shifted"] == row["digits"] for row in panel.rows), "no shift, no difference"
    monkeypatch.setattr(panel, "_learn", lambda *a: pytest.fail("fitted for a slider"))
    before = panel.chart.value
    panel.alpha.value = 1.0
    assert panel.chart.value != before and f"{panel.rows[-1]['same']:.1f} %" in panel.told.value
    panel.close()


def test_the_zero_shot_end_of_the_frontier_is_zero_shot(strict):
    from vlmlab.datasets import Task
    from vlmlab.learning.evaluate import evaluate
    from vlmlab.registry import load_system
    from vlmlab.studies.run import shared_bank, shared_dataset, some

    panel = WiseFTFrontier(**FRONTIER)
    bank = shared_bank("micro-vit")
    task = Task(bank.backbone, shared_dataset("digits"), 1, 1)
    zero_shot = load_system("zero_shot")(bank.backbone)
    zero_shot.prepare(task)
    assert panel.rows[0]["same"] == evaluate(zero_shot, some(task.test, 30), bank)["accuracy"]
    panel.close()


@pytest.mark.parametrize(
    ("wrong", "message"), [({"alpha": 0.3}, "not measured"), ({"shifted": ("aerial",)}, "other classes than digits")]
)
def test_a_frontier_that_cannot_be(strict, wrong, message):
    with pytest.raises(VlmlabError, match=message):
        WiseFTFrontier(**FRONTIER | wrong)


# --- descriptors -------------------------------------------------------------------------------------------------------


def test_the_mean_of_the_bars_is_vcd_s_score(strict):
    panel = DescriptorBars()
    method = panel.method
    features = method.backbone.encode_image(method.backbone.preprocess(panel.chooser.pixels))
    logits = method.logits(Batch(features=features))[0] / method.backbone.logit_scale
    for name, score, bars in zip(panel.answer["names"], panel.answer["scores"], panel.answer["bars"], strict=True):
        expected = float(logits[method.classes.index(name)])
        assert score == pytest.approx(expected, abs=1e-5) == pytest.approx(np.mean([v for _, v in bars]), abs=1e-5)
    assert panel.answer["names"] == [method.classes[c] for c in torch.topk(logits, 2).indices]
    panel.close()


def test_descriptors_can_be_written_and_taken_back(live):
    panel = DescriptorBars()
    panel.wait()
    first, before = panel.answer["names"][0], panel.answer["bars"][0]
    panel.first.value = first
    panel.wait()
    panel.own.value = "red bricks\n\n  a chimney "
    panel.wait()
    assert sorted(text for text, _ in panel.answer["bars"][0]) == ["a chimney", "red bricks"] and panel.error == ""
    panel.own.value = "\n"
    assert "at least one descriptor" in panel.error
    panel.own.value = "\n".join(["a tree"] * 13)
    assert "13 descriptors are too many" in panel.error
    panel.restore.click()
    panel.wait()
    assert panel.answer["bars"][0] == before and panel.error == ""
    panel.close()


def test_a_class_that_is_not_there_is_told():
    with pytest.raises(VlmlabError, match="aerial has no class 'moon'"):
        DescriptorBars(first="moon")


# --- the whole section -------------------------------------------------------------------------------------------------


def line(system, dataset="digits", shots=16, split="all", mean=50.0, sd=1.0, **more):
    names = {"system": system, "dataset": dataset, "backbone": "micro-vit", "shots": shots, "split": split}
    rest = dict.fromkeys(COLUMNS[5:]) | {"metric": "accuracy", "mean": mean, "sd": sd, "zero_shot": 40.0}
    return names | rest | {"trainable_parameters": 10, "seconds": 2.0, "peak_mb": 700} | more


def some_table():
    return pd.DataFrame([
        line("zero_shot", shots=0, mean=40.0, trainable_parameters=0),
        line("zero_shot", "aerial", shots=0, mean=60.0, trainable_parameters=0),
        line("coop", mean=70.0), line("coop", "aerial", mean=80.0), line("coop", shots=1, mean=41.0),
        line("cupl", shots=0, mean=45.0, trainable_parameters=0), line("cupl", "aerial", shots=0, mean=61.0),
        line("vp", mean=50.0, trainable_parameters=999), line("vp", "aerial", mean=50.0),
        line("tip_adapter", "textures", mean=99.0),
        line("coop", split="base", base=90.0, base_sd=2.0, new=30.0, new_sd=3.0, harmonic_mean=45.0),
        line("tip_adapter", split="base", base=95.0),
        line("maskclip", "tableau", metric="miou", mean=30.0),
    ])  # fmt: skip


def test_the_board_compares_on_the_same_datasets_only():
    points = board(some_table(), "parameters", "accuracy", 16)
    assert points.attrs["y"] == ["aerial", "digits"]
    assert points.y.to_dict() == {"zero_shot": 50.0, "coop": 75.0, "cupl": 53.0, "vp": 50.0}, (
        "more than half of the sets, or out"
    )
    assert points.family["vp"] == "visual_prompt" and points.name["cupl"] == "CuPL"
    assert board(some_table(), "parameters", "gain", 16, ("digits",)).y["coop"] == 30.0
    assert board(some_table(), "seconds", "accuracy", 1, ("digits",)).y.to_dict()["coop"] == 41.0


def test_what_a_system_does_not_have_is_not_on_the_board():
    points = board(some_table(), "base", "new", 4)
    assert points.index.tolist() == ["coop"] and points.loc["coop", ["x", "x_sd", "y", "y_sd"]].tolist() == [
        90,
        2,
        30,
        3,
    ]
    with pytest.raises(VlmlabError, match="no shift"):
        board(some_table(), "parameters", "shift", 16)
    with pytest.raises(VlmlabError, match="no metric 'beauty'"):
        board(some_table(), "beauty", "accuracy", 16)


def test_the_frontier_is_what_nobody_beats():
    x, y = np.array([0.0, 10.0, 10.0, 99.0]), np.array([50.0, 75.0, 60.0, 75.0])
    assert frontier(x, y, smaller_x=True).tolist() == [True, True, False, False]
    assert frontier(x, y, smaller_x=False).tolist() == [False, False, False, True]


def test_a_far_value_is_told_from_a_wide_spread():
    near = np.linspace(90, 96, 19)
    assert far_out(np.append(near, 40.0)).tolist() == [False] * 19 + [True]
    assert not far_out(near).any() and not far_out(np.append(near, 85.0)).any()
    assert not far_out(np.append(near[:5], 40.0)).any(), "a few points have room"
    same = np.array([5.0] * 19 + [9.0])
    assert not far_out(same).any(), "values that are all one have no scale to be far on"


def test_a_far_point_is_listed_and_does_not_stretch_the_axes(strict):
    crowd = [key for key in registry() if key not in ("zero_shot", "vcd")][:20]
    halves = {"split": "base", "new_sd": 0.0, "base_sd": 0.0}
    lines = [line(key, base=90.0 + k / 3, new=30.0 + k / 3, **halves) for k, key in enumerate(crowd)]
    panel = SectionBoard(pd.DataFrame([*lines, line("vcd", base=1.0, new=2.0, **halves)]), x="base", y="new")
    still = panel.static()
    axes = still.axes[0]
    assert "VCD" not in {text.get_text() for text in axes.texts}
    assert "VCD (1.0, 2.0)" in {text.get_text() for text in axes.get_legend().get_texts()}
    assert axes.get_xlim()[0] > 80 and axes.get_ylim()[0] > 20
    assert "Hollow" in still.alt and "Hollow" in panel.note.value
    panel.close()


def test_the_section_board_lives_three_times(strict):
    panel = SectionBoard(some_table())
    assert panel.facts() == {"systems": 4, "highest": "coop", "frontier": ["coop", "cupl", "zero_shot"]}
    assert "CoOp, 75.0" in panel.static().alt
    names = {text.get_text() for text in panel.static().axes[0].texts}
    assert names == {"CoOp", "CuPL", "VP"}, "zero-shot is named by the legend"
    panel.ticks["text_prompt"].value = False
    assert panel.facts()["highest"] == "cupl"
    panel.ticks["text_prompt"].value = True
    panel.shots.value, panel.dataset.value = 1, "digits"
    assert panel.points.y["coop"] == 41.0
    panel.close()
    assert panel.box.comm is None


def test_families_that_the_table_has_not_keep_the_last_board(live):
    panel = SectionBoard(some_table()[lambda t: t.system != "zero_shot"])
    for tick in panel.ticks.values():
        tick.value = False
    panel.wait()
    assert "tick another family" in panel.error
    panel.close()


def test_a_still_board_that_may_be_moved_brings_its_states(live, monkeypatch):
    monkeypatch.setenv("VLMLAB_STATIC", "1")
    shown = []
    monkeypatch.setattr("vlmlab.widgets.panel.display", lambda data, metadata, raw: shown.append((data, metadata)))
    panel = CacheVotes(shots=1, beta=4.0)
    panel._ipython_display_()
    ((data, about),) = shown
    held = data[STATES]
    labels = [label for label, *_ in held["states"]]
    assert labels == ["0", "1", "3", "4", "5.5", "10", "20"] and labels[held["at"]] == "4" and held["name"] == "beta"
    addresses = [address for _, address, _ in held["states"]]
    assert len(set(addresses)) == 7 and addresses[3].endswith(data["image/png"])
    assert panel.beta.value == 4.0 and about["image/png"]["alt"] == held["states"][3][2]
    panel.close()


def test_a_still_picture_is_of_the_first_answer(live, monkeypatch):
    monkeypatch.setenv("VLMLAB_STATIC", "1")
    shown = []
    monkeypatch.setattr("vlmlab.widgets.panel.display", shown.append)
    panel = SectionBoard(some_table())
    panel._ipython_display_()
    assert "CoOp, 75.0" in shown[0].alt
    panel.close()


def test_a_figure_that_the_table_has_not_keeps_the_last_board(live):
    panel = SectionBoard(some_table())
    panel.wait()
    before = panel.chart.value
    assert "shift" not in panel.y.options, "what the table does not have is not offered"
    panel.ask(lambda cancelled: panel._see("parameters", "shift", 16, "", "micro-vit", ["adapter"]), panel._show)
    panel.wait()
    assert "no shift" in panel.error and panel.chart.value == before
    panel.close()
    with pytest.raises(VlmlabError, match="no dataset 'moon'"):
        SectionBoard(some_table(), dataset="moon")
