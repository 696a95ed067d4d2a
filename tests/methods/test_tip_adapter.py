import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import Pictures, task
from tests.methods.parity import same, same_gradient
from vlmlab.errors import VlmlabError
from vlmlab.methods.adapter.tip_adapter import TipAdapter, TipAdapterF
from vlmlab.methods.method import Batch
from vlmlab.methods.other.zero_shot import ZeroShot

TEMPLATES = ["a photo of a {}.", "itap of a {}.", "a bad photo of the {}."]
LABELS = torch.arange(8) % 5
SUPPORT = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
# The temperature, start and grid of the official run.
GRID = {"alpha_max": 3.0, "beta_max": 7.0, "alpha_steps": 5, "beta_steps": 20}
START = (pytest.approx(1.17), 1.0)
OFFICIAL = GRID | {"scale": 100.0, "alpha": 1.17, "beta": 1.0}


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


@pytest.fixture(scope="module")
def numbers():
    return golden("tip_adapter")


@pytest.fixture(scope="module")
def keys(backbone):
    """Mean over the two stored augmentation passes, then unit length."""
    passes = [
        torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).standard_normal((10, 3, 32, 32)).astype(np.float32))
        for seed in (101, 102)
    ]
    return F.normalize(torch.stack([backbone.encode_image(images) for images in passes]).mean(0), dim=-1)


def built(system, backbone, keys, **settings):
    method = system(backbone, system.configure(backbone, **(OFFICIAL | settings)))
    method.build(keys, torch.tensor(SUPPORT), CLASSES, TEMPLATES)
    return method


def chosen(method):
    return float(method.alpha), float(method.beta)


def batch(backbone):
    return Batch(features=backbone.encode_image(noise_images(32)), labels=LABELS)


def test_cache_and_logits_of_the_official_implementation(backbone, numbers, keys):
    method = built(TipAdapter, backbone, keys)
    same(method.keys, numbers["cache/keys"].T)
    same(method.values, numbers["cache/values"])
    same(method.classifier, numbers["classifier/clip_weights"].T)
    f = method.image_features(batch(backbone))
    same(f, numbers["test/features"])
    same(method.zero_shot(f), numbers["zeroshot/logits"])
    same(method.logits(batch(backbone)), numbers["tip/logits_alpha1.17_beta1"])


def test_search_of_the_official_implementation(backbone, numbers, keys):
    method = built(TipAdapter, backbone, keys)
    f = method.image_features(batch(backbone))
    alphas, betas, accuracy = method.grid(f, LABELS)
    np.testing.assert_allclose(alphas, numbers["tip/grid_alphas"])
    np.testing.assert_allclose(betas, numbers["tip/grid_betas"])
    logits = torch.stack([method.zero_shot(f) + a * method.vote(f, b) for b in betas for a in alphas])
    same(logits, numbers["tip/grid_logits_first100"])
    expected = (numbers["tip/grid_logits_first100"].argmax(-1) == LABELS.numpy()).mean(-1).reshape(20, 5)
    np.testing.assert_allclose(accuracy, expected, atol=1e-6)
    # The first strictly best pair, beta running slowest as in the official loops.
    b, a = divmod(int(expected.argmax()), 5)
    method.alpha, method.beta = torch.tensor(float(alphas[a])), torch.tensor(float(betas[b]))
    same(method.logits(batch(backbone)), numbers["tip/final_test_logits_after_search"])


def test_fine_tuning_step_of_the_official_implementation(backbone, numbers, keys):
    method = built(TipAdapterF, backbone, keys)
    same(method.keys, numbers["tipF/param/adapter.weight"])
    optimizer, _ = method.optimizer(steps=20)
    same(method.logits(batch(backbone)), numbers["tipF/out/train_logits"])
    loss = method.loss(batch(backbone))
    same(loss, numbers["tipF/out/loss"])
    loss.backward()
    same_gradient(method.keys.grad, numbers["tipF/grad/adapter.weight"])
    optimizer.step()
    same(method.keys, numbers["tipF/param_after_one_adamw_step"])
    same(method.logits(batch(backbone)), numbers["tipF/out/test_logits_after_step"])


def test_what_learns(backbone, keys):
    assert list(built(TipAdapter, backbone, keys).parameters()) == []
    method = built(TipAdapterF, backbone, keys)
    assert [name for name, _ in method.named_parameters()] == ["keys"]
    method.loss(batch(backbone)).backward()
    assert all(p.grad is None for p in backbone.parameters())


