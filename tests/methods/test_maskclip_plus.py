"""MaskCLIP+: which pixels the teacher labels, with which words, and until when."""

import torch

from vlmlab.datasets.truth import NOTHING, UNLABELLED
from vlmlab.learning.fit import fit
from vlmlab.methods.segmentation.maskclip_plus import MaskCLIPPlus, pseudo_labelled
from vlmlab.testing import toys


def test_the_teacher_speaks_of_unlabelled_pixels_in_unlabelled_words_alone():
    masks = torch.tensor([[[0, UNLABELLED], [NOTHING, UNLABELLED]]])
    guide = torch.zeros(1, 4, 2, 2)
    guide[0, 0] = 9  # the best of all, and a seen class
    guide[0, 2, 0, 1], guide[0, 3, 1, 1] = 1, 1
    found = pseudo_labelled(masks, guide, [2, 3])
    assert found.tolist() == [[[0, 2], [NOTHING, 3]]]
    assert pseudo_labelled(masks, guide, []).tolist() == [[[0, NOTHING], [NOTHING, NOTHING]]]


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
