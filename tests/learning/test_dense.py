"""Boxes and pixels are measured as the field does, by group; training sees what its setup grants."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vlmlab.datasets import load_dataset
from vlmlab.datasets.image_set import ArrayPictures, ImageSet
from vlmlab.datasets.task import Task
from vlmlab.datasets.truth import UNLABELLED, Truth
from vlmlab.errors import VlmlabError
from vlmlab.learning.evaluate import evaluate
from vlmlab.learning.fit import fit
from vlmlab.methods.dense.detections import Detections
from vlmlab.methods.dense.detector import Detector
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Batch, Recipe, option
from vlmlab.registry import SystemInfo

WORDS = ["red", "green", "blue"]
GROUPS = {"base": [0, 1], "new": [2]}


def squares(count: int = 6, side: int = 32) -> ImageSet:
    """One square per image, whose colour is its class, and masks."""
    pixels, truths, labels = np.full((count, side, side, 3), 20, np.uint8), [], np.zeros((count, 3), int)
    for i in range(count):
        x, y, c = 2 + 3 * (i % 4), 4 + 2 * (i % 3), i % 3
        pixels[i, y : y + 12, x : x + 14, c] = 250
        semantic = np.full((side, side), -1, np.int16)
        semantic[y : y + 12, x : x + 14] = c
        truths.append(
            Truth(np.array([[x, y, x + 14, y + 12]], np.float32), np.array([c]), semantic[None] >= 0, semantic)
        )
        labels[i, c] = 1
    names = [f"squares/{i}" for i in range(count)]
    return ImageSet(ArrayPictures(lambda: pixels, f"squares {count} {side}"), labels, names, lambda i: truths[i])


class Bright(Detector):
    """Finds the box of bright pixels and names it by its colour; `wrong` names everything red."""

    info = SystemInfo("bright", "Bright", "", 2020, "0", "detection", "open-vocabulary", "nothing", ("detection",))
    wrong = False

    def detect(self, batch: Batch) -> list[Detections]:
        found = []
        for image in batch.images:
            ys, xs = (image.amax(0) > image.mean() + image.std()).nonzero().unbind(1)
            box = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()[None]
            colour = 0 if self.wrong else int(image[:, ys, xs].mean(1).argmax())
            found.append(Detections(box, torch.tensor([0.9]), torch.tensor([colour])))
        return found

    def proposals(self, batch):
        return [found.boxes for found in self.detect(batch)]

    def teacher_scores(self, batch, boxes):
        return [torch.eye(3)[[0]].expand(len(own), -1) for own in boxes]  # says red of everything


class Painter(Segmenter):
    """A 1x1 convolution on the pixels."""

    info = SystemInfo(
        "painter", "Painter", "", 2020, "0", "segmentation", "open-vocabulary", "a convolution", ("segmentation",)
    )

    @dataclasses.dataclass
    class Config(Recipe):
        epochs: int = option(30, "epochs", 1, 100)
        batch_size: int = option(3, "images", 1, 100)
        lr: float = option(0.5, "rate", 0.0, 10.0)
        warmup_epochs: int = option(0, "warm-up", 0, 10)

    def prepare(self, task):
        super().prepare(task)
        self.head = nn.Conv2d(3, len(self.classes), 1)

    def logits(self, batch):
        return self.head(batch.images)

    def loss(self, batch):
        masks = batch.masks
        self.seen = getattr(self, "seen", set()) | set(masks.unique().tolist())
        return F.cross_entropy(self.logits(batch), masks.clamp_min(-1), ignore_index=-1)


def ready(system, backbone):
    method = system(backbone)
    method.classes, method.templates = list(WORDS), ["{}"]
    return method


def test_perfect_boxes_have_full_average_precision(backbone):
    measured = evaluate(ready(Bright, backbone), squares(), groups=GROUPS)
    assert measured["ap50"] == pytest.approx(100) and measured["ap"] == pytest.approx(100)
    assert measured["ap50_base"] == measured["ap50_new"] == measured["harmonic_mean"] == pytest.approx(100)
    assert measured["recall_new"] == 100 and measured["teacher_new"] == 0 and measured["teacher_base"] == 50
    assert set(measured["per_class"]) == set(WORDS)


class Cut(Bright):
    """Gives the mask of the bright pixels, too, or the upper `share` of it."""

    share = 1.0

    def detect(self, batch: Batch) -> list[Detections]:
        found = super().detect(batch)
        for one, image in zip(found, batch.images, strict=True):
            one.masks = (image.amax(0) > image.mean() + image.std())[None]
            top, bottom = one.boxes[0, 1], one.boxes[0, 3]
            one.masks[:, int(top + self.share * (bottom - top)) :] = False
        return found


def test_masks_of_a_detector_are_measured_beside_its_boxes(backbone):
    assert not any("mask" in name for name in evaluate(ready(Bright, backbone), squares(), groups=GROUPS))
    method = ready(Cut, backbone)
    whole = evaluate(method, squares(), groups=GROUPS)
    assert whole["mask_ap50"] == whole["mask_ap_base"] == whole["mask_ap50_new"] == pytest.approx(100)
    method.share = 2 / 3  # an IoU of two thirds counts at 0.5 to 0.65, at four of ten thresholds
    part = evaluate(method, squares(), groups=GROUPS)
    assert part["mask_ap50"] == pytest.approx(100) and part["mask_ap"] == pytest.approx(40)
    assert part["ap"] == whole["ap"] == pytest.approx(100)


def test_one_name_for_all_costs_the_other_classes(backbone):
    method = ready(Bright, backbone)
    method.wrong = True
    measured = evaluate(method, squares(), groups=GROUPS)
    assert measured["ap50_new"] == 0 and measured["harmonic_mean"] == 0 and measured["recall_new"] == 100
    assert 0 < measured["per_class"]["red"] < 100  # right boxes, wrong names: two in three are false alarms


class Namer(Bright):
    """Takes green for blue as long as green is a name; its paper also reports new classes alone."""

    also_new_only = True

    def detect(self, batch: Batch) -> list[Detections]:
        found = super().detect(batch)
        for one in found:
            name = "green" if WORDS[int(one.labels)] == "blue" and "green" in self.classes else WORDS[int(one.labels)]
            known = name in self.classes
            one.boxes, one.scores = one.boxes[:known], one.scores[:known]
            one.labels = torch.tensor([self.classes.index(name)] if known else [], dtype=torch.long)
        return found


def test_new_classes_are_measured_alone_where_a_paper_does(backbone):
    method = ready(Namer, backbone)
    measured = evaluate(method, squares(), groups=GROUPS)
    assert measured["ap50_new"] == 0 and measured["ap50_new_only"] == measured["ap_new_only"] == pytest.approx(100)
    assert method.classes == WORDS  # it is left on the names that it had
    assert not any("only" in name for name in evaluate(method, squares()))  # without groups there is no new class
    assert not any("only" in name for name in evaluate(ready(Bright, backbone), squares(), groups=GROUPS))


def test_boxes_of_images_that_are_not_square_come_back_to_them(backbone):
    wide = np.full((24, 60, 3), 20, np.uint8)
    wide[6:18, 20:44, 1] = 250
    (found,) = ready(Bright, backbone).predict([wide], WORDS)
    torch.testing.assert_close(found.boxes, torch.tensor([[20.0, 6, 44, 18]]), atol=2.0, rtol=0)
    with pytest.raises(VlmlabError, match="comes twice"):
        ready(Bright, backbone).predict([wide], ["red", "red"])
    with pytest.raises(VlmlabError, match="no word"):
        ready(Bright, backbone).predict([wide], [" "])
    with pytest.raises(VlmlabError, match="uint8"):
        ready(Bright, backbone).predict([wide.astype(float)], WORDS)


def test_a_segmenter_gives_a_word_for_every_pixel_of_any_image(backbone):
    method = ready(Painter, backbone)
    method.head = nn.Conv2d(3, 3, 1)
    wide = np.zeros((20, 50, 3), np.uint8)
    (found,) = method.predict([wide], WORDS)
    assert found.shape == (20, 50) and found.dtype == torch.int64


@pytest.fixture(scope="module")
def task(backbone):
    tableau = load_dataset("tableau", size=32)
    few = {split: getattr(tableau, split).subset(range(12)) for split in ("train", "val", "test")}
    return Task(backbone, dataclasses.replace(tableau, **few), shots=0)


@pytest.mark.slow
def test_an_open_vocabulary_system_sees_base_boxes_and_pixels_alone(task):
    seen, new = task.seen_by("open-vocabulary"), set(task.new)
    assert 0 < len(new) < len(task.classes) and sorted([*new, *task.base]) == list(range(len(task.classes)))
    hidden = 0
    for images in (seen.train, seen.val):
        for i in range(len(images)):
            truth = images.truth(i)
            assert not new & set(truth.labels.tolist()) and not new & set(truth.semantic.unique().tolist())
            hidden += int((truth.semantic == UNLABELLED).any())
        assert (images.labels[:, sorted(new)] == -1).all()
    assert hidden and len(seen.train) == len(task.dataset.train)
    assert any(new & set(task.test.truth(i).labels.tolist()) for i in range(len(task.test)))
    with pytest.raises(VlmlabError, match="may not look at the support"):
        _ = seen.support


def test_a_weakly_supervised_system_sees_names_and_no_places(task):
    seen = task.seen_by("weakly supervised")
    assert torch.equal(seen.train.labels, task.dataset.train.labels)
    with pytest.raises(VlmlabError, match="no boxes or masks"):
        seen.train.truth(0)
    assert seen.val.truth(0).semantic is not None


def test_captions_speak_of_their_scene(task):
    said = [task.train.caption(i) for i in range(12)]
    assert said == [task.train.caption(i) for i in range(12)] and len(set(said)) > 6
    named = sum(
        any(task.classes[c] in text for c in task.train.labels[i].nonzero()[:, 0]) for i, text in enumerate(said)
    )
    assert named >= 6


def test_a_fit_of_a_segmenter_learns_from_granted_pixels(task, tmp_path):
    method = Painter(task.backbone)
    record = fit(method, task.seen_by("open-vocabulary"))
    assert record.losses[-1] < record.losses[0]
    assert UNLABELLED in method.seen and not set(task.new) & method.seen
    again, file = Painter(task.backbone), tmp_path / "run.pt"
    fit(again, task.seen_by("open-vocabulary"), should_stop=iter([False] * 5 + [True] * 9).__next__, checkpoint=file)
    fit(again, task.seen_by("open-vocabulary"), checkpoint=file)
    assert torch.equal(again.head.weight, method.head.weight)
