"""The exercises of chapter 6.1c ask for what the package does."""

import torch

from vlmlab.book.exercises import beyond_one_label as own
from vlmlab.datasets.captions import noun_filter
from vlmlab.methods.text_prompt.dualcoop import asymmetric_loss
from vlmlab.methods.text_prompt.tai_dp import ranking_loss


def test_the_losses_are_those_of_the_package():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 2, 5, generator=generator)
    y = torch.randint(-1, 2, (4, 5), generator=generator)
    p = logits.softmax(1)[:, 1]
    torch.testing.assert_close(own.asymmetric(p, y, 1.0, 2.0, 0.05), asymmetric_loss(logits[:, 0], logits[:, 1], y))
    there = y.clamp(min=0)
    torch.testing.assert_close(own.ranking(p, there), ranking_loss(p, there))


def test_the_noun_filter_reads_the_same_labels():
    classes = ["cat", "truck", "ice cream truck", "tree"]
    sentences = ["two cats under a tree", "An ice cream truck", "a truck behind an ice cream truck"]
    expected = noun_filter(sentences, classes).labels.tolist()
    assert [own.label_of(sentence, classes) for sentence in sentences] == expected
