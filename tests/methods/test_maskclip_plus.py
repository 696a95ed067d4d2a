"""MaskCLIP+: which pixels the teacher labels, with which words, and until when."""

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import golden
from tests.methods.parity import same, same_gradient
from vlmlab.datasets.truth import NOTHING, UNLABELLED
from vlmlab.learning.fit import fit
from vlmlab.methods.segmentation.maskclip_plus import MaskCLIPPlus, compared, pseudo_labelled
from vlmlab.testing import toys


def test_the_teacher_speaks_of_unlabelled_pixels_in_unlabelled_words_alone():
    masks = torch.tensor([[[0, UNLABELLED], [NOTHING, UNLABELLED]]])
    guide = torch.zeros(1, 4, 2, 2)
    guide[0, 0] = 9  # the best of all, and a seen class
    guide[0, 2, 0, 1], guide[0, 3, 1, 1] = 1, 1
    found = pseudo_labelled(masks, guide, [2, 3])
    assert found.tolist() == [[[0, 2], [NOTHING, 3]]]
    assert pseudo_labelled(masks, guide, []).tolist() == [[[0, NOTHING], [NOTHING, NOTHING]]]


@pytest.mark.parametrize(("name", "scale"), [("plain", None), ("unit", 1.0)])
def test_scores_pseudo_labels_and_gradients_are_those_of_the_release(name, scale):
    numbers = {key: torch.from_numpy(values) for key, values in golden("maskclip_plus").items()}
    words, unlabelled, masks = numbers["in/words"], numbers["in/unlabelled"].tolist(), numbers["in/masks"]
    features = numbers["in/features"].requires_grad_()
    scores = compared(features, words, scale)
    same(scores, numbers[f"out/{name}/scores"])
    masks = masks.masked_fill(masks == -1, UNLABELLED).masked_fill(masks == 255, NOTHING)
    large = F.interpolate(scores, masks.shape[-2:], mode="bilinear")
    own = pseudo_labelled(masks, large.detach(), unlabelled)
    assert torch.equal(own.masked_fill(own == NOTHING, 255), numbers[f"out/{name}/own"])
    teacher = F.interpolate(compared(numbers["in/teacher"], words, 1.0), masks.shape[-2:], mode="bilinear")
    guided = pseudo_labelled(masks, teacher, unlabelled)
    assert torch.equal(guided.masked_fill(guided == NOTHING, 255), numbers["out/guided"])
    loss = F.cross_entropy(large, guided if name == "plain" else own, ignore_index=NOTHING)
    share = (masks != NOTHING).float().mean()  # the release divides by all pixels
    same(share * loss, numbers[f"out/{name}/loss"])
    (share * loss).backward()
    same_gradient(features.grad, numbers[f"grad/{name}/features"].numpy())


def test_the_defaults_are_the_release_s_and_their_rate_falls_as_a_power():
    method = MaskCLIPPlus(toys.backbone(), MaskCLIPPlus.Config())
    method.done = torch.zeros((), dtype=torch.long)
    assert method.config.scale is None and method.config.guided == 0.1
    assert method.learning_rate(0, 10) == pytest.approx(0.01)
    assert method.learning_rate(5, 10) == pytest.approx(1e-4 + (0.01 - 1e-4) * 0.5**0.9)
    assert method.learning_rate(10, 10) == pytest.approx(1e-4)
    embedded = MaskCLIPPlus(toys.backbone(), MaskCLIPPlus.configure(toys.backbone(), warmup_epochs=0))
    embedded.done = method.done
    assert embedded.learning_rate(5, 10) == pytest.approx(0.0015)


def test_a_resumed_run_knows_whose_labels_it_learns_from(tmp_path):
    config = MaskCLIPPlus.configure(
        toys.backbone(), epochs=4, warmup_epochs=0, batch_size=4, guided=0.5, labels="teacher"
    )
    task = toys.task_for("maskclip_plus").seen_by("open-vocabulary")
    whole, stopped, resumed = (MaskCLIPPlus(toys.backbone(), config) for _ in range(3))
    record = fit(whole, task)
    two_thirds = 2 * record.steps // 3  # the teacher has handed over at the half
    first = fit(stopped, task, should_stop=iter([False] * two_thirds + [True]).__next__, checkpoint=tmp_path / "run.pt")
    assert first.stopped
    assert fit(resumed, task, checkpoint=tmp_path / "run.pt").losses == record.losses
