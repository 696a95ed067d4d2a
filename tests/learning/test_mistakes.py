"""Kinds of mistakes, by hand-made detections and pixels."""

import pytest
import torch

from vlmlab.datasets.truth import Truth
from vlmlab.learning.mistakes import (
    BOX_KINDS,
    best_threshold,
    box_mistakes,
    f1_at,
    iou_by_group,
    pixel_mistakes,
    with_true_boxes,
    with_true_names,
)
from vlmlab.methods.dense.detections import Detections

TRUTH = Truth(
    torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30]]), torch.tensor([0, 1, 2]), None, None
)  # fmt: skip


def found(*rows):
    """Detections of rows (x0, y0, x1, y1, score, label), the surest first."""
    table = torch.tensor([[float(v) for v in row] for row in sorted(rows, key=lambda row: -row[4])]).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].long())


EVERY = found(
    (0, 0, 10, 10, 0.9, 0),  # right
    (0, 0, 10, 9, 0.8, 0),  # a double of it
    (20, 0, 30, 10, 0.7, 2),  # the second object with the name of the third
    (0, 20, 10, 24, 0.6, 2),  # the third, with 40 % of it
    (50, 50, 60, 60, 0.5, 1),  # nothing
    (20, 6, 30, 10, 0.4, 0),  # 40 % of the second, with the name of the first
)


def test_every_kind_is_counted_once():
    assert box_mistakes([EVERY], [TRUTH], 0.0) == {
        "right": 1, "misplaced": 1, "misnamed": 1, "double": 1, "background": 1, "both": 1, "missed": 0
    }  # fmt: skip


def test_a_threshold_leaves_out_what_is_not_sure_and_its_objects_are_missed():
    counts = box_mistakes([EVERY], [TRUTH], 0.75)
    assert (counts["right"], counts["double"], counts["missed"]) == (1, 1, 2)
    assert box_mistakes([found()], [TRUTH], 0.0) == dict.fromkeys(BOX_KINDS, 0) | {"missed": 3}
    empty = Truth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), None, None)
    assert box_mistakes([EVERY], [empty], 0.0)["background"] == len(EVERY)


def test_names_and_boxes_are_put_right_apart():
    (named,) = with_true_names([EVERY], [TRUTH])
    assert named.labels.tolist() == [0, 0, 1, 2, 1, 0] and torch.equal(named.boxes, EVERY.boxes)
    (boxed,) = with_true_boxes([EVERY], [TRUTH])
    assert torch.equal(boxed.labels, EVERY.labels)
    assert boxed.boxes[3].tolist() == [0, 20, 10, 30] and boxed.boxes[4].tolist() == EVERY.boxes[4].tolist()


def test_the_best_threshold_has_the_highest_f1():
    detections = [found((0, 0, 10, 10, 0.9, 0), (20, 0, 30, 10, 0.8, 1), (50, 50, 60, 60, 0.3, 2))]
    assert best_threshold(detections, [TRUTH]) == pytest.approx(0.8)
    assert f1_at(detections, [TRUTH], 0.8) == pytest.approx(100 * 2 * 2 / (2 + 3))
    assert f1_at(detections, [TRUTH], 0.0) == pytest.approx(100 * 2 * 2 / (3 + 3))
    assert f1_at(detections, [TRUTH], 0.95) == 0.0 and best_threshold([found()], [TRUTH]) == 1.0


def test_pixels_by_group():
    counts = torch.tensor([[6.0, 1, 1], [0, 2, 2], [3, 1, 4]])  # class 2 is new
    kinds = pixel_mistakes(counts, [2])
    assert kinds == pytest.approx(
        {"right": 60.0, "base for base": 5.0, "new for base": 15.0, "base for new": 20.0, "new for new": 0.0}
    )
    iou = iou_by_group(counts, [2])
    assert iou["new"] == pytest.approx(100 * 4 / (8 + 7 - 4)) and iou["base"] == pytest.approx(
        50 * (6 / (8 + 9 - 6) + 2 / (4 + 4 - 2))
    )
    assert "new" not in iou_by_group(counts[:2, :2], [])
