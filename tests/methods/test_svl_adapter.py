import hashlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.golden.tiny_clip import CLASSES, noise_images, tiny_backbone
from tests.methods.fakes import Pictures, task
from tests.methods.parity import same
from vlmlab.errors import VlmlabError
from vlmlab.methods.adapter import svl_adapter
from vlmlab.methods.adapter.simclr import SmallEncoder, cropped, nt_xent, pretrain, random_views, recoloured
from vlmlab.methods.adapter.svl_adapter import SVLAdapter
from vlmlab.methods.method import Batch
from vlmlab.methods.other.zero_shot import ZeroShot

QUICK = {"encoder": "small", "side": 16, "extract": 32, "ssl_epochs": 1, "ssl_batch": 4}


class Unlabelled(Pictures):
    """Images that can be chosen from and named, as those of a Task can."""

    def fingerprint(self) -> str:
        return hashlib.sha256(self._pixels.tobytes()).hexdigest()

    def subset(self, indices):
        chosen = Unlabelled(self.labels[indices].tolist())
        chosen._pixels = self._pixels[indices.numpy()]
        return chosen

    def relabelled(self, labels):
        self.labels = labels
        return self


def made(support=(0, 1, 2, 3, 4), val=(), count=10, seed=0):
    """A task with `count` unlabelled images."""
    found = task(CLASSES, support=Pictures(list(support), seed=1), val=Pictures(list(val), seed=2), seed=seed)
    found.unlabelled = Unlabelled([0] * count, seed=5)
    return found


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


def prepared(backbone, given=None, **settings):
    method = SVLAdapter(backbone, SVLAdapter.configure(backbone, **(QUICK | settings)))
    method.prepare(given or made())
    return method


# --- SimCLR ----------------------------------------------------------------------------------------------------------


def test_the_loss_tells_a_partner_from_all_other_views():
    noise = torch.Generator().manual_seed(0)
    u, v = torch.randn(3, 7, generator=noise), torch.randn(3, 7, generator=noise)
    views = [x / x.norm() for x in (*u, *v)]
    total = 0.0
    for a in range(6):
        scores = [math.exp(float(views[a] @ views[c]) / 0.5) for c in range(6)]
        total -= math.log(scores[(a + 3) % 6] / sum(s for c, s in enumerate(scores) if c != a))
    assert float(nt_xent(u, v, 0.5)) == pytest.approx(total / 6, rel=1e-5)
    same(nt_xent(5 * u, v, 0.5), nt_xent(u, v, 0.5).numpy())


def test_views_are_parts_of_their_pictures():
    ramp = torch.linspace(0, 1, 32).expand(4, 3, 32, 32)  # from left to right
    torch.manual_seed(0)
    views = cropped(ramp, 16, (0.2, 1.0))
    assert views.shape == (4, 3, 16, 16) and views.min() >= 0 and views.max() <= 1
    steps = views[:, 0, 0, 1:] - views[:, 0, 0, :-1]
    width = 16 / 32 * steps.mean(1).abs() * 31  # share of the image that a view spans
    assert (width > 0.35).all() and (width <= 1.01).all()
    assert all((row > 0).all() or (row < 0).all() for row in steps)


