"""Panels without a browser: the same state lives as widgets, as a still figure and as facts."""

from __future__ import annotations

import gc
import io
import threading
import time

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from vlmlab.errors import VlmlabError
from vlmlab.widgets import (
    AttentionViewer,
    ContextMicroscope,
    EquationLens,
    FewShotBoard,
    Guess,
    MethodLab,
    PromptMicroscope,
    ProtocolBox,
    PseudoLabels,
    SegmentationPlayground,
    TransportPlan,
    ViewSelection,
    tableau_pictures,
)
from vlmlab.widgets.clickable import Clickable, Thumbnails
from vlmlab.widgets.equation_lens import Trace
from vlmlab.widgets.panel import Panel, _all, image_view, uploaded
from vlmlab.widgets.settings import Settings

QUICK = {
    "prompt microscope": PromptMicroscope,
    "attention viewer": AttentionViewer,
    "segmentation playground": lambda: SegmentationPlayground(**tableau_pictures(3)),
    "few-shot board": lambda: FewShotBoard(shots=2, offered=("zero_shot", "tip_adapter")),
    "protocol box": ProtocolBox,
    "equation lens": EquationLens,
    "method lab": lambda: MethodLab(system="tip_adapter"),
    "context microscope": ContextMicroscope,
    "transport plan": lambda: TransportPlan(shots=1),
    "view selection": lambda: ViewSelection(n_views=8),
    "pseudo-labels": PseudoLabels,
    "guess": lambda: Guess("How many of a hundred?", 40.0),
}


@pytest.fixture
def strict(monkeypatch):
    monkeypatch.setenv("VLMLAB_STRICT", "1")


@pytest.fixture
def live(monkeypatch):
    monkeypatch.delenv("VLMLAB_STRICT", raising=False)


@pytest.mark.parametrize("name", QUICK)
def test_a_panel_has_three_lives_and_leaves_nothing_behind(name, strict):
    panel = QUICK[name]()
    still = panel.static()
    assert isinstance(still, Figure) and still.alt
    assert all(isinstance(value, int | float | str | bool | list | None) for value in panel.facts().values())
    assert panel.facts() == panel.facts() and panel.error == ""
    panel.close()
    panel.close()
    assert panel.box.comm is None and plt.get_fignums() == []


def test_under_static_a_cell_shows_the_still_picture(strict, monkeypatch, capsys):
    monkeypatch.setenv("VLMLAB_STATIC", "1")
    shown = []
    monkeypatch.setattr("vlmlab.widgets.panel.display", shown.append)
    panel = PromptMicroscope()
    panel._ipython_display_()
    monkeypatch.setenv("VLMLAB_STATIC", "")
    panel._ipython_display_()
    assert isinstance(shown[0], Figure) and shown[1] is panel.box
    panel.close()


def test_under_static_a_panel_without_an_answer_says_why(live, monkeypatch):
    monkeypatch.setenv("VLMLAB_STATIC", "1")
    shown = []
    monkeypatch.setattr("vlmlab.widgets.panel.display", shown.append)
    panel = Slow()
    panel.request(-1, 0.01)
    panel._ipython_display_()
    assert shown[0].data == "*numbers below zero have no image*"
    panel.close()


# --- the machinery ------------------------------------------------------------------------------------------------------


class Slow(Panel):
    """Answers what it was asked after a while; a negative number is an error."""

    def __init__(self):
        self.shown, self.given_up = [], 0
        self.controls, self.views = [], [image_view("nothing")]
        super().__init__()

    def request(self, number, seconds=0.2):
        def work(cancelled):
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                if cancelled():
                    self.given_up += 1
                    return None
                time.sleep(0.005)
            if number < 0:
                raise VlmlabError("numbers below zero have no image")
            return number

        self.ask(work, self.shown.append)


def test_only_the_latest_of_many_requests_is_answered_and_asking_never_waits(live):
    panel = Slow()
    began = time.monotonic()
    for number in range(20):
        panel.request(number)
    assert time.monotonic() - began < 0.1
    panel.wait()
    assert panel.shown == [19] and panel.given_up <= 1
    panel.close()


