import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, noise_images, tiny_backbone
from tests.methods.fakes import Pictures, task
from tests.methods.parity import same
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.other.vt_clip import VTCLIP
from vlmlab.methods.other.zero_shot import ZeroShot

LABELS = torch.arange(8) % 5


@pytest.fixture(scope="module", params=["vit", "rn"])
def backbone(request):
    return tiny_backbone(request.param)


def prepared(backbone, support=None, **settings):
    method = VTCLIP(backbone, VTCLIP.configure(backbone, **settings))
    method.prepare(task(CLASSES, support=support))
    return method


def woken(backbone, **settings):
    """With an output matrix that is not zero."""
    method = prepared(backbone, **settings)
    noise = torch.Generator().manual_seed(1)
    method.attention["o"].weight.data = 0.1 * torch.randn(64, 64, generator=noise)
    return method


def images_for(backbone):
    return noise_images(backbone.image_size)


def test_it_starts_as_zero_shot_prediction(backbone):
    zero_shot = ZeroShot(backbone)
    zero_shot.prepare(task(CLASSES))
    batch = Batch(images=images_for(backbone))
    same(prepared(backbone).logits(batch), zero_shot.logits(batch).numpy())


def test_its_attention_is_pytorch_s(backbone):
    method = woken(backbone, heads=4)
    _, z = method.seen(images_for(backbone))
    found, weights = method.guided(z)
    own = torch.nn.MultiheadAttention(
        64, 4, bias=False, batch_first=True, kdim=z.shape[-1], vdim=z.shape[-1]
    ).requires_grad_(False)
    if own.in_proj_weight is None:
        own.q_proj_weight, own.k_proj_weight, own.v_proj_weight = (method.attention[p].weight for p in "qkv")
    else:
        own.in_proj_weight.copy_(torch.cat([method.attention[p].weight for p in "qkv"]))
    own.out_proj.weight.copy_(method.attention["o"].weight)
    z = F.layer_norm(z, z.shape[-1:])
    queries = F.layer_norm(method.classifier, (64,)).expand(len(z), -1, -1)
    expected, looked = own(queries, z, z, average_attn_weights=False)
    same(weights, looked.detach().numpy())
    same(found - method.classifier, expected.detach().numpy())
    same(weights.sum(-1), torch.ones(len(z), 4, 5).numpy())


def test_places_and_classes_may_come_in_any_order(backbone):
    method = woken(backbone)
    f, z = method.seen(images_for(backbone))
    before = method.scores(f, z).detach()
    same(method.scores(f, z[:, torch.randperm(z.shape[1], generator=torch.Generator().manual_seed(0))]), before.numpy())
    method.set_classes(CLASSES[::-1], ["a photo of a {}."])
    same(method.scores(f, z), before.flip(1).numpy())
    assert (method.scores(f, z.roll(1, 0)) - before.flip(1)).abs().max() > 1e-2  # places do matter


def test_kept_features_are_those_of_the_pictures_and_only_attention_learns(backbone):
    support = Pictures([0, 1, 2, 3], side=backbone.image_size)
    method = prepared(backbone, support)
    method.attention["o"].weight.data.normal_(generator=torch.Generator().manual_seed(2))
    images, labels, index = method.preprocess(support.images([2, 0])), torch.tensor([2, 0]), torch.tensor([2, 0])
    kept = method.loss(Batch(images=images, labels=labels, index=index))
    same(kept, method.loss(Batch(images=images, labels=labels)).detach().numpy())
    kept.backward()
    assert {name for name, _ in method.named_parameters()} == {f"attention.{part}.weight" for part in "qkvo"}
    assert all(p.grad.abs().max() > 0 for p in method.parameters())
    assert all(p.grad is None for p in backbone.parameters())


def test_new_classes_keep_the_attention(backbone):
    method = woken(backbone)
    before = {k: v.clone() for k, v in method.state_dict().items()}
    method.set_classes(["zebra", "violin"], ["a photo of a {}."])
    assert method.logits(Batch(images=images_for(backbone))).shape == (8, 2)
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items()) and len(before) == 4


def test_heads_must_share_the_width(backbone):
    with pytest.raises(VlmlabError, match="no multiple of 7 heads"):
        prepared(backbone, heads=7)
