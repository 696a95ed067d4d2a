"""MaskCLIP+: which pixels the teacher labels, with which words, and until when."""

import torch

from vlmlab.datasets.truth import NOTHING, UNLABELLED
from vlmlab.methods.segmentation.maskclip_plus import pseudo_labelled


def test_the_teacher_speaks_of_unlabelled_pixels_in_unlabelled_words_alone():
    masks = torch.tensor([[[0, UNLABELLED], [NOTHING, UNLABELLED]]])
    guide = torch.zeros(1, 4, 2, 2)
    guide[0, 0] = 9  # the best of all, and a seen class
    guide[0, 2, 0, 1], guide[0, 3, 1, 1] = 1, 1
    found = pseudo_labelled(masks, guide, [2, 3])
    assert found.tolist() == [[[0, 2], [NOTHING, 3]]]
    assert pseudo_labelled(masks, guide, []).tolist() == [[[0, NOTHING], [NOTHING, NOTHING]]]