def test_waiting_includes_what_an_answer_asks_for(live):
    panel = Slow()
    panel.ask(lambda cancelled: time.sleep(0.05), lambda answer: panel.request(7))  # as one that learns, then looks
    panel.wait()
    assert panel.shown == [7]
    panel.close()


def test_waiting_has_an_end(live):
    panel = Slow()
    panel.ask(lambda cancelled: time.sleep(0.5), lambda answer: None)
    with pytest.raises(TimeoutError):
        panel.wait(0.05)
    panel.wait()
    panel.close()


def test_an_error_is_one_line_and_the_last_good_view_stays(live):
    panel = Slow()
    panel.request(1, 0)
    panel.wait()
    panel.request(-1, 0)
    panel.wait()
    assert panel.shown == [1] and panel.error == "numbers below zero have no image"
    panel.request(2, 0)
    panel.wait()
    assert panel.shown == [1, 2] and panel.error == ""
    panel.close()


def test_strict_mode_raises_in_the_cell(strict):
    panel = Slow()
    with pytest.raises(VlmlabError, match="below zero"):
        panel.request(-1, 0)
    panel.close()


def test_cancel_and_close_end_the_worker(live):
    panel = Slow()
    panel.request(1, 30)
    time.sleep(0.05)
    panel.close()
    until = time.monotonic() + 5
    while any(t.name.startswith("vlmlab-Slow") for t in threading.enumerate()) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(t.name.startswith("vlmlab-Slow") for t in threading.enumerate())
    assert panel.shown == []


def test_two_hundred_toggles_leave_no_figures_threads_or_memory(strict):
    import psutil

    viewer = AttentionViewer()
    for n in range(40):  # caches fill
        viewer.layer.value = 1 + n % viewer.layer.max
    gc.collect()
    before, threads = psutil.Process().memory_info().rss, threading.active_count()
    for n in range(200):
        viewer.layer.value = 1 + n % viewer.layer.max
        viewer.head.value = n % 3
    gc.collect()
    assert threading.active_count() == threads and plt.get_fignums() == []
    assert psutil.Process().memory_info().rss - before < 40 * 2**20
    viewer.close()


# --- bad input ----------------------------------------------------------------------------------------------------------


def test_words_that_make_no_list_are_told(live):
    panel = PromptMicroscope()
    panel.wait()
    good = panel.bars.value
    for typed, said in (("cat,,dog", "empty entry"), (" ", "is empty"), (", ".join(map(str, range(200))), "too many")):
        panel.words.value = typed
        assert said in panel.error and panel.bars.value == good
    panel.words.value = "🐱, dog"
    panel.wait()
    assert panel.error == "" and panel.facts()["first"] in ("🐱", "dog")
    panel.template.value = "a photo"
    assert "{}" in panel.error
    panel.close()


def test_uploads():
    stream = io.BytesIO()
    Image.new("RGBA", (3000, 1500), (200, 30, 30, 255)).save(stream, "PNG")
    assert uploaded(stream.getvalue()).shape == (512, 1024, 3)
    with pytest.raises(VlmlabError, match="no image"):
        uploaded(b"not an image", "notes.txt")
    with pytest.raises(VlmlabError, match="50 MB"):
        uploaded(bytes(50 * 2**20), "film.mov")


def test_an_uploaded_picture_is_chosen(live):
    panel = PromptMicroscope()
    stream = io.BytesIO()
    Image.new("RGB", (80, 60), (20, 120, 220)).save(stream, "JPEG")
    panel.chooser._take({"new": ({"name": "mine.jpg", "content": memoryview(stream.getvalue())},)})
    panel.wait()
    assert panel.answer["picture"] == "mine.jpg" and panel.error == ""
    panel.close()


def test_a_backbone_without_attention_is_refused():
    with pytest.raises(VlmlabError, match="choose micro-vit"):
        AttentionViewer(backbone="photo", pictures=[("a", np.zeros((64, 64, 3), np.uint8))])


# --- what panels show ---------------------------------------------------------------------------------------------------


