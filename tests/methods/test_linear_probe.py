import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tests.golden.tiny_clip import CLASSES, tiny_backbone
from tests.methods.fakes import Pictures, task
from tests.methods.parity import same
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.other.linear_probe import LinearProbe, solve


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


def prepared(backbone, classes=CLASSES, val=None, **settings):
    method = LinearProbe(backbone, LinearProbe.configure(backbone, **settings))
    labels = [c for c in range(len(classes)) for _ in range(3)]
    method.prepare(task(classes, support=Pictures(labels, seed=1), val=val))
    return method, labels


def test_it_fits_its_own_pictures_when_nothing_holds_it_back(backbone):
    method, labels = prepared(backbone, c=1e6)
    logits = method.logits(
        Batch(features=backbone.encode_image(method.preprocess(Pictures(labels, seed=1).images(range(15)))))
    )
    assert logits.argmax(1).tolist() == labels
    assert method.trainable_parameters == 5 * 64 + 5 and not list(method.parameters())


def test_the_solution_is_a_minimum_of_the_penalised_loss():
    h, y = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 4
    weight, bias = (x.double().requires_grad_() for x in solve(h, y, 4, 0.5))
    loss = torch.nn.functional.cross_entropy(h.double() @ weight.T + bias, y, reduction="sum") + weight.square().sum()
    loss.backward()
    assert weight.grad.abs().max() < 5e-2 and bias.grad.abs().max() < 5e-2


def test_two_classes_and_classes_without_a_picture():
    h = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    weight, bias = solve(h, torch.arange(8) % 2, 3, 1.0)
    logits = h @ weight.T + bias
    assert logits.shape == (8, 3) and (logits.argmax(1) != 2).all()
    same(weight[0], -weight[1])


def test_the_search_reads_validation_pictures_only_when_c_is_open(backbone):
    val = Pictures([0, 1, 2, 3, 4], seed=2)
    searched, _ = prepared(backbone, val=val, rounds=2)
    fixed, _ = prepared(backbone, val=val, c=0.1)
    blind, _ = prepared(backbone)
    assert fixed.c == 0.1 and blind.c == 0.316 and 1e-8 < searched.c < 1e8


@pytest.mark.parametrize("seed", [0, 1])
def test_the_search_is_that_of_lpclip(backbone, seed):
    """Step by step as in CoOp's lpclip/linear_probe.py, with scikit-learn alone, on noise around five means."""
    noise = torch.Generator().manual_seed(seed)
    means, y, y_val = torch.randn(5, 8, generator=noise), torch.arange(15) % 5, torch.arange(20) % 5
    h, h_val = (means[z] + 1.5 * torch.randn(len(z), 8, generator=noise) for z in (y, y_val))

    def right(c):
        fitted = LogisticRegression(C=c, max_iter=1000).fit(h.numpy(), y.numpy())
        return (fitted.predict(h_val.numpy()) == y_val.numpy()).sum()

    coarse = [1e6, 1e4, 1e2, 1, 1e-2, 1e-4, 1e-6]
    peak = coarse[int(np.argmax([right(c) for c in coarse]))]
    left, high = 0.1 * peak, 10 * peak
    for _ in range(8):
        middle = (left * high) ** 0.5
        if right(left) < right(high):
            best, left = high, middle
        else:
            best, high = left, middle
    method = LinearProbe(backbone)
    method.learned_on = CLASSES
    assert method._search(h, y, h_val, y_val) == pytest.approx(best, rel=1e-4)


def test_one_class_alone_always_wins():
    weight, bias = solve(torch.randn(4, 3), torch.full((4,), 1), 3, 1.0)
    assert weight.shape == (3, 3) and (torch.randn(5, 3) @ weight.T + bias).argmax(1).tolist() == [1] * 5


def test_words_do_not_help_it(backbone):
    method, _ = prepared(backbone)
    with pytest.raises(VlmlabError, match="no text"):
        method.set_classes(CLASSES[:3], ["{}"])
    with pytest.raises(VlmlabError, match="at least one shot"):
        LinearProbe(backbone).prepare(task(CLASSES))
