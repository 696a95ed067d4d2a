import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, noise_images, tiny_backbone
from tests.methods.fakes import task
from vlmlab.methods.method import Batch
from vlmlab.methods.text_prompt.coop import CoOp
from vlmlab.methods.text_prompt.proda import ProDA, bound

LABELS = torch.arange(8) % 5


def same(found, expected, **tolerance):
    torch.testing.assert_close(found.detach(), expected.detach(), **({"rtol": 1e-4, "atol": 5e-5} | tolerance))


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


def prepared(backbone, **settings):
    method = ProDA(backbone, ProDA.configure(backbone, **({"n_ctx": 4, "n_prompts": 8} | settings)))
    method.prepare(task(CLASSES))
    return method


def batch(backbone):
    return Batch(features=backbone.encode_image(noise_images(32)), labels=LABELS)


@pytest.fixture
def samples():
    """Unit features f [4, 6], samples w [5, 3, 6] around class means, labels, and S of (2) [6, 3, 3] (per dimension)."""
    noise = torch.Generator().manual_seed(0)
    f = F.normalize(torch.randn(4, 6, generator=noise), dim=-1)
    w = torch.randn(3, 6, generator=noise) + 0.5 * torch.randn(5, 3, 6, generator=noise)
    centred = w - w.mean(0)
    covariance = torch.stack([centred[:, :, d].T @ centred[:, :, d] / 6 for d in range(6)])
    return f, w, torch.tensor([0, 2, 1, 2]), covariance


def test_the_bound_lies_above_the_expected_loss_under_the_gaussian(samples):
    f, w, labels, covariance = samples
    noise = torch.Generator().manual_seed(1)
    # One Gaussian over the C classes in every dimension of the joint space, independent of the others.
    root = torch.linalg.cholesky(covariance + 1e-9 * torch.eye(3))  # [6, 3, 3]
    drawn = w.mean(0) + (root @ torch.randn(20000, 6, 3, 1, generator=noise))[..., 0].transpose(1, 2)  # [n, 3, 6]
    for scale in (0.5, 2.0, 5.0):
        logits = scale * torch.einsum("be,nce->nbc", f, drawn)
        expected = F.cross_entropy(logits.flatten(0, 1), labels.repeat(20000), reduction="none").view(-1, 4)
        upper = F.cross_entropy(bound(f, w, labels, scale), labels, reduction="none")
        error = 3 * expected.std(0) / 20000**0.5
        assert (upper > expected.mean(0) - error).all()
        at_the_mean = F.cross_entropy(scale * f @ w.mean(0).T, labels, reduction="none")
        assert (upper > at_the_mean).all()
    # It is tight where there is little variance.
    close = w.mean(0) + 0.01 * (w - w.mean(0))
    same(bound(f, close, labels, 1.0), f @ w.mean(0).T, rtol=0, atol=1e-3)


def test_the_variance_is_that_of_the_difference_of_two_scores(samples):
    f, w, labels, covariance = samples
    scores = bound(f, w, labels, 2.0) - 2.0 * f @ w.mean(0).T  # scale^2 / 2 v
    for b in range(4):
        for j in range(3):
            e = torch.zeros(3)
            e[j] += 1
            e[labels[b]] -= 1  # w_j - w_y
            v = sum(f[b, d] ** 2 * (e @ covariance[d] @ e) for d in range(6))
            assert float(scores[b, j]) == pytest.approx(float(2 * v), rel=1e-4, abs=1e-6)
    assert torch.allclose(scores[torch.arange(4), labels], torch.zeros(4), atol=1e-6)


@pytest.mark.parametrize(("k", "position"), [(0, "front"), (2, "middle"), (5, "end")])
def test_every_prompt_is_coops_with_the_name_at_its_place(k, position, backbone):
    method = prepared(backbone)
    coop = CoOp(backbone, CoOp.configure(backbone, n_ctx=4, position=position))
    coop.prepare(task(CLASSES))
    coop.context.data = method.context.data[k].clone()
    same(method.weights(torch.tensor([6, k]))[1], F.normalize(coop.class_features(), dim=-1))


def test_prediction_is_the_mean_of_the_unit_weights(backbone):
    method, given = prepared(backbone), batch(backbone)
    each = torch.stack([method.weights(torch.tensor([k]))[0] for k in range(8)])
    expected = backbone.logit_scale * method.image_features(given) @ each.mean(0).T
    with torch.no_grad():
        same(method.logits(given), expected)
        same(method.logits(given), expected)  # now from what was kept
    method.loss(given).backward()
    method.context.data += torch.randn_like(method.context)
    with torch.no_grad():
        assert not torch.allclose(method.logits(given), expected, rtol=1e-3)


def test_one_prompt_has_no_variance_and_is_coop(backbone):
    method, given = prepared(backbone, n_prompts=1), batch(backbone)
    coop = CoOp(backbone, CoOp.configure(backbone, n_ctx=4))
    coop.prepare(task(CLASSES))
    coop.context.data = method.context.data[0].clone()
    method.loss(given).backward()
    coop.loss(given).backward()
    same(method.loss(given), coop.loss(given))
    same(method.context.grad[0], coop.context.grad)


def test_a_step_reaches_the_prompts_that_it_looks_at_and_nothing_else(backbone):
    method = prepared(backbone, prompts_at_once=3)
    assert [name for name, _ in method.named_parameters()] == ["context"]
    method.loss(batch(backbone)).backward()
    reached = method.context.grad.flatten(1).abs().sum(1) > 0
    assert int(reached.sum()) == 3
    assert all(p.grad is None for p in backbone.parameters())


def test_likeness_is_the_mean_cosine_between_prompts_without_a_name(backbone):
    method = prepared(backbone)
    chosen = torch.tensor([1, 6, 4])
    text = backbone.text
    tokens = text.tokenize(["X X X X."])
    sentences = text.embed(tokens).repeat(3, 1, 1).clone()
    sentences[:, 1:5] = method.context[chosen]
    p = F.normalize(text.forward(sentences, text.end_of_text(tokens).expand(3)), dim=-1)
    expected = (p[0] @ p[1]).abs() + (p[0] @ p[2]).abs() + (p[1] @ p[2]).abs()
    same(method.likeness(chosen), expected / 3)
    method.context.data[6] = method.context.data[1]
    assert method.likeness(torch.tensor([1, 6])).item() == pytest.approx(1.0, abs=1e-5)


def test_other_classes_keep_what_was_learned(backbone):
    method, given = prepared(backbone), batch(backbone)
    with torch.no_grad():
        before = method.logits(given)
        learned = method.context.clone()
        method.set_classes(CLASSES[2:4], ["a photo of a {}."])
        assert torch.equal(method.context, learned)
        same(method.logits(given), before[:, 2:4])


def test_official_sizes():
    config = ProDA.Config()
    assert (config.n_prompts, config.n_ctx, config.prompts_at_once, config.orthogonality) == (32, 16, 4, 0.1)
