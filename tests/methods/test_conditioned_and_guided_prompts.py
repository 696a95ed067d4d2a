"""CoCoOp, KgCoOp and ProGrad: their equations on a tiny CLIP."""

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import learned, of_variant, same, same_gradients
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.text_prompt.cocoop import CoCoOp
from vlmlab.methods.text_prompt.coop import CoOp
from vlmlab.methods.text_prompt.kgcoop import KgCoOp
from vlmlab.methods.text_prompt.prograd import ProGrad, aligned, distillation

LABELS = torch.arange(8) % 5


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("asym")


@pytest.fixture(scope="module")
def batch(backbone):
    return Batch(features=backbone.encode_image(noise_images(32)), labels=LABELS)


def prepared(system, backbone, templates=("a photo of a {}.",), **settings):
    method = system(backbone, system.configure(backbone, **settings))
    method.prepare(task(CLASSES, templates))
    return method


def official(system, variant, **settings):
    """The numbers of a variant, the system with the context that they were computed with, and its batch."""
    key = system.info.key
    numbers = of_variant(golden(key), variant)
    backbone = tiny_backbone(variant.split("_")[0])
    method = system(backbone, system.configure(backbone, **settings))
    templates = [str(numbers["template"])] if "template" in numbers else ["a photo of a {}."]
    method.prepare(task(golden(key)["class_names"].tolist(), templates))
    if (start := numbers.get("init/prompt_learner.ctx")) is not None:
        same(method.context, start)
    values = learned(numbers)
    assert method.context.shape == values["prompt_learner.ctx"].shape
    method.context.data = values["prompt_learner.ctx"]
    return numbers, method, Batch(features=backbone.encode_image(noise_images(32)), labels=LABELS)


# --- CoCoOp -------------------------------------------------------------------------------------------------------------


def test_cocoop_shifts_every_context_vector_by_the_picture(backbone, batch):
    """Each image's logits are those of a CoOp whose context is shifted by this image's vector."""
    method = prepared(CoCoOp, backbone)
    coop = prepared(CoOp, backbone, init="a photo of a")
    f = F.normalize(batch.features, dim=-1)
    logits = method.logits(batch)
    for b in range(3):
        coop.context.data = (method.context + method.meta_net(f[b])).detach()
        same(logits[b], coop.logits(Batch(features=batch.features[b : b + 1]))[0].detach())


def test_cocoop_without_its_last_layer_is_coop(backbone, batch):
    method = prepared(CoCoOp, backbone)
    for parameter in method.meta_net[2].parameters():
        parameter.data.zero_()
    same(method.logits(batch), prepared(CoOp, backbone, init="a photo of a").logits(batch).detach())


def test_cocoop_in_a_batch_equals_one_picture_at_a_time(backbone, batch):
    method = prepared(CoCoOp, backbone)
    whole = method.loss(batch)
    whole.backward()
    together = [p.grad.clone() for p in method.parameters()]
    method.zero_grad()
    for b in range(8):
        (method.loss(Batch(features=batch.features[b : b + 1], labels=LABELS[b : b + 1])) / 8).backward()
    for one, other in zip(together, (p.grad for p in method.parameters()), strict=True):
        assert (one - other).abs().max() <= 1e-3 * other.abs().max()
    with torch.no_grad():
        same(method.logits(batch), torch.cat([method.logits(Batch(features=x[None])) for x in batch.features]))