def test_kernel_is_a_gaussian_of_the_distance(backbone, keys):
    method = built(TipAdapter, backbone, keys)
    f = method.image_features(batch(backbone))
    gaussian = (-2.5 / 2 * torch.cdist(f, method.keys) ** 2).exp() @ method.values
    torch.testing.assert_close(method.vote(f, 2.5), gaussian, rtol=1e-3, atol=1e-4)


def test_no_vote_is_zero_shot_at_the_backbones_scale(backbone, keys):
    zero_shot = ZeroShot(backbone)
    zero_shot.prepare(task(CLASSES, TEMPLATES))
    method = built(TipAdapter, backbone, keys, scale=None, alpha=0.0)
    torch.testing.assert_close(method.logits(batch(backbone)), zero_shot.logits(batch(backbone)))


@pytest.mark.parametrize("system", [TipAdapter, TipAdapterF])
def test_prepare_caches_the_support_pictures(system, backbone):
    support = Pictures(SUPPORT)
    method = system(backbone, system.configure(backbone, passes=0))
    method.prepare(task(CLASSES, TEMPLATES, support=support))
    expected = F.normalize(backbone.encode_image(backbone.preprocess(support.images(slice(None)))), dim=-1)
    torch.testing.assert_close(method.keys.data, expected)
    assert chosen(method) == START  # no validation images, no search
    method = system(backbone, system.configure(backbone, passes=3))
    method.prepare(task(CLASSES, TEMPLATES, support=support))
    again = system(backbone, system.configure(backbone, passes=3))
    again.prepare(task(CLASSES, TEMPLATES, support=support))
    assert torch.equal(method.keys, again.keys) and not torch.allclose(method.keys, expected)
    torch.testing.assert_close(method.keys.norm(dim=-1), torch.ones(10))


def test_alpha_and_beta_come_from_validation_pictures_alone(backbone):
    support, val = Pictures(SUPPORT), Pictures(SUPPORT)  # the same images: a vote that is trusted is always right
    settings = {"passes": 0, "alpha_max": 50.0, "beta_max": 50.0, "beta_steps": 20}
    method = TipAdapter(backbone, TipAdapter.configure(backbone, **settings))
    method.prepare(task(CLASSES, TEMPLATES, support=support, val=val))
    features = backbone.encode_image(backbone.preprocess(val.images(slice(None))))
    found = float((method.logits(Batch(features=features)).argmax(-1) == val.labels).float().mean())
    _, _, accuracy = method.grid(F.normalize(features, dim=-1), val.labels)
    assert found == pytest.approx(float(accuracy.max())) == 1.0
    assert chosen(method) != START


def test_fine_tuning_trains_with_the_initial_values_and_searches_at_the_end(backbone):
    given = task(CLASSES, TEMPLATES, support=Pictures(SUPPORT), val=Pictures(SUPPORT))
    settings = {"passes": 0, "alpha_max": 50.0, "beta_max": 50.0, "beta_steps": 20}
    method = TipAdapterF(backbone, TipAdapterF.configure(backbone, **settings))
    tried = []
    method.grid = lambda *given: (tried.append(1), TipAdapterF.grid(method, *given))[1]
    method.prepare(given)
    assert chosen(method) == START and not tried  # the search would be of keys that still change
    method.finish(given)
    assert chosen(method) != START


def test_rate_falls_to_zero_in_a_cosine_per_step(backbone, keys):
    method = built(TipAdapterF, backbone, keys)
    optimizer, schedule = method.optimizer(steps=4)
    rates = []
    for _ in range(5):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, [0.001 / 2 * (1 + np.cos(np.pi * t / 4)) for t in range(5)], atol=1e-12)


def test_a_cache_stays_with_its_classes(backbone, keys):
    method = built(TipAdapter, backbone, keys)
    with pytest.raises(VlmlabError, match="cannot vote for other classes"):
        method.set_classes(CLASSES[:2], TEMPLATES)
    method.set_classes(CLASSES, TEMPLATES)


def test_without_pictures_there_is_no_cache(backbone):
    with pytest.raises(VlmlabError, match="at least one shot"):
        TipAdapter(backbone).prepare(task(CLASSES))


def test_official_defaults():
    config = TipAdapterF.Config()
    # configs/imagenet.yaml of the release
    assert (config.alpha, config.beta, config.passes, config.alpha_steps, config.beta_steps) == (1.17, 1.0, 10, 20, 200)
    assert (config.alpha_max, config.beta_max) == (3.0, 7.0)
    assert (config.lr, config.eps, config.weight_decay) == (0.001, 1e-4, 0.01)
    assert (config.epochs, config.batch_size) == (20, 256)
