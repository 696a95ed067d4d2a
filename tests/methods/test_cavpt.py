import math

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import Pictures, task
from tests.methods.parity import learned, of_variant, same, same_gradients
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.text_visual_prompt.cavpt import CAVPT, auxiliary_loss

LABELS = torch.arange(8) % 5


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("asym")


def prepared(backbone, classes=CLASSES, support=None, **settings):
    method = CAVPT(backbone, CAVPT.configure(backbone, **({"n_visual": 3, "candidates": 2} | settings)))
    method.prepare(task(classes, support=support))
    return method


def given():
    return Batch(images=noise_images(32), labels=LABELS)


def official(method) -> dict:
    """Our tensors by the names of the release; its extra keys are one tensor for all makers."""
    made = {"meta_nets": "lift", "lns": "norm_1", "lns2": "norm_2", "classfiers": "classify"}
    made |= {"attns.{}.qmlp": "query", "attns.{}.kmlp": "key", "attns.{}.vmlp": "out"}
    extractor = "image_encoder.transformer.extractor"
    found = {"prompt_learner.ctx": [method.context]}
    if len(method.visual):
        found["image_encoder.transformer.ctx_learner.ctx"] = [method.visual]
    for i, maker in enumerate(method.makers):
        for theirs, ours in made.items():
            theirs = theirs.format(i) if "{}" in theirs else f"{theirs}.{i}"
            for name, tensor in getattr(maker, ours).named_parameters():
                found[f"{extractor}.{theirs}.{name}"] = [tensor]
    return found | {f"{extractor}.ctx": [maker.extra for maker in method.makers]}


@pytest.mark.parametrize(
    ("variant", "epoch", "settings"),
    [
        ("asym_apart", 0, {"n_ctx": 4, "n_visual": 3, "candidates": 3}),
        ("asym_joined_two_blocks", 40, {"n_ctx": 4, "n_visual": 3, "candidates": 2, "last": 2, "alpha": 1.0}),
        ("vit_apart", 29, {}),
        ("vit_every_block", 30, {"n_ctx": 4, "candidates": 3, "last": 4}),
    ],
)
def test_numbers_of_the_official_implementation(variant, epoch, settings):
    """Logits, loss and gradients of fanrena/DPT (commit 11fef90) in one of 60 epochs, of which 30 are apart."""
    numbers, backbone = of_variant(golden("dpt"), variant), tiny_backbone(variant.split("_")[0])
    method = CAVPT(backbone, CAVPT.configure(backbone, **settings))
    method.prepare(task(CLASSES))
    values = learned(numbers)
    for name, tensors in official(method).items():
        value = values[name] if name.endswith("extractor.ctx") else values[name][None]
        for tensor, own in zip(tensors, value, strict=True):
            tensor.data = own.clone()
    method.optimizer(60 * 10)
    method.step.fill_(epoch * 10)
    same(method.logits(given()), numbers["out/logits"])
    loss = method.loss(given())
    same(loss, numbers["out/loss"])
    loss.backward()
    grads = {
        name: torch.stack([t.grad for t in tensors]) if name.endswith("extractor.ctx") else tensors[0].grad
        for name, tensors in official(method).items()
    }
    same_gradients(grads, numbers)


def test_all_that_is_learned_gets_a_gradient_and_nothing_else(backbone):
    method = prepared(backbone, candidates=5)
    method.loss(given()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())
    assert all(p.grad is None for p in backbone.parameters())
    d, width, e, classes = 192, 128, 32, 5
    maker = (e * width + width) + 2 * 32 * width + width * width + 4 * width + 10 * width + width * classes
    assert method.trainable_parameters == 16 * d + 2 * 3 * width + maker
    plain = prepared(backbone, class_aware=False)
    assert plain.trainable_parameters == 16 * d + 3 * 3 * width


def test_the_forward_pass_step_by_step(backbone):
    method, images = prepared(backbone), noise_images(32)
    tower, maker = backbone.model.visual, method.makers[0]
    f0 = F.normalize(backbone.encode_image(images), dim=-1)
    texts = F.normalize(backbone.encode_text([f"a photo of a {name}." for name in CLASSES]), dim=-1)
    candidates = (backbone.logit_scale * f0 @ texts.T).sort(descending=True).indices[:, :2]
    assert torch.equal(method.candidates(f0), candidates)
    g = method.class_features()
    x, _ = backbone.image._tokens(images)
    for block, prompts in zip(tower.transformer.resblocks[:2], method.visual, strict=True):
        x = block(torch.cat([x, prompts.expand(8, -1, -1)], 1))[:, :-3]
    q = g[candidates] @ maker.lift.weight.T + maker.lift.bias
    keys = torch.cat([x, maker.extra.expand(8, -1, -1)], 1)
    scores = (q @ maker.query.weight.T) @ (keys @ maker.key.weight.T).transpose(1, 2) / math.sqrt(32)
    o = scores.softmax(-1) @ keys @ maker.out.weight.T
    x = tower.transformer.resblocks[2](torch.cat([x, F.layer_norm(o + q, (128,))], 1))
    f = F.normalize(tower.ln_post(x[:, 0]) @ tower.proj, dim=-1)
    expected = backbone.logit_scale * f @ F.normalize(g, dim=-1).T
    torch.testing.assert_close(method.logits(Batch(images=images)), expected, atol=1e-4, rtol=1e-4)
    *_, auxiliary = method.both_towers(images, f0)
    torch.testing.assert_close(auxiliary[0], F.layer_norm(o, (128,)) @ maker.classify.weight.T, atol=1e-4, rtol=1e-4)