def test_cocoop_learns_context_and_meta_net_of_the_published_size(backbone):
    method = prepared(CoCoOp, backbone)
    e, d, m = backbone.embed_dim, backbone.text.width, 4
    assert method.trainable_parameters == m * d + e * (e // 16) + e // 16 + (e // 16) * d + d


@pytest.mark.parametrize(("variant", "settings"), [("asym_words", {}), ("vit_random_3", {"init": "", "n_ctx": 3})])
def test_cocoop_numbers_of_the_official_implementation(variant, settings):
    numbers, method, batch = official(CoCoOp, variant, **settings)
    names = {"0": "linear1", "2": "linear2"}
    official_names = {
        f"prompt_learner.meta_net.{names[n.split('.')[0]]}.{n.split('.')[1]}": p
        for n, p in method.meta_net.named_parameters()
    }
    for name, parameter in official_names.items():
        parameter.data = learned(numbers)[name]
    same(method.logits(batch), numbers["out/logits"])
    loss = method.loss(batch)
    same(loss, numbers["out/loss"])
    loss.backward()
    same_gradients(
        {"prompt_learner.ctx": method.context.grad} | {n: p.grad for n, p in official_names.items()}, numbers
    )


# --- KgCoOp -------------------------------------------------------------------------------------------------------------


def test_kgcoop_pays_nothing_at_its_own_template_and_twice_one_minus_cosine_is_the_squared_distance(backbone, batch):
    method = prepared(KgCoOp, backbone)
    w = method.class_features()
    assert method.distance(w).abs() < 1e-5
    method.context.data += torch.randn(method.context.shape, generator=torch.Generator().manual_seed(0))
    w = method.class_features()
    same(2 * method.distance(w), (w - method.written).square().sum(-1).mean().detach())
    expected = F.cross_entropy(method.logits(batch), LABELS) + 8 * (1 - F.cosine_similarity(w, method.written).mean())
    same(method.loss(batch), expected.detach())


def test_kgcoop_with_another_template_pays_from_the_start_and_moves_back(backbone, batch):
    method = prepared(KgCoOp, backbone, ["itap of the {}!", "not used {}"], weight=100.0)
    first = method.distance(method.class_features()).item()
    assert first > 1e-4
    optimizer = torch.optim.Adam(method.parameters(), 0.01)
    for _ in range(30):
        optimizer.zero_grad()
        method.loss(batch).backward()
        optimizer.step()
    assert method.distance(method.class_features()) < 0.8 * first
    assert [n for n, _ in method.named_parameters()] == ["context"]


def test_kgcoop_follows_new_classes(backbone, batch):
    method = prepared(KgCoOp, backbone)
    method.set_classes(CLASSES[:3], ["a photo of a {}."])
    assert method.logits(batch).shape == (8, 3) and len(method.written) == 3


def test_kgcoop_without_words_starts_at_random(backbone, batch):
    method = prepared(KgCoOp, backbone, init="", n_ctx=6)
    assert method.context.shape == (6, backbone.text.width) and 0.01 < method.context.std() < 0.03
    coop = prepared(CoOp, backbone, n_ctx=6)
    coop.context.data = method.context.data
    same(method.logits(batch), coop.logits(batch).detach())


@pytest.mark.parametrize(
    ("variant", "settings"),
    [("asym_eurosat", {}), ("vit_pets_random_7", {"init": "", "n_ctx": 7})],
)
def test_kgcoop_numbers_of_the_official_implementation(variant, settings):
    numbers, method, batch = official(KgCoOp, variant, **settings)
    same(method.logits(batch), numbers["out/logits"])
    same(method.distance(method.class_features()), numbers["out/distance"])
    loss = method.loss(batch)
    same(loss, numbers["out/loss"])
    loss.backward()
    same_gradients({"prompt_learner.ctx": method.context.grad}, numbers)


# --- ProGrad ------------------------------------------------------------------------------------------------------------


def test_prograd_removes_only_what_opposes():
    a, b = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([0.0, 3.0, 0.0])
    same(aligned(a, b), torch.tensor([1.0, 0.0, 0.0]))
    same(aligned(a, b, 0.5), torch.tensor([1.0, -1.0, 0.0]))
    assert aligned(-a, b) is not None and torch.equal(aligned(-a, b), -a)
    assert torch.equal(aligned(a, torch.zeros(3)), a)


def test_prograd_distils_with_a_soft_cross_entropy():
    teacher, student = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    soft = (teacher / 2).softmax(-1)
    expected = 4 * F.kl_div((student / 2).log_softmax(-1), soft, reduction="batchmean")
    entropy = 4 * -(soft * soft.log()).sum(-1).mean()
    same(distillation(teacher, student, 2.0), expected + entropy)


def test_prograd_s_gradient_is_the_projected_one_and_its_value_the_cross_entropy(backbone, batch):
    method = prepared(ProGrad, backbone, n_ctx=4)
    method.context.data *= 30
    z = method.logits(batch)
    z0 = backbone.logit_scale * method.image_features(batch) @ method.teacher.T
    a = torch.autograd.grad(F.cross_entropy(z, LABELS), method.context, retain_graph=True)[0]
    b = torch.autograd.grad(distillation(z0, z, 1.0), method.context)[0]
    loss = method.loss(batch)
    same(loss, F.cross_entropy(z, LABELS).detach())
    loss.backward()
    same(method.context.grad, aligned(a, b))
    u = b / b.norm()
    assert (method.context.grad * u).sum() >= -1e-6
    if (a * u).sum() < 0:
        assert method.opposed == 1 and not torch.equal(method.context.grad, a)


def test_prograd_without_strength_is_coop(backbone, batch):
    prograd, coop = prepared(ProGrad, backbone, n_ctx=4, strength=0.0, init="random"), prepared(CoOp, backbone, n_ctx=4)
    prograd.loss(batch).backward()
    coop.loss(batch).backward()
    same(prograd.context.grad, coop.context.grad)


@pytest.mark.parametrize("template", ["a photo of a {}.", "a type of pet, a photo of a {}.", "{} texture."])
def test_prograd_starts_from_zeros_and_the_words_of_the_template(template, backbone, batch):
    """The release takes as many vectors as there are words; "pet," is two tokens, so that the last "a" stays a word."""
    method = prepared(ProGrad, backbone, [template], n_ctx=9)
    text, words = backbone.text, template.split("{}")[0].split()
    embedded = text.embed(text.tokenize([" ".join(words)]))[0, 1 : 1 + len(words)]
    assert torch.equal(method.context[: 9 - len(words)], torch.zeros(9 - len(words), text.width))
    assert torch.equal(method.context[9 - len(words) :], embedded)
    # The whole prompt, written out: [start, zeros, words, name, full stop, end].
    tokens = text.tokenize([" ".join(["X"] * (9 - len(words)) + words + [name]) + "." for name in CLASSES])
    sentences = text.embed(tokens)
    sentences[:, 1 : 10 - len(words)] = 0.0
    w = F.normalize(text.forward(sentences, text.end_of_text(tokens)), dim=-1)
    f = F.normalize(batch.features, dim=-1)
    same(method.logits(batch), backbone.logit_scale * f @ w.T)


def test_prograd_refuses_a_template_that_is_longer_than_the_context(backbone):
    with pytest.raises(VlmlabError, match="use n_ctx=4 or init=random"):
        prepared(ProGrad, backbone, n_ctx=3)


@pytest.mark.parametrize("variant", ["asym_pets_12", "asym_eurosat_8", "vit_textures_3", "vit_actions_16"])
def test_prograd_numbers_of_the_official_implementation(variant):
    given = of_variant(golden("prograd"), variant)
    settings = {name: float(given[f"in/{name}"]) for name in ("strength", "temperature")}
    numbers, method, batch = official(ProGrad, variant, n_ctx=int(variant.rsplit("_")[-1]), **settings)
    z0 = method.backbone.logit_scale * method.image_features(batch) @ method.teacher.T
    same(distillation(z0, method.logits(batch), settings["temperature"]), numbers["out/distillation"])
    same(method.logits(batch), numbers["out/logits"])
    loss = method.loss(batch)
    same(loss, numbers["out/loss"])
    assert method.opposed == int(numbers["out/opposed"])
    loss.backward()
    same_gradients({"prompt_learner.ctx": method.context.grad}, numbers)
