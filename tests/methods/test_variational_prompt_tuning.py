"""VPT (variational): its equations on a tiny CLIP."""

import math

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import learned, of_variant, same, same_gradients
from vlmlab.methods.method import Batch
from vlmlab.methods.text_prompt.coop import CoOp
from vlmlab.methods.text_prompt.variational_prompt_tuning import VariationalPromptTuning, divergence

LABELS = torch.arange(8) % 5


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("asym")


@pytest.fixture(scope="module")
def batch(backbone):
    return Batch(features=backbone.encode_image(noise_images(32)), labels=LABELS)


def prepared(backbone, **settings):
    settings = {"samples": 3} | settings
    method = VariationalPromptTuning(backbone, VariationalPromptTuning.configure(backbone, **settings))
    method.prepare(task(CLASSES))
    return method


def test_the_divergence_is_torch_s_averaged_over_dimensions():
    mu, log_variance = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mu, (log_variance / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    )
    same(divergence(mu, log_variance), expected.mean(-1))
    assert divergence(torch.zeros(1, 6), torch.zeros(1, 6)) == 0


@pytest.mark.parametrize("conditional", [True, False])
def test_a_prediction_averages_probabilities_of_coops_with_shifted_contexts(backbone, batch, conditional):
    method = prepared(backbone, conditional=conditional)
    coop = CoOp(backbone, CoOp.configure(backbone, init="a photo of a"))
    coop.prepare(task(CLASSES))
    f = F.normalize(batch.features, dim=-1)
    mu, log_variance = method.posterior(f)
    found = method.logits(batch)
    for b in range(3):
        own = b if conditional else 0
        p = torch.zeros(len(CLASSES))
        for eps in method.noise:
            shift = mu[own] + log_variance[own].exp().sqrt() * eps  # one vector for all context vectors
            coop.context.data = (method.context + shift).detach()
            p += coop.logits(Batch(features=batch.features[b : b + 1]))[0].softmax(-1).detach() / 3
        same(found[b], p.log())
    same(found.exp().sum(-1), torch.ones(8))


def test_the_loss_is_the_logarithm_of_the_mean_plus_the_divergence(backbone, batch):
    method = prepared(backbone, weight=0.5)
    f = F.normalize(batch.features, dim=-1)
    torch.manual_seed(5)
    loss = method.loss(batch)
    torch.manual_seed(5)
    eps = torch.randn(8, 3, backbone.text.width)
    p = method.sample_logits(f, eps).softmax(-1)  # [B, L, C]
    fitted = p[torch.arange(8), :, LABELS].mean(1).log()
    same(loss, (0.5 * divergence(*method.posterior(f)).mean() - fitted.mean()).detach())
    assert -fitted.mean() < -p[torch.arange(8), :, LABELS].log().mean()  # and not the mean of logarithms


def test_pictures_do_not_share_their_training_noise(backbone, batch):
    method = prepared(backbone)
    twice = Batch(features=batch.features[:1].repeat(2, 1), labels=LABELS[:1].repeat(2))
    torch.manual_seed(0)
    eps = torch.randn(2, 3, backbone.text.width)
    f = F.normalize(twice.features, dim=-1)
    rows = method.log_probabilities(f, eps)
    assert (rows[0] - rows[1]).abs().max() > 1e-3
    torch.manual_seed(0)
    expected = F.nll_loss(rows, twice.labels) + 0.001 * divergence(*method.posterior(f)).mean()
    same(method.loss(twice), expected.detach())


def test_predictions_depend_on_the_seed_alone(backbone, batch):
    method = prepared(backbone)
    with torch.no_grad():
        whole = method.logits(batch)
        torch.manual_seed(99)
        same(method.logits(batch), whole)
        same(torch.cat([method.logits(Batch(features=x[None])) for x in batch.features]), whole)
    other = VariationalPromptTuning(backbone, method.config)
    other.prepare(task(CLASSES, seed=1))
    assert not torch.equal(other.noise, method.noise)


