"""LSeg: the release's maps, who is taught, and which words may be asked."""

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import golden
from tests.methods.parity import same, same_gradient
from vlmlab.datasets.truth import NOTHING, UNLABELLED
from vlmlab.learning.fit import fit
from vlmlab.methods.method import Batch
from vlmlab.methods.segmentation.lseg import NOT_COUNTED, LSeg, Pixels, renumbered
from vlmlab.testing import toys


@pytest.mark.parametrize(("block", "depth"), [("none", 1), ("bottleneck", 3), ("depthwise", 2)])
def test_maps_loss_and_gradients_are_those_of_the_release(block, depth):
    numbers = {name: torch.from_numpy(values) for name, values in golden("lseg").items()}
    net = Pixels(4, 8, block, depth)
    if net.block:
        net.block.depthwise.load_state_dict({"weight": numbers["in/kernel"], "bias": numbers["in/bias"]})
    features = numbers["in/features"].requires_grad_()
    maps = net.compared(features, numbers["in/texts"])
    maps = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True)
    same(maps, numbers[f"out/{block}"])
    loss = F.cross_entropy(maps, numbers["in/target"])
    same(loss, numbers[f"loss/{block}"])
    loss.backward()
    same_gradient(features.grad, numbers[f"grad/{block}/features"].numpy())
    if net.block:
        same_gradient(net.block.depthwise.weight.grad, numbers[f"grad/{block}/kernel"].numpy())


@pytest.mark.parametrize("activation", ["lrelu", "tanh"])
def test_other_activations_between_blocks_are_those_of_the_release(activation):
    numbers = {name: torch.from_numpy(values) for name, values in golden("lseg").items()}
    net = Pixels(4, 8, "bottleneck", 3, activation)
    net.block.depthwise.load_state_dict({"weight": numbers["in/kernel"], "bias": numbers["in/bias"]})
    features = numbers["in/features"].requires_grad_()
    maps = net.compared(features, numbers["in/texts"])
    maps = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True)
    same(maps, numbers[f"out/{activation}"])
    loss = F.cross_entropy(maps, numbers["in/target"])
    same(loss, numbers[f"loss/{activation}"])
    loss.backward()
    same_gradient(features.grad, numbers[f"grad/{activation}/features"].numpy())
    same_gradient(net.block.depthwise.weight.grad, numbers[f"grad/{activation}/kernel"].numpy())
    assert LSeg.Config().activation == "lrelu"  # as on the release's command line


@pytest.mark.parametrize("block", ["depthwise", "bottleneck"])
def test_the_order_of_the_words_changes_nothing_but_the_order(block):
    generator = torch.Generator().manual_seed(0)
    features, words = torch.randn(1, 8, 4, 4, generator=generator), torch.randn(5, 8, generator=generator)
    net = Pixels(4, 8, block, 2)
    order = torch.tensor([3, 1, 0, 4, 2])
    torch.testing.assert_close(net.compared(features, words[order]), net.compared(features, words)[:, order])


def test_only_granted_classes_count():
    masks = torch.tensor([[[4, 1], [NOTHING, UNLABELLED]], [[2, 0], [1, 4]]])
    assert renumbered(masks, [4, 2]).tolist() == [
        [[0, NOT_COUNTED], [NOT_COUNTED, NOT_COUNTED]],
        [[1, NOT_COUNTED], [NOT_COUNTED, 0]],
    ]


@pytest.fixture(scope="module")
def prepared():
    task = toys.task_for("lseg").seen_by("open-vocabulary")
    method = LSeg(toys.backbone(), LSeg.configure(toys.backbone(), block="depthwise"))
    fit(method, task, should_stop=lambda: True)
    return method, task


def test_kept_tokens_are_those_of_the_images(prepared):
    method, task = prepared
    images = method.framed([task.train.images(i) for i in (3, 5)])[0]
    batch = Batch(images=images, index=torch.tensor([3, 5]), masks=torch.zeros(2, 32, 32))
    torch.testing.assert_close(method.frozen.of(batch), method.read(images))
    other = Batch(images=images.flip(0), index=torch.tensor([3, 5]), masks=batch.masks)
    torch.testing.assert_close(method.frozen.of(other), method.read(images))  # by position: nothing is read again


def test_new_words_take_no_part_in_training(prepared):
    method, task = prepared
    assert torch.equal(method.taught_words, method.words[task.base])
    images = method.framed([task.train.images(i) for i in range(4)])[0]
    masks = torch.full((4, 32, 32), task.base[0])
    batch = Batch(images=images, index=torch.arange(4), masks=masks)
    before = method.loss(batch)
    method.words[task.new] += 1.0
    torch.testing.assert_close(method.loss(batch), before)
    method.loss(batch).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())
    method.set_classes(task.classes, task.templates)


def test_pixels_without_a_granted_class_teach_nothing(prepared):
    method, task = prepared
    images = method.framed([task.train.images(i) for i in range(2)])[0]
    masks = torch.full((2, 32, 32), task.new[0])
    masks[0] = NOTHING
    loss = method.loss(Batch(images=images, index=torch.arange(2), masks=masks))
    assert loss.item() == 0


def test_the_rate_falls_as_a_power():
    method = LSeg(toys.backbone(), LSeg.configure(toys.backbone(), lr=0.04))
    assert method.learning_rate(0, 10) == pytest.approx(0.04)
    assert method.learning_rate(5, 10) == pytest.approx(0.04 * 0.5**0.9)
    assert method.learning_rate(10, 10) == 0
