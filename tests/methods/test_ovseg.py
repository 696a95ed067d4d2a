"""OVSeg against its official numbers: prompted tower, loss, crops, maps; what is mined and what learns."""

import math

import pytest
import torch

from tests.golden.tiny_clip import CLASSES, golden, tiny_backbone
from tests.methods.parity import same, same_gradient
from vlmlab.errors import VlmlabError
from vlmlab.learning.fit import fit
from vlmlab.methods.method import Batch
from vlmlab.methods.segmentation.ovseg import OVSeg, pair_loss, prompted_features
from vlmlab.testing import toys


@pytest.fixture(scope="module")
def numbers():
    return {name: torch.from_numpy(array) for name, array in golden("ovseg").items()}


def test_the_prompted_tower_and_its_loss_are_the_release_s(numbers):
    prompts = numbers["in/prompts"].clone().requires_grad_()
    tower = tiny_backbone("vit").image
    features = prompted_features(tower, numbers["in/crops"], numbers["in/masks"], prompts)
    same(features, numbers["out/features"].numpy())
    loss = pair_loss(torch.nn.functional.normalize(features, dim=-1), numbers["in/words"], 20.0)
    same(loss, numbers["out/loss"].numpy())
    loss.backward()
    same_gradient(prompts.grad, numbers["grad/prompts"].numpy())
    assert all(p.grad is None for p in tower.visual.parameters())


def test_crops_with_their_masks_and_maps_are_those_of_the_release(numbers):
    backbone = tiny_backbone("vit")
    backbone.model.logit_scale.data.fill_(math.log(100))
    method = OVSeg(backbone, OVSeg.Config())
    assert method.config.lr == 2e-4  # as the release trains its segmenter on a ResNet-101
    method.set_classes(CLASSES, ["{}"])
    method.words, method.mask_prompts = numbers["in/unit"], numbers["in/prompts"]
    image = backbone.preprocess(numbers["in/image"].permute(1, 2, 0))
    masks = numbers["in/logits"] > 0
    valid = masks.flatten(1).any(1)
    _, shown = method.cut(image.expand(int(valid.sum()), -1, -1, -1), masks[valid])
    assert torch.equal(shown.bool(), numbers["out/region_masks"])
    method.propose = lambda images: (numbers["in/logits"][None], None)
    method.names = lambda z, words: numbers["in/names"][None]
    with torch.no_grad():
        same(method.logits(Batch(images=image))[0, :, ::2, ::2], numbers["out/semseg"].numpy())


def test_prompts_leave_whole_images_alone():
    backbone = toys.backbone()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    prompts = torch.randn(3, 16, backbone.image.width)
    whole = prompted_features(backbone.image, images, torch.ones(2, 32, 32), prompts)
    torch.testing.assert_close(whole, backbone.encode_image(images), rtol=1e-4, atol=1e-4)
    corner = torch.zeros(2, 32, 32)
    corner[:, 0, 0] = 1  # one pixel makes its patch count
    assert not torch.allclose(prompted_features(backbone.image, images, corner, prompts), whole, atol=1e-2)


@pytest.fixture(scope="module")
def run():
    config = OVSeg.configure(toys.backbone(), epochs=2, batch_size=4, warmup_epochs=0, prompt_steps=6, mined=8)
    method, task = OVSeg(toys.backbone(), config), toys.task_for("ovseg").seen_by("open-vocabulary")
    fit(method, task)
    return method, task


def test_pairs_are_a_noun_of_the_caption_and_a_proposal(run):
    method, task = run
    crops, shown, nouns = method.pairs(task)
    said = [c for i in range(8) for c in method.nouns(task.train.caption(i))]
    assert len(crops) == len(shown) == len(nouns) > 0 and set(nouns.tolist()) <= set(said)
    assert set(nouns.tolist()) & set(method.unseen)  # a caption says what no mask shows
    assert method.nouns("nothing that is known") == []


def test_a_batch_shows_a_noun_once(run):
    method, _ = run
    nouns = torch.tensor([0, 0, 1, 1, 1, 2])
    drawn = [method.distinct(nouns) for _ in range(20)]
    assert all(sorted(nouns[d].tolist()) == [0, 1, 2] for d in drawn) and len({tuple(d.tolist()) for d in drawn}) > 3


def test_the_prompts_learn_after_the_segmenter_and_the_tower_does_not(run):
    method, task = run
    before = {name: value.clone() for name, value in method.named_parameters()}
    start = method.mask_prompts.clone()
    method.finish(task)
    assert not torch.equal(start, method.mask_prompts)
    assert all(torch.equal(before[name], value) for name, value in method.named_parameters())
    assert all(p.grad is None for p in method.backbone.parameters())


def test_images_without_captions_are_refused():
    task = toys.task_for("ovseg").seen_by("open-vocabulary")
    task._train = task._train.subset(slice(None))
    task._train._caption = None
    with pytest.raises(VlmlabError, match="captions"):
        OVSeg(toys.backbone()).prepare(task)
