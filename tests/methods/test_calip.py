import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import Pictures, task
from tests.methods.parity import of_variant, same
from vlmlab.methods.method import Batch
from vlmlab.methods.other.calip import CALIP
from vlmlab.methods.other.zero_shot import ZeroShot

TEMPLATES = ["itap of a {}.", "a bad photo of the {}.", "a photo of a {}."]


def prepared(backbone, val=None, **settings):
    method = CALIP(backbone, CALIP.configure(backbone, **settings))
    method.prepare(task(CLASSES, TEMPLATES, val=val))
    return method


@pytest.mark.parametrize(("tower", "side"), [("vit", 32), ("rn", 64)])
def test_numbers_of_the_official_implementation(tower, side):
    numbers, backbone = of_variant(golden("calip"), tower), tiny_backbone(tower)
    method = prepared(backbone)
    same(method.classifier.T, numbers["mid/text_classifier"])
    method.backbone.model.logit_scale.data = torch.tensor(100.0).log()  # the release writes 100
    own, by_text, by_picture = method.opinions(noise_images(side))
    scale = abs(numbers["out/logits1_text_attended"]).max()
    assert scale > 1
    same(own, numbers["out/logits_zeroshot"])
    same(by_text, numbers["out/logits1_text_attended"])
    same(by_picture, numbers["out/logits2_visual_attended"])
    method.beta2 = torch.tensor(0.001)
    for i in (0, 57, 199):
        method.beta3 = torch.tensor(float(numbers["beta3_grid_first200"][i]))
        same(method.logits(Batch(images=noise_images(side))), numbers["out/combined_grid_first400"][i])


def test_without_the_two_opinions_it_is_zero_shot():
    backbone = tiny_backbone("vit")
    zero_shot = ZeroShot(backbone)
    zero_shot.prepare(task(CLASSES, TEMPLATES))
    batch = Batch(images=noise_images(32))
    same(prepared(backbone, beta2=0.0, beta3=0.0).logits(batch), zero_shot.logits(batch))
    assert prepared(backbone).trainable_parameters == 0


def test_the_search_finds_the_best_pair_of_a_plain_search():
    backbone = tiny_backbone("vit")
    val = Pictures([0, 1, 2, 3, 4] * 4, seed=3)
    found = prepared(backbone, val, steps=6, beta2_max=5.0, beta3_max=5.0)
    plain = prepared(backbone, steps=6)
    images = plain.preprocess(val.images(range(20)))
    scores = {}
    for i in range(6):
        for j in range(6):
            plain.beta2, plain.beta3 = (torch.tensor(0.001 + k * 4.999 / 6) for k in (i, j))
            scores[i, j] = int((plain.logits(Batch(images=images)).argmax(1) == val.labels).sum())
    best = max(scores.values())
    first = min(pair for pair, score in scores.items() if score == best)
    assert (float(found.beta2), float(found.beta3)) == pytest.approx(
        tuple(0.001 + k * 4.999 / 6 for k in first), abs=1e-6
    )


def test_what_was_chosen_is_saved_with_the_method():
    backbone, batch = tiny_backbone("vit"), Batch(images=noise_images(32))
    chosen = prepared(backbone, Pictures([0, 1, 2, 3, 4] * 4, seed=3), steps=6, beta2_max=5.0, beta3_max=5.0)
    anew = prepared(backbone, beta2_max=5.0, beta3_max=5.0)
    assert not torch.equal(anew.logits(batch), chosen.logits(batch))
    anew.load_state_dict(chosen.state_dict())
    assert (anew.beta2, anew.beta3) == (chosen.beta2, chosen.beta3)
    assert torch.equal(anew.logits(batch), chosen.logits(batch))


class Largest(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that is made within."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        self.numbers = max([self.numbers, *(t.numel() for t in [made] if isinstance(t, torch.Tensor))])
        return made


def test_the_search_keeps_its_memory_bounded_and_its_result(monkeypatch):
    backbone, val = tiny_backbone("vit"), Pictures([0, 1, 2, 3, 4] * 4, seed=3)
    method = prepared(backbone, val, steps=200, beta2_max=5.0, beta3_max=5.0)
    found, parts = (method.beta2, method.beta3), method.opinions(method.preprocess(val.images(range(20))))
    monkeypatch.setattr(method, "opinions", lambda images: parts)
    monkeypatch.setattr("vlmlab.methods.other.calip.SCORES_AT_ONCE", 700, raising=False)  # 7 values for 20 x 5 scores
    method.beta2 = method.beta3 = torch.tensor(0.0)
    monkeypatch.setattr(method, "in_turn", lambda pictures: [None])
    with Largest() as largest:
        method._search(val)
    assert (method.beta2, method.beta3) == found
    assert largest.numbers <= 20 * 200  # which values are right, [V, steps], and never [V, steps, C]