def test_recolouring_keeps_shapes_and_sometimes_takes_all_colour():
    pixels = torch.rand(200, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    changed = recoloured(pixels, 0.5)
    assert changed.min() >= 0 and changed.max() <= 1
    grey = ((changed - changed.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-6).float().mean()
    kept = ((changed - pixels).abs().amax((1, 2, 3)) < 1e-6).float().mean()
    assert 0.1 < grey < 0.3 and 0.08 < kept < 0.25  # one in five; one in five of the others


def test_learning_lowers_the_loss_and_repeats_itself():
    stripes = torch.arange(16)
    pixels = torch.stack([(stripes * (k + 1) // 6 % 2 * torch.ones(3, 16, 1)).rot90(k % 4, (1, 2)) for k in range(16)])
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        encoder = SmallEncoder(32)
        losses = pretrain(encoder, pixels, 8, epochs=20, batch_size=16, lr=0.5, seed=1)
        assert not encoder.training and not any(p.requires_grad for p in encoder.parameters())
        found.append((losses, encoder(pixels)))
    assert len(losses) == 20 and sum(losses[-5:]) < sum(losses[:5]) - 0.5
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])


def test_the_caller_s_generator_does_not_move_and_one_picture_is_not_enough():
    pixels, encoder = torch.rand(4, 3, 16, 16), SmallEncoder(16)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pretrain(encoder, pixels, 8, epochs=1)
    assert torch.equal(torch.rand(3), expected)
    with pytest.raises(VlmlabError, match="at least two"):
        pretrain(SmallEncoder(16), pixels[:1], 8, epochs=1)


def test_two_views_differ():
    pixels = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert (random_views(pixels, 8) - random_views(pixels, 8)).abs().mean() > 0.01


# --- the adapter -----------------------------------------------------------------------------------------------------


def test_logits_mix_the_classifier_with_zero_shot(backbone):
    method, batch = prepared(backbone), Batch(images=noise_images(32))
    zero_shot = ZeroShot(backbone)
    zero_shot.prepare(task(CLASSES))
    method.alpha = torch.tensor(0.0)
    same(method.logits(batch), zero_shot.logits(batch).numpy())
    g, c = method.both(batch.images)
    by_hand = F.relu(g @ method.narrow.weight.T + method.narrow.bias) @ method.wide.weight.T + method.wide.bias
    method.alpha = torch.tensor(1.0)
    same(method.logits(batch), by_hand.detach().numpy())
    method.alpha = torch.tensor(0.3)
    same(method.logits(batch), (0.3 * by_hand + 0.7 * c).detach().numpy())


def test_the_encoder_sees_pixels_as_they_were(backbone):
    method = prepared(backbone)
    raw = Pictures([0, 1], seed=9)
    pixels = torch.as_tensor(raw.images([0, 1])).permute(0, 3, 1, 2).float() / 255
    same(method.pixels(method.preprocess(raw.images([0, 1]))), pixels.numpy())


def test_only_the_classifier_has_a_gradient_and_kept_features_are_those_of_the_pictures(backbone):
    given = made()
    method = prepared(backbone, given)
    assert method.learns_from(given) is given.support
    images, labels = method.preprocess(given.support.images([2, 0])), torch.tensor([2, 0])
    kept = method.loss(Batch(images=images, labels=labels, index=torch.tensor([2, 0])))
    same(kept, method.loss(Batch(images=images, labels=labels)).detach().numpy())
    crops = {"images": images.flip(0), "labels": labels}  # kept features are not theirs
    same(method.loss(Batch(**crops, index=torch.tensor([2, 0]), cropped=True)), method.loss(Batch(**crops)).detach())
    kept.backward()
    assert {name.split(".")[0] for name, _ in method.named_parameters()} == {"narrow", "wide"}
    assert all(p.grad.abs().max() > 0 for p in method.parameters())
    assert all(p.grad is None for p in (*backbone.parameters(), *method.encoder[0].parameters()))
    encoder = sum(p.numel() for p in method.encoder[0].parameters())
    assert method.trainable_parameters == encoder + 256 * 256 + 256 + 256 * 5 + 5


def test_one_encoder_serves_all_shots_and_settings_make_another(backbone, monkeypatch):
    monkeypatch.setattr(svl_adapter, "LEARNED", {})
    one, two = prepared(backbone), prepared(backbone, made(support=(0, 1), seed=4))
    assert one.encoder[0] is two.encoder[0]
    assert prepared(backbone, ssl_seed=1).encoder[0] is not one.encoder[0]
    assert prepared(backbone, made(count=9)).encoder[0] is not one.encoder[0]
    monkeypatch.setattr(svl_adapter, "LEARNED", {})
    again = prepared(backbone)
    assert again.encoder[0] is not one.encoder[0]
    batch = noise_images(32)
    assert torch.equal(again.both(batch)[0], one.both(batch)[0])  # the seed decides


def test_alpha_by_validation_is_the_first_best_of_the_grid(backbone):
    given = made(val=(0, 1, 2, 3, 4))
    method = prepared(backbone, given)
    g, c = method.encoded(given.val)
    with torch.no_grad():
        z = method.adapted(g)
    labels = z.argmax(-1)  # what the classifier says alone
    own = [float(((a * z + (1 - a) * c).argmax(-1) == labels).float().mean()) for a in (k / 20 for k in range(21))]
    assert method._search(g, c, labels) == pytest.approx(own.index(max(own)) / 20)
    assert method._search(g, c, c.argmax(-1)) == 0.0


@pytest.mark.parametrize("settings", [{"rule": "confidence"}, {"labels": "clip"}, {}])
def test_without_validation_labels_confidence_decides(backbone, settings):
    given = made(val=() if not settings else (0, 1))
    method = prepared(backbone, given, **settings)
    method.finish(given)
    p = method.encoded(given.unlabelled)[1].softmax(-1)
    assert float(method.alpha) == pytest.approx(1 - float(p.max(-1).values.mean()), rel=1e-5) and 0 < method.alpha < 1
    constant = prepared(backbone, given, rule="constant", alpha=0.35)
    constant.finish(given)
    assert float(constant.alpha) == pytest.approx(0.35)


def test_clip_can_give_the_labels(backbone):
    given = made(support=(), count=30)
    method = prepared(backbone, given, labels="clip", top=3)
    pictures = method.learns_from(given)
    p = method.encoded(given.unlabelled)[1].softmax(-1)
    confidence, label = p.max(-1)
    expected = set()
    for c in range(5):
        own = (label == c).nonzero()[:, 0]
        chosen = own[confidence[own].argsort(descending=True)[:3]] if len(own) else p[:, c].argmax()[None]
        expected |= {(int(i), c) for i in chosen}
    pixels = [given.unlabelled._pixels[i].tobytes() for i in range(30)]
    found = {(pixels.index(pictures._pixels[k].tobytes()), int(pictures.labels[k])) for k in range(len(pictures))}
    assert found == expected and set(pictures.labels.tolist()) == set(range(5))
    assert len(method.kept) == len(pictures)


def test_a_picture_that_is_lent_to_a_class_without_one_stands_for_no_other(backbone):
    """Never predicted: classes 2 and 4. Both would like image 0 best, which class 0 has, too."""
    method = prepared(backbone, labels="clip", top=4)
    p = torch.tensor(
        [[0.4, 0.1, 0.3, 0.0, 0.2], [0.9, 0.1, 0.0, 0.0, 0.0], [0.5, 0.2, 0.18, 0.0, 0.12], [0.1, 0.8, 0.0, 0.0, 0.1],
         [0.1, 0.1, 0.1, 0.65, 0.05], [0.6, 0.2, 0.1, 0.0, 0.1]]
    )  # fmt: skip
    method.encoded = lambda pictures: (torch.zeros(len(p), 1), p.log())
    given = Unlabelled([0] * 6, seed=5)
    found = method._labelled_by_clip(given)
    pixels = [given._pixels[i].tobytes() for i in range(6)]
    pairs = {(pixels.index(found._pixels[k].tobytes()), int(found.labels[k])) for k in range(len(found))}
    assert pairs == {(1, 0), (5, 0), (3, 1), (0, 2), (4, 3), (2, 4)} and len(found) == 6


def test_adam_at_a_constant_rate(backbone):
    optimizer, schedule = prepared(backbone).optimizer(5)
    assert type(optimizer) is torch.optim.Adam
    for _ in range(4):
        optimizer.step()
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.001 and optimizer.param_groups[0]["weight_decay"] == 0


def test_bad_input(backbone):
    with pytest.raises(VlmlabError, match="there are none"):
        prepared(backbone, made(count=0))
    with pytest.raises(VlmlabError, match="belongs to its classes"):
        prepared(backbone).set_classes(CLASSES[:2], ["a photo of a {}."])


def test_weights_that_cannot_be_fetched_are_one_line(backbone, monkeypatch):
    def offline(weights=None):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models.resnet50", offline)
    with pytest.raises(VlmlabError, match="set pretrained=false or encoder=small") as error:
        prepared(backbone, encoder="resnet50")
    assert "\n" not in str(error.value)
    monkeypatch.setattr("torchvision.models.resnet50", lambda weights=None: nn.Sequential())
    assert prepared(backbone, encoder="resnet50", pretrained=False, ssl_epochs=0).encoder[0].width == 2048
