import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, tiny_backbone
from tests.methods.fakes import Pictures, task
from tests.methods.parity import same
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.other.lp_plus_plus import LPPlusPlus, step_sizes

LABELS = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


def prepared(backbone, val=None, **settings):
    method = LPPlusPlus(backbone, LPPlusPlus.configure(backbone, **settings))
    given = task(CLASSES, support=Pictures(LABELS), val=val)
    method.prepare(given)
    return method, F.normalize(method.encode(given.support), dim=-1), given


def run(method, f, steps, labels=None):
    """What `fit` does with all images in one batch."""
    labels = torch.tensor(LABELS) if labels is None else labels
    optimizer, schedule = method.optimizer(steps)
    for _ in range(steps):
        optimizer.zero_grad()
        method.loss(Batch(features=f, labels=labels)).backward()
        method.before_step()
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("epochs", [9, 10, 60, 300])
def test_numbers_of_the_official_implementation(epochs, backbone, monkeypatch):
    """Step sizes, start, losses and the accuracy of the chosen step: FereshteShakeri/FewShot-CLIP-Strong-Baseline
    (commit f81054f), with a bias that begins at zero."""
    numbers = {key: torch.from_numpy(value) for key, value in golden("lp_plus_plus").items() if key != "source"}
    given = task(CLASSES, support=Pictures(numbers["labels"].tolist()), val=Pictures(numbers["val_labels"].tolist()))
    monkeypatch.setattr(backbone, "class_embeddings", lambda *_: numbers["text"])
    method = LPPlusPlus(backbone)
    method.encode = lambda pictures: numbers["features" if pictures is given.support else "val"]
    method.prepare(given)
    same(torch.tensor([method.lr_w, method.lr_alpha]), torch.stack([numbers["lr_w"], numbers["lr_alpha"]]).numpy())
    same(method.alpha, numbers["alpha"].expand(5).numpy())
    losses, own = [], method.loss
    method.loss = lambda batch: (losses.append(own(batch)), losses[-1])[1]
    run(method, numbers["features"], epochs, numbers["labels"])
    same(torch.stack(losses), numbers[f"losses_{epochs}"].numpy())
    method.finish(given)
    right = method.scores(numbers["test"]).argmax(-1) == numbers["test_labels"]
    assert 100 * float(right.float().mean()) == pytest.approx(float(numbers[f"test_accuracy_{epochs}"]))


def test_it_starts_at_sums_of_pictures_and_at_the_mean_cosine_of_their_names(backbone):
    method, f, _ = prepared(backbone)
    same(method.weight[1], f[1] + f[6])
    assert not method.bias.any()
    text = method.text
    own = torch.stack([(f[c] @ text[c] + f[c + 5] @ text[c]) / 2 for c in range(5)])
    same(method.alpha, (250 * own.mean()).expand(5))
    batch = Batch(features=3 * f)  # lengths do not matter
    same(method.logits(batch), (f @ method.weight.T + method.alpha * (f @ text.T)).detach().numpy())


def test_a_class_without_a_picture_has_no_say_in_the_start(backbone):
    method = LPPlusPlus(backbone)
    method.prepare(task(CLASSES, support=Pictures([0, 1, 2, 3])))
    f = F.normalize(method.encode(Pictures([0, 1, 2, 3])), dim=-1)
    own = torch.stack([f[c] @ method.text[c] for c in range(4)])
    same(method.alpha, (250 * own.mean()).expand(5))


def test_step_sizes_follow_from_the_features():
    f = F.normalize(torch.randn(12, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    text = F.normalize(torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), dim=-1)
    lr_w, lr_alpha = step_sizes(f, text)
    assert lr_w == pytest.approx(4 * 12 / float(torch.linalg.eigvalsh(f.T @ f).max()), rel=1e-5)
    assert lr_alpha == pytest.approx(12 / (4 * float((f @ text.T).square().sum(0).max())), rel=1e-5)


def test_alpha_moves_in_every_tenth_step_by_the_sum_of_its_gradients(backbone):
    method, f, _ = prepared(backbone)
    # The same by hand, as the release writes it.
    w, b, alpha = (x.detach().clone() for x in (method.weight, method.bias, method.alpha))
    momentum_w, momentum_b, total = torch.zeros_like(w), torch.zeros_like(b), torch.zeros_like(alpha)
    for step in range(1, 21):
        parts = [x.clone().requires_grad_(True) for x in (w, b, alpha)]
        loss = F.cross_entropy(f @ parts[0].T + parts[1] + parts[2] * (f @ method.text.T), torch.tensor(LABELS))
        gw, gb, ga = torch.autograd.grad(loss, parts)
        momentum_w, momentum_b, total = 0.9 * momentum_w + gw, 0.9 * momentum_b + gb, total + ga
        w, b = w - method.lr_w * momentum_w, b - method.lr_w * momentum_b
        if step % 10 == 0:
            alpha = alpha - method.lr_alpha * total
    start = method.alpha.detach().clone()
    run(method, f, 9)
    assert torch.equal(method.alpha, start)
    method, f, _ = prepared(backbone)
    run(method, f, 20)
    assert (method.alpha - start).abs().min() > 0
    same(method.weight, w.numpy())
    same(method.bias, b.numpy())
    same(method.alpha, alpha.numpy())


def test_the_best_step_on_validation_pictures_is_kept(backbone):
    val = Pictures([0, 1, 2, 3, 4], seed=3)
    method, f, given = prepared(backbone, val)
    g = F.normalize(method.encode(val), dim=-1)
    # Labels that training moves away from: the truth of the start.
    with torch.no_grad():
        truth = method.scores(g).argmax(-1)
    method.val = (g, truth)
    run(method, f, 40, torch.tensor(LABELS).roll(1))
    with torch.no_grad():
        last = (method.scores(g).argmax(-1) == truth).sum()
        method.finish(given)
        kept = (method.scores(g).argmax(-1) == truth).sum()
    assert kept == method.best_right and kept > last


def test_it_learns_and_leaves_the_backbone_alone(backbone):
    method, f, given = prepared(backbone)
    before = float(method.loss(Batch(features=f, labels=torch.tensor(LABELS))).detach())
    run(method, f, 100)
    method.finish(given)
    assert float(method.loss(Batch(features=f, labels=torch.tensor(LABELS))).detach()) < before / 2
    assert method.trainable_parameters == 5 * 64 + 2 * 5
    assert all(p.grad is None for p in backbone.parameters())


def test_bad_input(backbone):
    method = LPPlusPlus(backbone)
    with pytest.raises(VlmlabError, match="at least one shot"):
        method.prepare(task(CLASSES))
    method, _, _ = prepared(backbone)
    with pytest.raises(VlmlabError, match="belong to their classes"):
        method.set_classes(CLASSES[:2], ["a photo of a {}."])
