import math

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import Pictures, task
from tests.methods.parity import learned, of_variant, same, same_gradients
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.templates import SETS
from vlmlab.methods.text_visual_prompt.promptsrc import PromptSRC

LABELS = torch.arange(8) % 5


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


def prepared(backbone, classes=CLASSES, support=None, **settings):
    method = PromptSRC(backbone, PromptSRC.configure(backbone, **({"depth": 3, "templates": "photo"} | settings)))
    method.prepare(task(classes, support=support))
    return method


def given():
    return Batch(images=noise_images(32), labels=LABELS)


def test_logits_are_those_of_the_official_independent_prompts(backbone):
    """PromptSRC's model is that of IVLP, whose numbers are stored with MaPLe's."""
    numbers = of_variant(golden("maple"), "ivlp_v2_t2_depth3")
    method = prepared(backbone, n_ctx=2)
    block = "encoder.transformer.resblocks.{}.VPT_shallow"
    with torch.no_grad():
        for j in range(3):
            text = f"text_{block.format(j)}" if j else "prompt_learner.ctx"
            image = f"image_{block.format(j)}" if j else "image_encoder.VPT"
            method.context[j] = torch.from_numpy(numbers[f"param/{text}"])
            method.visual[j] = torch.from_numpy(numbers[f"param/{image}"])
    same(method.logits(given()), numbers["out/eval_logits"])


@pytest.mark.parametrize(
    ("variant", "settings"),
    [("vit_4_depth3", {}), ("asym_v3d2_t2d3", {"n_ctx": 2, "vision_n_ctx": 3, "vision_depth": 2})],
)
def test_numbers_of_the_official_implementation(variant, settings):
    """Logits, loss and gradients of muzairkhattak/PromptSRC (commit bb95c77), with its teacher's sentences."""
    numbers, backbone = of_variant(golden("promptsrc"), variant), tiny_backbone(variant.split("_")[0])
    method = PromptSRC(backbone, PromptSRC.configure(backbone, depth=3, **settings))
    method.prepare(task(CLASSES))
    same(method.written, numbers["mid/teacher"])
    block, values = "_encoder.transformer.resblocks.{}.VPT_shallow", learned(numbers)
    rows = {"prompt_learner.ctx": (method.context, 0), "image_encoder.VPT": (method.visual, 0)}
    rows |= {f"text{block.format(j)}": (method.context, j) for j in range(1, len(method.context))}
    rows |= {f"image{block.format(j)}": (method.visual, j) for j in range(1, len(method.visual))}
    for name, (tokens, j) in rows.items():
        tokens.data[j] = values[name]
    same(method.logits(given()), numbers["out/logits"])
    loss = method.loss(given())
    same(loss, numbers["out/loss"])
    loss.backward()
    same_gradients({name: tokens.grad[j] for name, (tokens, j) in rows.items()}, numbers)


def test_epochs_weigh_as_in_the_official_implementation(backbone):
    method = prepared(backbone)
    method.optimizer(20)
    weights, before = [], 0.0
    for step in range(1, 21):
        method.step.fill_(step)
        method._end_of_epoch()
        weights.append(float(method.weight) - before)
        before = float(method.weight)
    weights = torch.tensor(weights, dtype=torch.float64)
    torch.testing.assert_close(
        weights / weights.sum(), torch.from_numpy(golden("promptsrc")["epoch_weights_15_1_of_20"]), atol=1e-6, rtol=1e-4
    )


def test_the_towers_may_differ_in_tokens_and_layers():
    """The stored independent prompts with three tokens in two image blocks, and two in three text blocks."""
    numbers = of_variant(golden("maple"), "asym_ivlp_v3d2_t2d3")
    method = prepared(tiny_backbone("asym"), n_ctx=2, depth=3, vision_n_ctx=3, vision_depth=2)
    block = "encoder.transformer.resblocks.{}.VPT_shallow"
    with torch.no_grad():
        for j in range(3):
            method.context[j] = torch.from_numpy(
                numbers[f"param/text_{block.format(j)}" if j else "param/prompt_learner.ctx"]
            )
        for j in range(2):
            method.visual[j] = torch.from_numpy(
                numbers[f"param/image_{block.format(j)}" if j else "param/image_encoder.VPT"]
            )
    same(method.logits(given()), numbers["out/eval_logits"])


def test_the_teacher_reads_the_sentences_of_the_release(backbone):
    """Sixty of OpenAI's eighty; with all eighty, the gradient of the contexts is off by a tenth."""
    method = PromptSRC(backbone, PromptSRC.configure(backbone, depth=3))
    method.prepare(task(CLASSES))
    sentences = SETS["imagenet80"][:60]
    assert len(SETS["imagenet60"]) == 60 and {"a photo of a {}.", "itap of the {}."} < set(sentences)
    own = torch.stack([backbone.encode_text([t.format(name) for t in sentences]).mean(0) for name in CLASSES])
    same(method.written, F.normalize(own, dim=-1))


def test_all_that_is_learned_gets_a_gradient_and_nothing_else(backbone):
    method = prepared(backbone)
    method.loss(given()).backward()
    for parameter in method.parameters():
        assert (parameter.grad.abs().amax((1, 2)) > 0).all()  # every prompted layer
    assert all(p.grad is None for p in backbone.parameters())
    assert method.trainable_parameters == 3 * 4 * (64 + 64)


