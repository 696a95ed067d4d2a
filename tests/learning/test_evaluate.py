import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from tests.learning.conftest import Probe, coloured
from vlmlab.datasets.image_set import ArrayPictures, ImageSet
from vlmlab.datasets.truth import NOTHING, Truth
from vlmlab.errors import VlmlabError
from vlmlab.learning.evaluate import evaluate, harmonic_mean, predict
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Method
from vlmlab.registry import SystemInfo


class Fixed(Method):
    """Gives the rows of a table, whatever the images show."""

    info = Probe.info
    eats = "features"

    def __init__(self, backbone, table, classes):
        super().__init__(backbone)
        self.table, self.classes = torch.tensor(table, dtype=torch.float32), classes

    def logits(self, batch):
        return self.table[batch.index]


def pictures(labels, annotate=None, side=32):
    pixels = np.zeros((len(labels), side, side, 3), np.uint8)
    source = ArrayPictures(lambda: pixels, "blank")
    return ImageSet(source, labels, [str(i) for i in range(len(labels))], annotate)


def test_accuracy_per_class_and_calibration_error_by_hand(backbone):
    # Confidence 0.9 everywhere, right three times in four: ece = |0.9 - 0.75|.
    sure, other = np.log(0.9), np.log(0.1)
    method = Fixed(backbone, [[sure, other], [sure, other], [other, sure], [sure, other]], ["cat", "dog"])
    measured = evaluate(method, pictures([0, 0, 1, 1]))
    assert measured["accuracy"] == pytest.approx(75)
    assert measured["ece"] == pytest.approx(15, abs=1e-3)
    assert measured["per_class"] == {"cat": 100, "dog": 50}


def test_calibration_error_over_fifteen_bins(backbone):
    logits = 3 * torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 4, (200,), generator=torch.Generator().manual_seed(1))
    confidence, predicted = logits.softmax(1).max(1)
    right, expected = (predicted == labels).float(), 0.0
    for lower in range(15):
        inside = (confidence > lower / 15) & (confidence <= (lower + 1) / 15)
        if inside.any():
            expected += float(inside.float().mean() * (right[inside].mean() - confidence[inside].mean()).abs())
    measured = evaluate(Fixed(backbone, logits.tolist(), list("abcd")), pictures(labels.tolist()))
    assert measured["ece"] == pytest.approx(100 * expected, abs=1e-3)


def test_a_class_without_pictures_has_no_figure(backbone):
    method = Fixed(backbone, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], ["cat", "dog", "owl"])
    assert evaluate(method, pictures([0, 1]))["per_class"] == {"cat": 100, "dog": 100}


def test_mean_average_precision_by_hand_and_at_clip_s_scale(backbone):
    # Class a is ranked 1st, 3rd of 4: (1/1 + 2/3) / 2. Class b is ranked 2nd: 1/2. No image shows class c.
    table = np.array([[4.0, 3.0, 0.0], [3.0, 4.0, 0.0], [2.0, 1.0, 0.0], [1.0, 2.0, 0.0]])
    labels = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]])
    expected = 100 * ((1 + 2 / 3) / 2 + 1 / 2) / 2
    for scale, shift in ((1.0, 0.0), (0.01, 25.0)):  # a sigmoid of 25 and more is 1 in float32
        measured = evaluate(Fixed(backbone, table * scale + shift, ["a", "b", "c"]), pictures(labels))
        assert measured["map"] == pytest.approx(expected, abs=1e-3)
        assert set(measured["per_class"]) == {"a", "b"}


def test_average_precision_is_scikit_learn_s_with_ties_unknown_labels_and_scores_far_apart(backbone):
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(60, 4, generator=generator).mul(2).round().div(2)  # many ties
    scores[:, 1] = 25 + 1e-5 * scores[:, 1]
    scores[0, 2], scores[1, 2] = -1e6, 1e6
    labels = torch.randint(-1, 2, (60, 4), generator=generator)
    measured = evaluate(Fixed(backbone, scores.tolist(), list("abcd")), pictures(labels))
    for c, name in enumerate("abcd"):
        known = labels[:, c] >= 0
        expected = average_precision_score(labels[known, c].numpy(), scores[known, c].numpy())
        assert measured["per_class"][name] == pytest.approx(100 * expected, abs=1e-4)
    assert measured["map"] == pytest.approx(np.mean(list(measured["per_class"].values())))