def test_a_fit_draws_while_it_runs_can_be_stopped_and_runs_are_compared(live):
    lab = MethodLab(split="base", shots=2)
    first = lab.revision
    lab.start()
    until = time.monotonic() + 60
    while lab.revision == first and time.monotonic() < until:
        time.sleep(0.02)
    assert lab.losses and not lab.runs
    lab.halt()
    lab.wait()
    assert lab.runs[0]["stopped"] and {"base", "new", "zero_base"} <= lab.runs[0].keys() and lab.error == ""
    lab.system.value = "zero_shot"
    lab.start()
    lab.wait()
    assert len(lab.runs) == 2 and lab.runs[1]["base"] == lab.runs[1]["zero_base"]
    lab.close()


def test_settings_follow_the_config_and_only_changes_count():
    from vlmlab.methods.text_prompt.coop import CoOp

    settings = Settings(CoOp.Config(**CoOp.embedded))
    assert settings.controls.keys() == CoOp.Config.__dataclass_fields__.keys() and settings.values() == {}
    settings.controls["n_ctx"].value = 4
    settings.controls["position"].value = "middle"
    settings.controls["epochs"].value = ""
    assert settings.values() == {"n_ctx": 4, "position": "middle", "epochs": None}


def test_the_lens_shows_the_terms_of_the_equation(strict):
    lens = EquationLens()
    shapes = lens.facts()
    assert shapes["f"] == [1, 128] and shapes["result"] == [1, 10]
    assert shapes["self.zero_shot(f)"] == [1, 10] and shapes["self.alpha"] == []
    terms = {t["name"]: t["value"] for t in lens.terms}
    total = terms["self.zero_shot(f)"] + terms["self.alpha"] * terms["self.vote(f, self.beta)"]
    assert np.allclose(total, terms["result"], atol=1e-5)
    lens.close()


class Streaming:
    """A method that returns what a generator yields, which can be read once."""

    def logits(self, batch):
        parts = (2 * part for part in batch.split(1))
        doubled = batch + batch
        return torch.cat(list(parts)) - doubled


def test_the_terms_of_an_equation_may_hold_what_can_be_read_once():
    terms = Trace(Streaming().logits).run(torch.ones(2, 3))
    assert [t["name"] for t in terms] == ["doubled", "doubled", "result"]
    assert torch.equal(terms[-1]["value"], torch.zeros(2, 3))


def test_moving_the_cursor_computes_nothing_anew(strict, monkeypatch):
    playground = SegmentationPlayground(**tableau_pictures(2))
    monkeypatch.setattr(playground, "_see", lambda *a: pytest.fail("the backbone ran for a cursor"))
    before = playground.note.value
    playground.winner.place = (3, 20)  # a click on one of the two images moves the point in both
    assert playground.shown.place == (3, 20) and playground.note.value != before
    playground.close()


def test_a_guess_comes_first(live):
    asked = []
    guess = Guess("Which is larger?", lambda: asked.append(1) or "base", choices=("base", "new"))
    guess.reveal.click()
    assert "choose an answer first" in guess.error and not asked
    guess.guess.value = "new"
    guess.reveal.click()
    guess.wait()
    assert "You said: new" in guess.told.value and "base" in guess.told.value and asked
    guess.close()
    with pytest.raises(VlmlabError, match="not among"):
        Guess("Which?", "both", choices=("base", "new"))


def test_the_few_shot_board_shows_its_support_set_and_measures_only_what_is_new(strict, monkeypatch):
    board = FewShotBoard(shots=2, offered=("zero_shot", "tip_adapter"))
    sheet, done = board.support.value, len(board.results)
    board.seed.value = 2
    assert board.support.value != sheet and len(board.results) > done
    import vlmlab.studies.run as run

    monkeypatch.setattr(run, "run_experiment", lambda *a, **k: pytest.fail("measured twice"))
    board.seed.value = 1
    assert board.support.value == sheet
    board.close()


