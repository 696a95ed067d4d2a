"""The panels of detection, by use: what a reader types, moves and clicks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.pseudo_labels import quality
from vlmlab.views.boxes import boxed, side_by_side
from vlmlab.widgets import (
    BagOfRegions,
    DetectionPlayground,
    DistillationLens,
    ProposalBoard,
    PseudoBoxInspector,
)

TRAIN = 16
QUICK = {"vild": {"epochs": 1}, "rkd": {"epochs": 1, "image_labels": 0.0}}


@pytest.fixture
def strict(monkeypatch):
    monkeypatch.setenv("VLMLAB_STRICT", "1")


@pytest.fixture
def playground(strict):
    panel = DetectionPlayground(
        ("book", "mushroom", "zebra"), train=TRAIN, count=3, settings=QUICK, who="teacher", threshold=0.5
    )
    yield panel
    panel.close()


def lives(panel):
    still = panel.static()
    assert isinstance(still, Figure) and still.alt and panel.error == ""
    assert all(isinstance(value, int | float | str | bool) for value in panel.facts().values())
    assert panel.facts() == panel.facts()


def test_the_teacher_finds_what_the_words_name_and_a_click_asks_about_a_box(playground):
    lives(playground)
    assert playground.kinds() == ["base", "new", "invented"]
    assert playground.facts() == {
        "words": 3,
        "objects": 2,
        "found": 2,
        "false alarms": playground.facts()["false alarms"],
    }
    found = playground.found()
    x0, y0, x1, y1 = found.boxes[-1].tolist()  # not the surest, which is asked about first
    before = playground.tops.value
    playground.shown.place = (int((y0 + y1) / 2 / 64 * 33), int((x0 + x1) / 2 / 64 * 33))
    assert playground.tops.value and (len(found) == 1 or playground.crop.value)
    assert before.count("<i ") == 3, "the teacher alone: one bar for each word"


def test_moving_threshold_and_suppression_computes_nothing(playground, monkeypatch):
    monkeypatch.setattr(playground, "_see", lambda *a: pytest.fail("the backbone ran for a slider"))
    many = []
    for threshold in (0.0, 0.2, 0.9):
        playground.threshold.value = threshold
        many.append(len(playground.found()))
    assert many == sorted(many, reverse=True) and many[0] > many[-1]
    playground.threshold.value, playground.nms.value = 0.0, 1.0
    everything = len(playground.found())
    playground.nms.value = 0.1
    assert len(playground.found()) < everything
    playground.threshold.value = 1.0
    assert "no box above the threshold" in playground.tops.value and playground.facts()["found"] == 0


def test_words_are_edited_live_and_a_student_learns_when_it_is_asked(playground, monkeypatch):
    playground.words.value = "book, book, cup"
    assert playground.answer["words"] == ["book", "cup"]
    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "backward", lambda self: pytest.fail("learned for a word"))
        playground.words.value = "mushroom"
    assert playground.facts()["objects"] == 1
    playground.words.value = "book, cup"
    playground.threshold.value = 0.0
    playground.who.value = "student"
    assert playground.answer["system"] == "vild" and playground.tops.value.count("<i ") == 4, "teacher and student"
    with pytest.raises(VlmlabError, match="empty entry"):
        playground.words.value = "book,,cup"


def test_another_system_has_words_of_its_own_and_the_shared_one_keeps_its_classes(playground):
    from vlmlab.studies.few_scenes import learned

    playground.who.value, playground.system.value = "student", "rkd"
    assert playground.answer["system"] == "rkd"
    shared = learned("rkd", TRAIN, **QUICK["rkd"]).method
    assert len(shared.classes) == 47 and shared.config.nms == 0.5


def test_the_readers_own_image_has_no_truth_to_count(playground):
    playground.chooser.add("mine.png", np.full((40, 80, 3), 128, np.uint8))
    assert playground.answer["picture"] == "mine.png" and playground.counts() == {}
    playground.threshold.value = 0.0
    assert len(playground.found())
    assert playground.found().boxes[:, 2].max() <= 80 and playground.found().boxes[:, 3].max() <= 40


def test_a_system_that_is_none_is_refused():
    with pytest.raises(VlmlabError, match="did you mean vild"):
        DetectionPlayground(system="vil", train=TRAIN)


def test_more_proposals_miss_fewer_objects_and_a_stricter_measure_more(strict):
    board = ProposalBoard(test=12)
    lives(board)
    for values in board.recall().values():
        assert values == sorted(values)
    missed = []
    for count in (1, 4, 32):
        board.count.value = count
        missed.append(board.facts()["missed"])
    assert missed == sorted(missed, reverse=True) and missed[0] > 0
    board.count.value = 1
    assert board.missed.value and "met by none" in board.note.value
    board.met.value = 0.9
    assert board.facts()["missed"] >= missed[0]
    board.close()


def test_a_region_goes_to_the_teacher_only_if_it_is_distilled(strict):
    lens = DistillationLens(train=32, scenes=4, settings={"epochs": 8, "lr": 0.003, "dropout": 0.0, "negatives": 4})
    lives(lens)
    news = [k for k, one in enumerate(lens._regions) if one[1] == "new"]
    distilled = np.mean([lens.way(k)[0][-1] for k in news])
    lens.moment.value = 0
    assert "Step 1 of" in lens.note.value
    lens.head.value = "text"
    assert distilled > np.mean([lens.way(k)[0][-1] for k in news]) + 0.1
    lens.chooser.number.value = 1
    assert lens.facts()["object"] == lens._regions[1][0]
    lens.close()


def test_a_bag_holds_its_proposal_and_a_chance_of_none_nothing_else(strict):
    panel = BagOfRegions(count=2)
    lives(panel)
    panel.chance.value = 0.0
    assert panel.answer["order"] == [4] and panel.facts()["places"] == 1
    panel.chance.value = 1.0
    assert panel.facts()["places"] > 1
    x0, y0, x1, y1 = panel.answer["span"].tolist()
    for k in panel.answer["order"]:
        box = panel.answer["nine"][k].tolist()
        assert x0 <= box[0] + 1e-3 and y0 <= box[1] + 1e-3 and box[2] <= x1 + 1e-3 and box[3] <= y1 + 1e-3
    same = list(panel.answer["order"])
    panel.draw.value = 7
    panel.draw.value = 3
    assert panel.answer["order"] == same, "a draw is a seed"
    panel.close()


def test_the_inspector_counts_as_the_package_does(strict):
    panel = PseudoBoxInspector(train=24)
    lives(panel)
    told = quality(panel.answer["method"].pseudo, panel.answer["truths"], panel.answer["task"].new)
    assert panel.measured()["boxes"] == told["boxes"] or panel.threshold.value != 0.8
    counts = []
    for threshold in (0.2, 0.6, 0.98):
        panel.threshold.value = threshold
        counts.append(panel.facts()["kept"])
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]
    recall = [row["recall"] for row in panel.answer["curve"]]
    assert recall[0] >= recall[-1]
    panel.objectness.value = 0.0
    assert panel.sheet.value and "rejected" in panel.note.value
    panel.close()


def test_boxes_are_drawn_in_their_colour_and_stay_in_the_image():
    pixels = np.zeros((20, 40, 3), np.uint8)
    drawn = boxed(pixels, np.array([[5.0, 5, 15, 15], [-4, -4, 60, 30]]), ["a", ""], ["#FF0000", "#00FF00"], 200)
    assert drawn.shape == (100, 200, 3) and (drawn[60, 25] == (255, 0, 0)).all()
    assert side_by_side([drawn, drawn]).shape == (100, 406, 3)
    assert boxed(pixels, np.zeros((0, 4)), [], [], 80).shape == (40, 80, 3)