def test_one_class_that_pictures_show_is_enough_for_average_precision(backbone):
    measured = evaluate(Fixed(backbone, [[2.0, 0.0], [1.0, 9.0]], ["a", "b"]), pictures([[0, 0], [1, 0]]))
    assert measured["per_class"] == {"a": 50.0} and measured["map"] == 50.0


class LeftRight(Segmenter):
    """Says class 0 on the left half of every image, class 1 on the right."""

    info = SystemInfo("halves", "Halves", "", 2020, "0", "other", "training-free", "nothing", ("segmentation",))
    eats = "images"

    def logits(self, batch):
        side = batch.images.shape[-1]
        right = (torch.arange(side) >= side // 2).float().expand(len(batch.images), side, side)
        return torch.stack([1 - right, right], 1)


def test_intersection_over_union_by_hand(backbone):
    semantic = np.full((64, 64), NOTHING, np.int16)
    semantic[:, :16], semantic[:, 16:32], semantic[:, 32:48] = 0, 1, 1  # the last quarter is not annotated
    semantic[0, :] = 7  # a class that the method does not know: ignored as well

    def annotate(i):
        return Truth(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), None, semantic)

    method = LeftRight(backbone)
    method.classes = ["sky", "sea"]
    measured = evaluate(method, pictures([0, 0], annotate, side=64))
    # Of three annotated quarters: sky is said of two and true of one, sea is said of one and true of two.
    assert measured["per_class"] == pytest.approx({"sky": 50, "sea": 50}, abs=1e-4)
    assert measured["miou"] == pytest.approx(50, abs=1e-4)
    assert measured["pixel_accuracy"] == pytest.approx(200 / 3, abs=1e-4)


def test_masks_are_needed_to_measure_masks(backbone):
    method = LeftRight(backbone)
    method.classes = ["sky", "sea"]
    with pytest.raises(VlmlabError, match="masks"):
        evaluate(method, pictures([0, 1]))


def test_views_of_a_picture_depend_on_its_name_and_the_seed_only(backbone):
    class Viewer(Fixed):
        eats = "views"
        seen = None

        def views(self, raw, seeds):
            for seed in seeds:
                type(self).seen = [*(self.seen or []), seed]
            return torch.zeros(len(raw), 2, 3, 32, 32)

        def logits(self, batch):
            assert batch.images.shape[1:] == (2, 3, 32, 32)
            return torch.tensor([[1.0, 0.0, 0.0]]).expand(len(batch.images), -1)

    method, shown = Viewer(backbone, [[0.0]], ["red", "green", "blue"]), coloured(1, 1)
    predict(method, shown)
    predict(method, shown.subset([2, 0]))
    predict(method, shown, seed=1)
    seeds = method.seen
    assert len(set(seeds[:3])) == 3 and seeds[3:5] == [seeds[2], seeds[0]] and not set(seeds[5:]) & set(seeds[:3])


def test_an_empty_set_is_refused(backbone):
    with pytest.raises(VlmlabError, match="no image"):
        evaluate(Fixed(backbone, [[1.0]], ["a"]), pictures([]))


def test_harmonic_mean():
    assert harmonic_mean(80, 60) == pytest.approx(68.571, abs=1e-3)
    assert harmonic_mean(0, 0) == 0


def test_scores_that_are_not_numbers_are_an_error_not_an_accuracy(backbone):
    with pytest.raises(VlmlabError, match="not numbers"):
        evaluate(Fixed(backbone, [[1.0, float("nan")], [0.0, 1.0]], ["a", "b"]), pictures([0, 1]))