def test_every_block_may_have_class_aware_prompts(backbone):
    """The release's BOTTOMLIMIT 1. The first block's prompts look at the tokens behind the first norm."""
    method, images = prepared(backbone, last=3), noise_images(32)
    assert not len(method.visual) and len(method.makers) == 3
    f0 = F.normalize(backbone.encode_image(images), dim=-1)
    g = method.class_features()
    chosen, tower = g[method.candidates(f0)], backbone.model.visual
    x, _ = backbone.image._tokens(images, behind_norm=True)
    for block, maker in zip(tower.transformer.resblocks, method.makers, strict=True):
        x = block(torch.cat([x, maker(x, chosen)[0]], 1))[:, :17]
    f = F.normalize(tower.ln_post(x[:, 0]) @ tower.proj, dim=-1)
    expected = backbone.logit_scale * f @ F.normalize(g, dim=-1).T
    torch.testing.assert_close(method.logits(Batch(images=images)), expected, atol=1e-4, rtol=1e-4)
    assert len(method.both_towers(images, f0)[-1]) == 3


def test_no_gradient_flows_through_the_tokens_that_the_prompts_look_at(backbone):
    maker = prepared(backbone).makers[0]
    tokens, chosen = torch.randn(2, 17, 128, requires_grad=True), torch.randn(2, 2, 32, requires_grad=True)
    made, scores = maker(tokens, chosen)
    (made.square().sum() + scores.sum()).backward()
    assert tokens.grad is None and chosen.grad.abs().max() > 0


def test_the_loss_before_and_after_the_towers_join(backbone):
    method = prepared(backbone, alpha=0.0)
    method.optimizer(100)
    images, s = noise_images(32), backbone.logit_scale
    f0 = F.normalize(backbone.encode_image(images), dim=-1)
    f, w, *_ = method.both_towers(images, f0)
    both = F.cross_entropy(s * f @ w.T, LABELS)
    apart = F.cross_entropy(s * f0 @ w.T, LABELS) + F.cross_entropy(s * f @ method.written.T, LABELS) + 0.1 * both
    torch.testing.assert_close(method.loss(given()), apart)
    method.step += 50
    torch.testing.assert_close(method.loss(given()), both)


def test_only_prompts_of_the_right_class_are_classified():
    scores = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    candidates, labels = torch.tensor([[1, 4], [0, 2], [3, 0]]), torch.tensor([4, 3, 3])
    expected = F.cross_entropy(torch.stack([scores[0, 1], scores[2, 0]]), torch.tensor([4, 3]))
    torch.testing.assert_close(auxiliary_loss([scores], candidates, labels), expected)
    twice = auxiliary_loss([scores, 2 * scores], candidates, labels)
    other = F.cross_entropy(2 * torch.stack([scores[0, 1], scores[2, 0]]), torch.tensor([4, 3]))
    torch.testing.assert_close(twice, (expected + other) / 2)
    assert auxiliary_loss([scores], candidates, torch.tensor([0, 1, 1])) == 0  # the release leaves it out, too
    assert auxiliary_loss([], candidates, labels) == 0


def test_kept_features_are_those_of_the_pictures(backbone):
    support = Pictures([0, 1, 2, 3])
    method = prepared(backbone, support=support)
    images = method.preprocess(support.images([2, 0]))
    kept = method.loss(Batch(images=images, labels=torch.tensor([2, 0]), index=torch.tensor([2, 0])))
    torch.testing.assert_close(kept, method.loss(Batch(images=images, labels=torch.tensor([2, 0]))))


def test_two_rates_with_warm_ups_of_their_own(backbone):
    method = prepared(backbone)
    optimizer, schedule = method.optimizer(600)  # ten steps an epoch
    seen = []
    for _ in range(600):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert seen[99] == pytest.approx([1e-5, 0.001 * (1 + math.cos(math.pi * 8 / 60))])
    assert seen[100][0] == pytest.approx(0.01) and seen[10][1] == pytest.approx(0.002) and seen[9][1] == 1e-5
    assert [len(group["params"]) for group in optimizer.param_groups][1] == 1


def test_what_was_learned_moves_to_new_classes(backbone):
    method = prepared(backbone, CLASSES[:3])
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.set_classes(CLASSES[3:], ["a photo of a {}."])
    assert method.logits(Batch(images=noise_images(32))).shape == (8, 2)
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


def test_what_it_cannot_do_is_said_in_one_line(backbone):
    with pytest.raises(VlmlabError, match="the visual prompts of CAVPT need a ViT: use micro-vit"):
        CAVPT(tiny_backbone("rn"))
    with pytest.raises(VlmlabError, match="CAVPT asks for prompts in 4 blocks"):
        CAVPT(backbone, CAVPT.Config(last=4))
