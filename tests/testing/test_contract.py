"""The contract is kept by toy systems that detect and segment, and broken by those that do what it forbids."""

import pytest
import torch

from tests.learning.test_dense import Bright, Painter
from vlmlab.methods.dense.detections import Detections
from vlmlab.testing import cases, checks


class Patient(Painter):
    """As it paints, it must also be asked for other words: one weight per colour and name, made from the name."""

    def prepare(self, task):
        torch.nn.Module.register_parameter(self, "weight", torch.nn.Parameter(torch.eye(3)))
        self.set_classes(task.classes, task.templates)

    def set_classes(self, classes, templates):
        super().set_classes(classes, templates)
        self.names = self.backbone.class_embeddings(list(classes), ["{}"])[:, :3]  # [C, 3]

    def logits(self, batch):
        return torch.einsum("cd,de,behw->bchw", self.names, self.weight, batch.images)


class Caller(Bright):
    """Boxes as Bright's; the name is that whose embedding is nearest to the colour."""

    def set_classes(self, classes, templates):
        super().set_classes(classes, templates)
        self.names = self.backbone.class_embeddings(list(classes), ["{}"])[:, :3]  # [C, 3]

    def detect(self, batch):
        found = []
        for image, one in zip(batch.images, super().detect(batch), strict=True):
            x0, y0, x1, y1 = one.boxes[0].long().tolist()
            sure, label = (self.names @ image[:, y0:y1, x0:x1].mean((1, 2))).softmax(0).max(0)
            found.append(Detections(one.boxes, sure[None], label[None]))
        return found


class Rambling(Caller):
    def detect(self, batch):
        return [Detections(one.boxes, one.scores, one.labels + 99) for one in super().detect(batch)]


@pytest.mark.parametrize(("check", "system"), cases(Caller, Patient), ids=str)
def test_toys_that_detect_and_segment_keep_it(check, system):
    check(system)


def test_a_label_without_a_class_breaks_it():
    (named,) = [check for check in checks(Rambling) if "detections lie" in str(check)]
    with pytest.raises(AssertionError):
        named(Rambling)
