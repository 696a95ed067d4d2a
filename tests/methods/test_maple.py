import pytest
import torch
from torch.nn import functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import of_variant, same, same_gradient
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.text_visual_prompt.maple import MaPLe

LABELS = torch.arange(8) % 5
SETTINGS = {
    "n2_depth1": {"depth": 1},
    "n2_depth3": {"depth": 3},
    "n4_depth4": {"n_ctx": 4, "depth": 4},
    "asym_n2_depth3": {"depth": 3},
    "ivlp_v2_t2_depth3": {"coupling": "independent", "depth": 3},
    "asym_ivlp_v3d2_t2d3": {"coupling": "independent", "depth": 3, "vision_n_ctx": 3, "vision_depth": 2},
    "vpt_v2_depth3": {"coupling": "vision", "depth": 3},
}


@pytest.fixture(scope="module")
def backbones():
    return {name: tiny_backbone(name) for name in ("vit", "asym")}


def prepared(backbone, classes=CLASSES, **settings):
    method = MaPLe(backbone, MaPLe.configure(backbone, **({"depth": 3} | settings)))
    method.prepare(task(classes))
    return method


def images():
    return Batch(images=noise_images(32), labels=LABELS)


def official_names(method) -> dict[str, torch.nn.Parameter]:
    """Our parameters under the names of the official code."""
    names = {}
    independent = method.config.coupling == "independent"
    block = "encoder.transformer.resblocks.{}.VPT_shallow"
    if hasattr(method, "context"):
        names["prompt_learner.ctx"] = method.context
        for j, prompt in enumerate(method.deep_text):
            name = f"text_{block.format(j + 1)}" if independent else f"prompt_learner.compound_prompts_text.{j}"
            names[name] = prompt
    for j, layer in enumerate(getattr(method, "projections", ())):
        stem = f"prompt_learner.compound_prompt_projections.{j - 1}" if j else "prompt_learner.proj"
        names[f"{stem}.weight"], names[f"{stem}.bias"] = layer.weight, layer.bias
    for j, prompt in enumerate(getattr(method, "visual", ())):
        names[f"image_{block.format(j)}" if j else "image_encoder.VPT"] = prompt
    return names


def test_every_stored_variant_is_tested():
    assert {key.split("/")[0] for key in golden("maple")} == set(SETTINGS)


@pytest.mark.parametrize("variant", SETTINGS)
def test_numbers_of_the_official_implementation(variant, backbones):
    numbers = of_variant(golden("maple"), variant)
    method = prepared(backbones["asym" if variant.startswith("asym") else "vit"], **SETTINGS[variant])
    ours = official_names(method)
    assert {f"param/{name}" for name in ours} == {key for key in numbers if key.startswith("param/")}
    assert {id(p) for p in ours.values()} == {id(p) for p in method.parameters()}
    for name, parameter in ours.items():
        assert parameter.shape == numbers[f"param/{name}"].shape, name
        parameter.data = torch.from_numpy(numbers[f"param/{name}"]).clone()
    backbone = method.backbone
    if "mid/eval_text_encoder" in numbers:
        text = method.prompts.features(backbone.text, method.context, list(method.deep_text))
        same(text, numbers["mid/eval_text_encoder"])
    first, *deep = method.visual_prompts()
    same(backbone.image.forward(noise_images(32), first, deep), numbers["mid/eval_image_encoder"])
    same(method.logits(images()), numbers["out/eval_logits"])
    loss = method.loss(images())
    same(loss, numbers["out/loss"])
    loss.backward()
    for name, parameter in ours.items():
        same_gradient(parameter.grad, numbers[f"grad/{name}"])


@pytest.mark.parametrize("coupling", ["coupled", "independent", "language", "vision"])
def test_all_that_is_learned_gets_a_gradient_and_nothing_else(coupling, backbones):
    backbone = backbones["vit"]
    method = prepared(backbone, coupling=coupling)
    batch = Batch(features=backbone.encode_image(noise_images(32)), images=noise_images(32), labels=LABELS)
    method.loss(batch).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())
    d = width = 64
    expected = {
        "coupled": 3 * 2 * d + 3 * (d * width + width),
        "independent": 3 * 2 * (d + width),
        "language": 3 * 2 * d,
        "vision": 3 * 2 * width,
    }
    assert method.trainable_parameters == expected[coupling]
    assert method.eats == ("features" if coupling == "language" else "images")


def test_language_only_is_the_text_branch_of_independent(backbones):
    backbone = backbones["vit"]
    independent, language = (prepared(backbone, coupling=coupling) for coupling in ("independent", "language"))
    language.context.data = independent.context.data
    language.deep_text = independent.deep_text
    f = F.normalize(backbone.encode_image(noise_images(32)), dim=-1)
    text = independent.prompts.features(backbone.text, independent.context, list(independent.deep_text))
    expected = backbone.logit_scale * f @ F.normalize(text, dim=-1).T
    torch.testing.assert_close(language.logits(images()), expected)


def test_context_starts_as_words_and_the_other_words_stay(backbones):
    method = prepared(backbones["vit"])
    tokens = backbones["vit"].text.embed(backbones["vit"].text.tokenize(["a photo of a tabby cat."]))[0]
    torch.testing.assert_close(method.context.data, tokens[1:3])
    torch.testing.assert_close(method.prompts.rest[1, :2], tokens[3:5])
    for first, second in zip(method.projections[1].parameters(), method.projections[2].parameters(), strict=True):
        assert torch.equal(first, second)  # deep projections start equal, and are not shared
        assert first is not second


def test_prompts_move_to_new_classes(backbones):
    method = prepared(backbones["vit"], CLASSES[:3])
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.set_classes(CLASSES[3:], [])
    assert method.logits(images()).shape == (8, 2)
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


def test_a_tower_without_tokens_is_refused():
    backbone = tiny_backbone("rn")
    with pytest.raises(VlmlabError, match=r"use micro-vit, or a ViT of open_clip .* coupling=language"):
        MaPLe(backbone, MaPLe.Config(depth=3))
    assert MaPLe(backbone, MaPLe.Config(depth=3, coupling="language")).eats == "features"


def test_more_layers_than_a_tower_has_are_refused(backbones):
    with pytest.raises(VlmlabError, match="the text tower of tiny-vit has 4 layers"):
        MaPLe(backbones["vit"], MaPLe.Config())
    with pytest.raises(VlmlabError, match="the image tower of tiny-vit has 4 layers"):
        MaPLe(backbones["vit"], MaPLe.Config(depth=3, coupling="independent", vision_depth=5))


def test_official_defaults():
    config = MaPLe.Config()
    assert (config.n_ctx, config.depth, config.lr, config.epochs, config.batch_size) == (2, 9, 0.0035, 5, 4)
