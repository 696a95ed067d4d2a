"""XPM: the doubtful mask head, masks in boxes, a teacher that stays what it was."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.methods.parity import same, same_gradient
from vlmlab.learning.fit import fit
from vlmlab.methods.detection.xpm import XPM, MaskHead, in_boxes, mask_loss, pasted
from vlmlab.randomness import LocalRandom
from vlmlab.studies.verify.xpm import mask_iou
from vlmlab.testing import toys

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "xpm.npz")
NAMES = {"conv5_mask": "up", "mask_fcn_logits": "mask", "uncertain_pred": "doubt"}


def golden(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name])


def test_noisy_masks_their_loss_and_gradients_are_the_release_s():
    """The release has a column for background that nothing reads; ours has the other one alone."""
    head = MaskHead(3, 6)
    with torch.no_grad():
        for theirs, ours in NAMES.items():
            for part in ("weight", "bias"):
                value = golden(f"weight/{theirs}.{part}")
                getattr(getattr(head, ours), part).copy_(value[1:] if theirs == "mask_fcn_logits" else value)
    features = golden("features").requires_grad_()
    logits, sigma = head.read(features, True)
    same(sigma, GOLDEN["sigma"])
    noisy = logits + golden("eps") * sigma
    same(noisy, GOLDEN["noisy"])
    loss = mask_loss(noisy, golden("target"))
    loss.backward()
    same(loss, GOLDEN["loss"])
    same_gradient(features.grad, GOLDEN["features_gradient"])
    for theirs, ours in NAMES.items():
        for part in ("weight", "bias"):
            expected = GOLDEN[f"gradient/{theirs}.{part}"]
            expected = expected[1:] if theirs == "mask_fcn_logits" else expected
            same_gradient(getattr(getattr(head, ours), part).grad, expected)


def test_doubt_that_does_not_learn_has_no_gradient_and_features_never_see_it():
    head, features = MaskHead(3, 4), torch.randn(2, 3, 7, 7)
    _, sigma = head(features)
    assert not sigma.requires_grad and torch.allclose(sigma, torch.tensor(0.5).exp(), atol=0.2)
    _, sigma = head(features, True)
    sigma.sum().backward()
    assert head.doubt.weight.grad is not None and head.up.weight.grad is None


def test_a_mask_goes_into_its_box_and_back():
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[0, 4:18, 6:20] = True
    masks[1, 10:20, 3:10] = True
    boxes = torch.tensor([[2.0, 2, 24, 22], [0, 8, 14, 22]])
    grids = in_boxes(masks, boxes)
    assert grids.shape == (2, 14, 14) and set(grids.unique().tolist()) == {0.0, 1.0}
    back = pasted(grids, boxes, 32)
    for own, found in zip(masks, back, strict=True):
        assert (own & found).sum() / (own | found).sum() > 0.8
    assert not pasted(torch.ones(1, 14, 14), torch.tensor([[4.0, 4, 8, 8]]), 16)[0, :4].any()


def _task():
    return toys.task_for("xpm").seen_by("open-vocabulary")


def test_the_student_learns_from_the_teacher_that_it_began_as(tmp_path):
    config = XPM.configure(toys.backbone(), epochs=2, student_epochs=4, batch_size=12)
    whole, stopped, resumed = (XPM(toys.backbone(), config) for _ in range(3))
    record = fit(whole, _task())
    assert record.steps == 6 and whole.taught.any()
    heads = torch.nn.utils.parameters_to_vector([*whole.student.parameters(), *whole.mask_head.parameters()])
    assert not torch.equal(heads, whole.taught)
    file = tmp_path / "run.pt"
    assert fit(stopped, _task(), should_stop=iter([False] * 4 + [True]).__next__, checkpoint=file).stopped
    assert fit(resumed, _task(), checkpoint=file).losses == record.losses
    assert torch.equal(resumed.pseudo.boxes, whole.pseudo.boxes)
    assert torch.equal(resumed.pseudo_masks, whole.pseudo_masks)


@pytest.mark.parametrize(("share", "learned"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_doubt_learns_in_the_first_steps_of_the_student(share, learned):
    config = XPM.configure(toys.backbone(), epochs=1, student_epochs=4, batch_size=12, noise_share=share)
    method, grads = XPM(toys.backbone(), config), []
    fit(method, _task(), lambda *_: grads.append(method.mask_head.doubt.weight.grad is not None))
    assert grads == [False] + [True] * learned + [False] * (4 - learned)


@pytest.mark.parametrize(
    ("settings", "names", "masks"),
    [
        ({}, 0.01, 1.0),  # names by 0.01 / mean sigma, masks fully
        ({"reweight": False}, 0.1, 0.1),  # everything that is pseudo by 0.1
        ({"noise": False}, 0.1, 0.1),
    ],
)
def test_pseudo_losses_weigh_what_the_release_gives_them(settings, names, masks, monkeypatch):
    official = {"reweight": True, "mask_weight": XPM.Config().mask_weight}
    method = XPM(toys.backbone(), XPM.configure(toys.backbone(), **{**official, **settings}))
    with LocalRandom(0):
        method.prepare(_task())
    index = torch.arange(4)
    method.doubts_until = 0
    monkeypatch.setattr("vlmlab.methods.detection.xpm.mask_loss", lambda *_: torch.tensor(1000.0))
    monkeypatch.setattr(XPM, "named_loss", lambda *_: torch.tensor(1.0))
    with torch.no_grad():
        method.mask_head.doubt.weight.zero_()
        method.mask_head.doubt.bias.zero_()  # sigma is 1
        assert method.pseudo_loss(method.regions.at(index), index).item() == pytest.approx(1000 * masks + names)


def test_spoilt_masks_are_a_share_and_detections_have_masks():
    config = XPM.configure(toys.backbone(), epochs=1, student_epochs=1, damage=1.0)
    method = XPM(toys.backbone(), config)
    masks = torch.zeros(3, 2, 14, 14)
    masks[..., :7] = 1
    assert torch.equal(method.spoilt(masks), masks.flip(-1))
    fit(method, _task())
    batch = toys.batch_of(method, _task().seen_by("open-vocabulary").train)
    for found in method.detect(batch):
        assert found.masks.shape == (len(found), 32, 32) and found.masks.dtype == torch.bool
        for box, mask in zip(found.boxes, found.masks, strict=True):
            rows, columns = mask.nonzero(as_tuple=True)
            if len(rows):
                assert columns.min() >= box[0] - 1 and rows.max() <= box[3] + 1
    task = toys.task_for("xpm")
    assert 0 < mask_iou(method, task, task.new) <= 100
