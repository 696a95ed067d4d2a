"""Panels of survey sections 7.2 and 7.3, without a browser: what they show is what the systems compute."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.superpixels import snapped, superpixels
from vlmlab.methods.method import Batch
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import construct
from vlmlab.widgets import (
    CamBoard,
    ImagePrompt,
    MaskedCropLens,
    MaskQueries,
    SegmentationPlayground,
    tableau_pictures,
)
from vlmlab.widgets.segmenters import Segmenters, kind_of, offered

WORDS = ["cat", "dog", "sky", "grass"]


@pytest.fixture(autouse=True)
def strict(monkeypatch):
    monkeypatch.setenv("VLMLAB_STRICT", "1")


@pytest.fixture(scope="module")
def pictures():
    return tableau_pictures(3)


@pytest.fixture(scope="module")
def untrained():
    """Segmenters as learning begins with them: enough for what panels do, and quick."""
    made = {}
    for system in ("zsseg", "lseg"):
        config = {"n_ctx": 0} if system == "zsseg" else {}
        made[system] = construct(Experiment(system, "tableau", "micro-vit", 0, 1, config=config)).prepare()
    return made


@pytest.fixture(scope="module")
def clipseg():
    """CLIPSeg before its first step is the cosine of place and prompt; a few of its images are enough for that start."""
    from vlmlab.methods.segmentation.clipseg import CLIPSeg

    task = construct(Experiment("clipseg", "tableau", "micro-vit", 0, 1)).seen

    class Few:
        """The task with twenty training images."""

        def __getattr__(self, name):
            found = getattr(task, name)
            return found.subset(range(20)) if name == "train" else found

    method = CLIPSeg(task.backbone, CLIPSeg.configure(task.backbone))
    method.prepare(Few())
    return method


def looked_through(panel):
    still = panel.static()
    assert isinstance(still, Figure) and len(still.alt) > 40
    assert all(isinstance(value, int | float | str | bool | list) for value in panel.facts().values())
    panel.close()
    panel.close()
    assert panel.error == "" and panel.box.comm is None and plt.get_fignums() == []


# --- shared parts ------------------------------------------------------------------------------------------------------


def test_a_shared_segmenter_keeps_its_own_words(untrained):
    method = untrained["lseg"]
    before, words = list(method.classes), method.words
    own = Segmenters(untrained, "micro-vit").asked("lseg", WORDS, "a photo of a {}.")
    assert own.classes == WORDS and len(own.words) == 4
    assert method.classes == before and method.words is words


def test_words_are_seen_unseen_or_invented():
    from vlmlab.datasets import load_dataset

    novel = load_dataset("tableau").novel[0]
    assert [kind_of(w, "lseg") for w in ("sky", novel, "unicorn")] == ["seen", "unseen", "invented"]
    assert kind_of(novel, "clip_es") == "seen" and kind_of("unicorn", "maskclip") == "a name"


def test_only_systems_that_take_words_and_run_on_the_backbone_are_offered():
    assert {"maskclip", "zsseg", "lseg", "clipseg", "clip_es"} <= set(offered()) and "denseclip" not in offered()
    assert offered("photo") == ["maskclip"]


def test_superpixels_follow_the_image_and_keep_the_mean():
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:, 20:] = 255
    regions = superpixels(pixels, 12)
    assert not set(regions[:, :20].ravel()) & set(regions[:, 20:].ravel()), "none crosses the edge"
    scores = np.random.default_rng(1).random((2, 32, 48)).astype(np.float32)
    found = snapped(scores, regions)
    np.testing.assert_allclose(found.mean((1, 2)), scores.mean((1, 2)), rtol=1e-4)
    assert all(len(np.unique(found[0][regions == r])) == 1 for r in np.unique(regions))


# --- playground --------------------------------------------------------------------------------------------------------


def test_the_playground_shows_what_a_fitted_system_predicts(untrained, pictures):
    panel = SegmentationPlayground(**pictures, segmenters=untrained)
    assert panel.facts()["system"] == "maskclip" and not panel.kind.disabled
    panel.words.value = ", ".join(WORDS)
    panel.system.value = "lseg"
    own = Segmenters(untrained, "micro-vit").asked("lseg", WORDS, panel.template.value)
    (expected,) = own.predict([pictures["pictures"][0][1]], WORDS)
    np.testing.assert_array_equal(panel.answer["winner"], expected.numpy())
    assert panel.kind.disabled and "LSeg" in panel.note.value
    told = [box.children[0].value for box in panel.maps.children]
    kinds = ["unseen", "invented", "seen", "seen"]
    assert [f"<small>{k}," in line for k, line in zip(kinds, told, strict=True)] == [True] * 4
    panel.snap.value = True
    assert panel.answer["scores"].shape == (4, *pictures["pictures"][0][1].shape[:2])
    looked_through(panel)


# --- queries -----------------------------------------------------------------------------------------------------------


def test_queries_add_up_to_the_system_s_answer(untrained, pictures):
    panel = MaskQueries(pictures["words"], pictures=pictures["pictures"], segmenters={"zsseg": untrained["zsseg"]})
    a = panel.answer
    own = Segmenters(untrained, "micro-vit").asked("zsseg", pictures["words"], panel.template.value)
    images, _ = own.framed([a["pixels"]])
    with torch.no_grad():
        expected = own.logits(Batch(images=images))[0].numpy()
    np.testing.assert_allclose(np.einsum("nc,nhw->chw", a["both"], a["masks"]), expected, atol=1e-3)
    sure = 1 - a["segmenter"][:, -1]
    assert (np.diff(sure) <= 1e-6).all(), "the surest first"
    panel.sheet.place = (1, 2)
    assert panel.chosen == 8 and "query 9 of 17" in panel.told.value
    panel.sheet.place = (9, 9)
    assert panel.chosen == 16
    looked_through(panel)


def test_a_system_without_segments_is_not_offered(untrained):
    with pytest.raises(VlmlabError, match="system"):
        MaskQueries(system="lseg", segmenters=untrained)


# --- crops -------------------------------------------------------------------------------------------------------------


def test_the_lens_asks_about_what_lies_at_the_point(pictures):
    panel = MaskedCropLens(**pictures)
    a = panel.answer
    side = len(a["mask"])
    y = x = int(12.5 / 25 * side)
    assert a["mask"][y, x] and a["what"] == pictures["truth_words"][pictures["truth"][0][y, x]]
    np.testing.assert_allclose(a["said"].sum(1), 1, rtol=1e-4)
    assert not np.allclose(a["said"][0], a["said"][1]) and not np.allclose(a["said"][1], a["said"][2])
    thing = np.argwhere(pictures["truth"][0] == pictures["truth_words"].index("mushroom"))
    row, column = (25 * thing[len(thing) // 2] // side).tolist()
    panel.shown.place = (row, column)
    assert panel.answer["what"] == "mushroom"
    crops = panel.answer["said"][2].copy(), panel.answer["said"][0].copy()
    panel.expand.value = 2.0
    np.testing.assert_allclose(panel.answer["said"][2], crops[0], rtol=1e-5)  # pooling knows no crop
    assert not np.allclose(panel.answer["said"][0], crops[1])
    panel.shown.place = (0, 0)
    assert panel.answer["mask"][0, 0]
    looked_through(panel)


def test_without_ground_truth_the_part_is_a_superpixel(pictures):
    panel = MaskedCropLens(WORDS, pictures=pictures["pictures"])
    assert 0 < panel.answer["mask"].mean() < 0.5 and panel.facts()["what"] == ""
    panel.close()


# --- maps --------------------------------------------------------------------------------------------------------------


def test_the_threshold_redraws_and_computes_nothing(pictures, monkeypatch):
    panel = CamBoard(**pictures)
    assert panel.answer["maps"].shape[0] == 3 and 0 <= panel.answer["maps"].min() <= panel.answer["maps"].max() <= 1
    monkeypatch.setattr(panel, "_see", lambda *a: pytest.fail("computed for a threshold"))
    panel.threshold.value = 0.0
    many = (panel._called(1) >= 0).sum()
    panel.threshold.value = 1.0
    assert not (panel._called(1) >= 0).any() and many > 0
    monkeypatch.undo()
    looked_through(panel)


def test_an_image_brings_its_things_and_stuff_is_ground(pictures):
    panel = CamBoard(**pictures)
    panel.chooser.number.value = 1
    shown = [pictures["truth_words"][k] for k in np.unique(pictures["truth"][1]) if k >= 0]
    assert panel.answer["words"] == [
        w for w in shown if w not in ("sky", "grass", "water", "sand", "snow", "brick", "wood")
    ]
    assert set(panel._iou(0)) == set(panel.answer["words"])
    panel.close()


def test_the_softmax_listens_to_the_background_words(pictures):
    panel = CamBoard(**pictures)
    before = panel.answer["maps"].copy()
    panel.background.value = "sea"
    np.testing.assert_allclose(panel.answer["maps"][0], before[0], atol=1e-5)
    assert not np.allclose(panel.answer["maps"][1], before[1])
    panel.close()


# --- prompts -----------------------------------------------------------------------------------------------------------


def test_an_image_is_a_prompt_and_a_sentence_may_be_mixed_in(clipseg, pictures):
    given = {k: pictures[k] for k in ("pictures", "truth", "truth_words")}
    panel = ImagePrompt(**given, method=clipseg)
    by_image = panel.answer["map"].copy()
    panel.weight.value = 1.0
    by_text = panel.answer["map"].copy()
    images, (frame,) = clipseg.framed([panel.answer["pixels"]])
    with torch.no_grad():
        text = clipseg.scaled(clipseg.backbone.encode_text([panel.sentence.value]).float())
        expected = frame.map_back(clipseg.maps_by(images, text)[0].sigmoid())[0]
    np.testing.assert_allclose(by_text, expected.numpy(), atol=1e-5)
    assert not np.allclose(by_image, by_text)
    panel.sentence.value = "a photo of the sky."
    assert not np.allclose(panel.answer["map"], by_text)
    with pytest.raises(VlmlabError, match="sentence is empty"):
        panel.sentence.value = " "
    panel.say("")
    looked_through(panel)


def test_an_image_without_ground_truth_is_the_prompt_as_a_whole(clipseg, pictures):
    panel = ImagePrompt(pictures=pictures["pictures"], method=clipseg)
    assert panel.answer["mask"].all() and "whole image" in panel.note.value and panel._iou() is None
    panel.close()