def test_one_picture_at_a_time_gives_the_gradients_of_the_batch(backbone, batch):
    method = prepared(backbone)
    f = F.normalize(batch.features, dim=-1)
    eps = torch.randn(8, 3, backbone.text.width, generator=torch.Generator().manual_seed(1))
    F.nll_loss(method.log_probabilities(f, eps), LABELS).backward()
    together = [p.grad.clone() for p in method.parameters()]
    method.zero_grad()
    for b in range(8):
        (F.nll_loss(method.log_probabilities(f[b : b + 1], eps[b : b + 1]), LABELS[b : b + 1]) / 8).backward()
    for one, other in zip(together, (p.grad for p in method.parameters()), strict=True):
        assert (one - other).abs().max() <= 1e-3 * other.abs().max()


def test_a_point_without_shift_is_coop(backbone, batch):
    method = prepared(backbone, conditional=False)
    method.log_variance.data.fill_(-100.0)
    coop = CoOp(backbone, CoOp.configure(backbone, init="a photo of a"))
    coop.prepare(task(CLASSES))
    same(method.logits(batch), coop.logits(batch).log_softmax(-1).detach())


@pytest.mark.parametrize("conditional", [True, False])
def test_what_learns_has_the_published_size_and_nothing_else_does(backbone, batch, conditional):
    method = prepared(backbone, conditional=conditional)
    e, d = backbone.embed_dim, backbone.text.width
    mlp = e * (e // 2) + e // 2 + (e // 2) ** 2 + e // 2 + (e // 2) * d + d
    assert method.trainable_parameters == 4 * d + (2 * mlp if conditional else 2 * d)
    method.loss(batch).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())
    assert all(p.grad is None for p in backbone.parameters())
    if not conditional:  # as released: starts at a zero mean, with log variances between 0 and 1
        fresh = prepared(backbone, conditional=False)
        assert not fresh.mean.any() and 0 <= fresh.log_variance.min() and fresh.log_variance.max() <= 1


def test_new_classes_keep_what_was_learned(backbone, batch):
    method = prepared(backbone)
    kept = {name: value.clone() for name, value in method.state_dict().items()}
    method.set_classes(CLASSES[:3], ["a photo of a {}."])
    assert method.logits(batch).shape == (8, 3)
    assert all(torch.equal(value, kept[name]) for name, value in method.state_dict().items())
    assert math.isclose(method.logits(batch).exp().sum().item(), 8, rel_tol=1e-4)


@pytest.mark.parametrize(
    "variant", ["asym_unconditional", "asym_conditional", "vit_unconditional_5", "vit_conditional_5"]
)
def test_numbers_of_the_official_implementation(variant, monkeypatch):
    """The release takes one image at a time in the conditional form, and shares the noise of a batch in the other."""
    numbers, conditional = of_variant(golden("variational_prompt_tuning"), variant), "un" not in variant
    eps = torch.from_numpy(numbers["in/eps"])  # [L, 1, d]
    settings = {"init": "", "n_ctx": 5} if variant.endswith("5") else {}
    own = tiny_backbone(variant.split("_")[0])
    config = VariationalPromptTuning.configure(own, samples=len(eps), conditional=conditional, **settings)
    method = VariationalPromptTuning(own, config)
    method.prepare(task(golden("variational_prompt_tuning")["class_names"].tolist()))
    names = {"prompt_learner.ctx": method.context}
    if conditional:
        for kind, network in (("weight_mean", method.mean), ("weight_log_variance", method.log_variance)):
            names |= {f"prompt_learner.meta_net.{kind}.module.{n}": p for n, p in network.named_parameters()}
    else:
        names |= {"prompt_learner.mean_posterior": method.mean, "prompt_learner.std_posterior": method.log_variance}
    for name, parameter in names.items():
        assert parameter.shape == learned(numbers)[name].shape
        parameter.data = learned(numbers)[name]
    method.noise = eps[:, 0]
    count = len(numbers["out/logits"])
    batch = Batch(features=own.encode_image(noise_images(32))[:count], labels=LABELS[:count])
    same(method.logits(batch), numbers["out/logits"])
    monkeypatch.setattr(torch, "randn", lambda *shape: eps.transpose(0, 1).reshape(shape))
    loss = method.loss(batch)
    same(loss, numbers["out/loss"])
    loss.backward()
    same_gradients({name: parameter.grad for name, parameter in names.items()}, numbers)