def test_the_loss_is_the_sum_of_its_terms(backbone):
    method, images, s = prepared(backbone, templates="imagenet7"), noise_images(32), backbone.logit_scale
    f, w = method.features(images)
    f0 = F.normalize(backbone.encode_image(images), dim=-1)
    logits = s * f @ w.T
    p0 = (s * f0 @ method.written.T).softmax(-1)
    kl = (p0 * (p0.log() - logits.log_softmax(-1))).sum() / logits.numel()
    near = 25 * (w - method.written).abs().mean() + 10 * (f - f0).abs().mean()
    torch.testing.assert_close(method.loss(given()), F.cross_entropy(logits, LABELS) + near + kl)
    free = prepared(backbone, text_weight=0, image_weight=0, logits_weight=0)
    torch.testing.assert_close(free.loss(given()), F.cross_entropy(free.logits(given()), LABELS))


def test_frozen_class_features_are_means_before_they_are_normalised(backbone):
    method = prepared(backbone, templates="imagenet7")
    own = torch.stack([backbone.encode_text([t.format(name) for t in SETS["imagenet7"]]).mean(0) for name in CLASSES])
    torch.testing.assert_close(method.written, F.normalize(own, dim=-1), atol=1e-5, rtol=1e-4)


def test_kept_features_are_those_of_the_pictures(backbone):
    support = Pictures([0, 1, 2, 3])
    method = prepared(backbone, support=support)
    images = method.preprocess(support.images([2, 0]))
    kept = method.loss(Batch(images=images, labels=torch.tensor([2, 0]), index=torch.tensor([2, 0])))
    torch.testing.assert_close(kept, method.loss(Batch(images=images, labels=torch.tensor([2, 0]))))


def trained(method, epochs, batches=2):
    """As `fit` trains; the parameters at the end of every epoch."""
    optimizer, schedule = method.optimizer(epochs * batches)
    ends = []
    for step in range(epochs * batches):
        optimizer.zero_grad()
        method.loss(given()).backward()
        method.before_step()
        optimizer.step()
        schedule.step()
        if step % batches == batches - 1:
            ends.append((method.context.detach().clone(), method.visual.detach().clone()))
    return ends


def test_what_is_kept_is_a_weighted_mean_over_the_epochs(backbone):
    method = prepared(backbone, epochs=4, mean_epoch=0.75, sd_epoch=0.25, lr=0.5, warmup_epochs=0)
    ends = trained(method, 4)
    method.finish(None)
    g = torch.tensor([math.exp(-((t - 3) ** 2) / 2) for t in (1, 2, 3, 4)])
    for found, parts in zip((method.context, method.visual), zip(*ends, strict=True), strict=True):
        expected = sum(weight * part for weight, part in zip(g / g.sum(), parts, strict=True))
        torch.testing.assert_close(found.data, expected)
        assert (found - parts[-1]).abs().max() > 1e-4


def test_without_a_width_the_last_epoch_is_kept(backbone):
    method = prepared(backbone, epochs=2, sd_epoch=0.0, lr=0.5, warmup_epochs=0)
    (*_, (context, visual)) = trained(method, 2)
    method.finish(None)
    assert torch.equal(method.context, context) and torch.equal(method.visual, visual)


def test_a_resumed_run_goes_on_with_its_mean(backbone):
    settings = {"epochs": 4, "sd_epoch": 0.25, "lr": 0.5, "warmup_epochs": 0}
    whole, first, second = (prepared(backbone, **settings) for _ in range(3))
    trained(whole, 4)
    half = first.optimizer(8)
    for _ in range(4):
        half[0].zero_grad()
        first.loss(given()).backward()
        first.before_step()
        half[0].step()
        half[1].step()
    rest = second.optimizer(8)
    second.load_state_dict(first.state_dict())
    rest[0].load_state_dict(half[0].state_dict())
    rest[1].load_state_dict(half[1].state_dict())
    for _ in range(4):
        rest[0].zero_grad()
        second.loss(given()).backward()
        second.before_step()
        rest[0].step()
        rest[1].step()
    whole.finish(None)
    second.finish(None)
    assert torch.equal(whole.context, second.context) and torch.equal(whole.visual, second.visual)


def test_prompts_move_to_new_classes(backbone):
    method = prepared(backbone, CLASSES[:3])
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.set_classes(CLASSES[3:], [])
    assert method.logits(given()).shape == (8, 2)
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


def test_official_defaults_and_what_it_cannot_do(backbone):
    config = PromptSRC.Config()
    assert (config.n_ctx, config.depth, config.lr, config.epochs, config.batch_size) == (4, 9, 0.0025, 20, 4)
    assert (config.mean_epoch * config.epochs, config.sd_epoch * config.epochs) == (15, 1)
    with pytest.raises(VlmlabError, match="the visual prompts of PromptSRC need a ViT: use micro-vit"):
        PromptSRC(tiny_backbone("rn"))
    with pytest.raises(
        VlmlabError, match="PromptSRC asks for prompts in 9 blocks and the image tower of tiny-vit has 4"
    ):
        PromptSRC(backbone)
