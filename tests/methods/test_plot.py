import pytest
import torch

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import Pictures, task
from tests.methods.parity import of_variant, same, same_gradient
from vlmlab.methods.method import Batch
from vlmlab.methods.text_prompt.plot import PLOT

LABELS = torch.arange(8) % 5
SETTINGS = {
    "n4_end": {},
    "n4_end_imagenet_sum": {"with_global": True},
    "n3_eps0.05": {"n_prompts": 3, "eps": 0.05},
}


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("rn")


def prepared(backbone, support=None, **settings):
    method = PLOT(backbone, PLOT.configure(backbone, **({"n_ctx": 4} | settings)))
    method.prepare(task(CLASSES, support=support))
    return method


@pytest.mark.parametrize("variant", SETTINGS)
def test_numbers_of_the_official_implementation(variant, backbone):
    numbers = of_variant(golden("plot"), variant)
    method = prepared(backbone, **SETTINGS[variant])
    method.context.data = torch.from_numpy(numbers["param/prompt_learner.ctx"])
    f, z = method.seen(noise_images(64))
    tokens = torch.nn.functional.normalize(torch.from_numpy(numbers["mid/eval_image_encoder"]), dim=-1)  # [1 + P, B, e]
    same(f, tokens[0])
    same(z.transpose(0, 1), tokens[1:])
    same(method.prompt_features().flatten(0, 1), numbers["mid/eval_text_encoder"])
    prompts = torch.nn.functional.normalize(method.prompt_features(), dim=-1)
    similarity = torch.einsum("bpe,nce->bcpn", z, prompts)
    same(method.plan(similarity).flatten(0, 1), numbers["mid/sinkhorn_T"])
    batch = Batch(images=noise_images(64), labels=LABELS)
    same(method.logits(batch), numbers["out/eval_logits"])
    loss = method.loss(batch)
    same(loss, numbers["out/loss"])
    loss.backward()
    same_gradient(method.context.grad, numbers["grad/prompt_learner.ctx"])


def test_the_plan_shares_places_out_equally(backbone):
    method = prepared(backbone, tolerance=0.0, iterations=500)
    similarity = torch.rand(3, 5, 6, 4, generator=torch.Generator().manual_seed(0))
    plan = method.plan(similarity)
    same(plan.sum(-1), torch.full((3, 5, 6), 1 / 6))
    same(plan.sum(-2), torch.full((3, 5, 4), 1 / 4))
    assert (plan > 0).all()
    greedy = prepared(backbone, eps=0.03, tolerance=0.0, iterations=1000).plan(similarity)
    assert (greedy * similarity).sum((-2, -1)).mean() > (plan * similarity).sum((-2, -1)).mean()


def test_kept_local_features_are_those_of_the_pictures(backbone):
    support = Pictures([0, 1, 2, 3], side=64)
    method = prepared(backbone, support)
    images = method.preprocess(support.images([2, 0]))
    kept = method.loss(Batch(images=images, labels=torch.tensor([2, 0]), index=torch.tensor([2, 0])))
    anew = method.loss(Batch(images=images, labels=torch.tensor([2, 0])))
    same(kept, anew.detach())
    kept.backward()
    assert method.context.grad.abs().max() > 0 and method.trainable_parameters == 4 * 4 * 64
    assert all(p.grad is None for p in backbone.parameters())