def test_the_few_shot_board_offers_what_learns_from_labelled_pictures_and_asks_nothing_twice(live, monkeypatch):
    monkeypatch.setattr(FewShotBoard, "ask", lambda self, work, show: None)
    board = FewShotBoard()
    assert {"zero_shot", "vcd", "coop", "tip_adapter", "svl_adapter", "wise_ft"} <= set(board.ticks)
    assert not {"tpt", "upl", "transclip", "tai_dp", "maskclip"} & set(board.ticks)
    asked = []
    monkeypatch.setattr("vlmlab.studies.run.run_experiment", lambda one, **_: asked.append(one) or {})
    monkeypatch.setattr(board, "_sheet", lambda shots, seed: np.zeros((1, 1, 3), np.uint8))
    monkeypatch.setattr(board, "_show", lambda results: None)
    board._measure(["vcd", "coop"], 4, 1, lambda: False)
    assert [(e.system, e.shots) for e in asked] == [("vcd", 0), ("coop", 1), ("coop", 2), ("coop", 4)]
    board.close()


def test_choosing_on_test_never_looks_worse(strict):
    box = ProtocolBox()
    box.cheat()
    assert all(flattered >= honest for honest, flattered in box.flattered)
    assert box.facts()["flattery"] >= 0
    box.close()


def test_the_plan_gives_every_place_away_and_every_prompt_as_much(strict):
    panel = TransportPlan(shots=1, n_prompts=3)
    share = panel.answer["share"]  # [N, h, w]
    assert share.shape == (3, 8, 8) and np.allclose(share.sum(0), 1, atol=1e-5)
    assert np.allclose(share.mean((1, 2)), 1 / 3, atol=0.02)
    panel.eps.value = 10.0  # an expensive plan is an even one
    assert np.allclose(panel.answer["share"], 1 / 3, atol=0.02)
    panel.eps.value, panel.moment.value = 0.1, 0
    start = panel.answer["alike"]
    panel.moment.value = panel.moment.max
    assert panel.answer["alike"] < start, "the prompts of a class part while they learn"
    panel.chooser.number.value = 5
    assert panel.answer["class"] == panel.answer["picture"] == panel.chooser.name
    panel.close()


def test_views_are_sorted_and_a_larger_share_keeps_more_of_them(strict):
    panel = ViewSelection("textures", n_views=8)
    entropy = panel.answer["entropy"]
    assert (np.diff(entropy) >= 0).all() and panel.facts()["kept"] == 1
    panel.share.value = 0.5
    assert panel.facts()["kept"] == 4 and np.allclose(panel.answer["entropy"], entropy)
    assert panel.facts()["sharper"]
    panel.steps.value = 0  # nothing is learned
    assert np.allclose(panel.answer["before"], panel.answer["after"]) and not panel.facts()["sharper"]
    panel.close()


def test_pseudo_labels_of_a_rule(strict):
    panel = PseudoLabels("textures", top=5)
    assert "the one sentence <i>a photo of a {} texture.</i>" in panel.note.value  # as UPL labels, not by all sentences
    chosen, labels = panel.answer["chosen"], panel.answer["labels"].numpy()
    assert np.bincount(labels[chosen]).max() == 5 and panel.facts()["taken"] == len(chosen)
    confidence = panel.answer["confidence"].numpy()
    for c in range(10):
        own, taken = confidence[labels == c], confidence[[i for i in chosen if labels[i] == c]]
        assert np.allclose(np.sort(own)[::-1][:5], np.sort(taken)[::-1])
    panel.rule.value, panel.threshold.value = "threshold", 1.0
    assert panel.facts() == {"taken": 0, "right": 0, "classes without an image": 10}
    panel.threshold.value = 0.0
    assert panel.facts()["taken"] == len(labels)
    panel.close()


def test_every_picture_of_a_panel_is_described(strict):
    panel = PromptMicroscope()
    images = [w for w in _all(panel.box) if isinstance(w, Clickable | Thumbnails)]
    assert len(images) == 2 and all(len(image.alt) > 10 for image in images)
    assert "an image of" in panel.shown.alt and panel.chooser.name in panel.chooser.number.alt
    panel.close()
