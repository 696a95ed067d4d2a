import pytest
import torch

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import of_variant, same, same_gradient
from vlmlab.datasets.splits import partially_known
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.text_prompt.dualcoop import DualCoOp, asymmetric_loss

SETTINGS = {
    "shared_64": ({}, 64, 8),
    "csc_64": ({"csc": True}, 64, 8),
    "init_words_64": ({"init_pos": "a photo of a", "init_neg": "there is no"}, 64, 8),
    "shared_96_interpolated": ({}, 96, 2),
}


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("rn")


def targets(count=8):
    return torch.from_numpy(golden("dualcoop")["in/targets"][:count])


def prepared(backbone, **settings):
    method = DualCoOp(backbone, DualCoOp.configure(backbone, **({"n_pos": 4, "n_neg": 3} | settings)))
    method.prepare(task(CLASSES))
    return method


@pytest.mark.parametrize("variant", SETTINGS)
def test_numbers_of_the_official_implementation(variant, backbone):
    settings, side, count = SETTINGS[variant]
    numbers = of_variant(golden("dualcoop"), variant)
    method = prepared(backbone, **settings)
    if "init" in variant:
        same(method.positive, numbers["param/prompt_learner.ctx_pos"])
    method.positive.data = torch.from_numpy(numbers["param/prompt_learner.ctx_pos"])
    method.negative.data = torch.from_numpy(numbers["param/prompt_learner.ctx_neg"])
    images = noise_images(side, count)
    regions = torch.from_numpy(numbers["mid/region_features"]).transpose(1, 2)
    same(method.regions(images), torch.nn.functional.normalize(regions, dim=-1))
    absent, there = method.both(method.regions(images))
    same(torch.stack([absent, there], 1), numbers["out/logits"])
    loss = method.loss(Batch(images=images, labels=targets(count)))
    same(loss, numbers["out/loss_weighted_0.03"])
    loss.backward()
    same_gradient(method.positive.grad, numbers["grad/prompt_learner.ctx_pos"])
    same_gradient(method.negative.grad, numbers["grad/prompt_learner.ctx_neg"])


def test_the_asymmetric_loss_is_the_official_one_and_ignores_what_is_unknown():
    numbers = of_variant(golden("dualcoop"), "asl_partial")
    logits = torch.from_numpy(numbers["in/logits"]).requires_grad_()
    loss = asymmetric_loss(logits[:, 0], logits[:, 1], targets())
    same(loss, numbers["out/loss"])
    loss.backward()
    same_gradient(logits.grad, numbers["grad/logits"])
    assert logits.grad.transpose(1, 2)[targets() == -1].abs().max() == 0


def test_new_classes_keep_shared_contexts_only(backbone):
    method = prepared(backbone)
    method.set_classes(CLASSES[:2], ["{}"])
    assert method.logits(Batch(images=noise_images(64))).shape == (8, 2)
    with pytest.raises(VlmlabError, match="csc=false"):
        prepared(backbone, csc=True).set_classes(CLASSES[:2], ["{}"])


def test_a_share_of_the_labels_is_hidden_whatever_they_are():
    labels = (torch.arange(4000).reshape(400, 10) % 3 == 0).long()
    known = partially_known(labels, 0.3, seed=1)
    assert (known != -1).float().mean() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(known[known != -1], labels[known != -1])
    assert torch.equal(partially_known(labels, 1.0, 1), labels) and (partially_known(labels, 0.0, 1) == -1).all()
    assert not torch.equal(known, partially_known(labels, 0.3, seed=2))


def test_on_a_vit_the_class_token_takes_the_place_of_the_mean():
    backbone = tiny_backbone("vit")
    method = prepared(backbone)
    regions = method.regions(noise_images(32))
    assert regions.shape == (8, 17, 64)
    same(regions[:, 0], torch.nn.functional.normalize(backbone.encode_image(noise_images(32)), dim=-1))
