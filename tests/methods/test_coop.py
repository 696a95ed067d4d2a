import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import learned, of_variant, same, same_gradient, same_gradients
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.other.zero_shot import ZeroShot
from vlmlab.methods.text_prompt.coop import CoOp

LABELS = torch.arange(8) % 5
SETTINGS = {
    "shared_end": {},
    "shared_end_16": {"n_ctx": 16},
    "csc_end": {"csc": True},
    "shared_middle": {"position": "middle"},
    "shared_front": {"position": "front"},
    "csc_middle": {"csc": True, "position": "middle"},
    "ctx_init": {"init": "a photo of a"},
    "asym_shared_end": {},
    "asym_csc_middle": {"csc": True, "position": "middle"},
}


@pytest.fixture(scope="module")
def backbones():
    return {name: tiny_backbone(name) for name in ("vit", "asym")}


def prepared(backbone, classes=CLASSES, **settings):
    method = CoOp(backbone, CoOp.configure(backbone, **({"n_ctx": 4} | settings)))
    method.prepare(task(classes))
    return method


def batch(backbone):
    return Batch(features=backbone.encode_image(noise_images(32)), labels=LABELS)


def test_every_stored_variant_is_tested():
    assert {key.split("/")[0] for key in golden("coop")} == set(SETTINGS)


@pytest.mark.parametrize("variant", SETTINGS)
def test_numbers_of_the_official_implementation(variant, backbones):
    numbers = of_variant(golden("coop"), variant)
    backbone = backbones["asym" if variant.startswith("asym") else "vit"]
    method = prepared(backbone, **SETTINGS[variant])
    expected = torch.from_numpy(numbers["param/prompt_learner.ctx"])
    if variant == "ctx_init":
        assert torch.equal(method.context.data, expected)
    assert method.context.shape == expected.shape
    method.context.data = expected.clone()
    same(backbone.encode_image(noise_images(32)), numbers["mid/eval_image_encoder"])
    same(method.class_features(), numbers["mid/eval_text_encoder"])
    same(method.logits(batch(backbone)), numbers["out/eval_logits"])
    same(method.logits(batch(backbone)), numbers["out/train_forward"])
    loss = method.loss(batch(backbone))
    same(loss, numbers["out/loss"])
    loss.backward()
    same_gradient(method.context.grad, numbers["grad/prompt_learner.ctx"])


@pytest.mark.parametrize(
    "variant", ["asym_front_csc_3", "vit_front_shared_5", "vit_middle_csc_1", "asym_middle_shared_7", "vit_end_csc_2"]
)
def test_numbers_of_the_official_implementation_with_names_of_many_tokens(variant, backbones):
    """Odd numbers of vectors at every position; names of 2 to 13 tokens, with digits, brackets and an underscore."""
    numbers = of_variant(golden("coop_names"), variant)
    name, position, sharing, m = variant.split("_")
    backbone, classes = backbones[name], golden("coop_names")["class_names"].tolist()
    method = prepared(backbone, classes, position=position, csc=sharing == "csc", n_ctx=int(m))
    method.context.data = learned(numbers)["prompt_learner.ctx"]
    same(method.logits(batch(backbone)), numbers["out/logits"])
    loss = method.loss(batch(backbone))
    same(loss, numbers["out/loss"])
    loss.backward()
    same_gradients({"prompt_learner.ctx": method.context.grad}, numbers)


def test_only_the_context_learns(backbones):
    method = prepared(backbones["vit"])
    method.loss(batch(backbones["vit"])).backward()
    assert [name for name, _ in method.named_parameters()] == ["context"]
    assert method.trainable_parameters == 4 * 64
    assert all(p.grad is None and not p.requires_grad for p in backbones["vit"].parameters())


def test_init_words_give_the_zero_shot_classifier(backbones):
    """The card's check without training: a context made of the template's words is the template."""
    backbone = backbones["vit"]
    zero_shot = ZeroShot(backbone)
    zero_shot.prepare(task(CLASSES, ["a photo of a {}."]))
    method = prepared(backbone, init="a photo of a")
    torch.testing.assert_close(F.normalize(method.class_features(), dim=-1), zero_shot.classifier, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("position", ["middle", "front"])
def test_shared_context_equals_equal_class_contexts(position, backbones):
    shared = prepared(backbones["vit"], position=position)
    own = prepared(backbones["vit"], position=position, csc=True)
    own.context.data = shared.context.data.expand(5, -1, -1).clone()
    torch.testing.assert_close(own.class_features(), shared.class_features())


def test_order_puts_the_name_where_the_position_says(backbones):
    method = prepared(backbones["vit"], position="middle", n_ctx=3)
    # start, one vector (3 // 2), "golden retriever", two vectors, full stop
    names = int(method.prompts.names[0])
    expected = [0, 1, *range(4, 4 + names), 2, 3, 4 + names]
    assert method.order[0, : len(expected)].tolist() == expected


def test_context_moves_to_new_classes(backbones):
    backbone = backbones["vit"]
    method, fresh = prepared(backbone, CLASSES[:3]), prepared(backbone, CLASSES[3:])
    fresh.context.data = method.context.data.clone()
    method.set_classes(CLASSES[3:], [])
    assert method.logits(batch(backbone)).shape == (8, 2)
    torch.testing.assert_close(method.class_features(), fresh.class_features())


def test_class_specific_contexts_stay_with_their_classes(backbones):
    method = prepared(backbones["vit"], CLASSES[:3], csc=True)
    with pytest.raises(VlmlabError, match="cannot move to other classes"):
        method.set_classes(CLASSES[3:], [])
    method.set_classes(CLASSES[:3], [])


def test_underscores_are_spaces(backbones):
    spaced, folder = (prepared(backbones["vit"], names) for names in (["oak tree"], ["oak_tree"]))
    assert torch.equal(spaced.class_features(), folder.class_features())


def test_a_prompt_that_is_too_long_is_refused(backbones):
    with pytest.raises(VlmlabError, match=r"needs .* tokens and tiny-vit has 77; use fewer context vectors"):
        prepared(backbones["vit"], ["oak " * 60], n_ctx=16)
    with pytest.raises(VlmlabError, match="does not fit into the 77 tokens of tiny-vit; shorten it"):
        prepared(backbones["vit"], ["oak " * 90])


def test_official_recipe(backbones):
    method = prepared(backbones["vit"], n_ctx=16)
    for shots, epochs in ((1, 50), (2, 100), (4, 100), (8, 200), (16, 200)):
        method.shots = shots
        assert method.epochs == epochs
    method.shots = 1
    optimizer, schedule = method.optimizer(steps=500)
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["momentum"] == 0.9 and optimizer.param_groups[0]["weight_decay"] == 5e-4
    rates = []
    for _ in range(500):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    per_epoch = rates[::10]
    assert rates[:10] == [1e-5] * 10 and per_epoch[1] == 0.002
    assert all(rates[i] == per_epoch[i // 10] for i in range(500))
    np.testing.assert_allclose(per_epoch[-1], 7.9e-6, rtol=0.01)  # the card's figure for 50 epochs


def test_same_seed_same_start(backbones):
    one, two = prepared(backbones["vit"]), prepared(backbones["vit"])
    assert torch.equal(one.context, two.context)
    other = CoOp(backbones["vit"])
    other.prepare(task(CLASSES, seed=1))
    assert not torch.equal(other.context[:4], one.context)
