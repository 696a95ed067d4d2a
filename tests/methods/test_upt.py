import types

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, noise_images, tiny_backbone
from tests.methods.fakes import task
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.text_visual_prompt.upt import UPT

LABELS = torch.arange(8) % 5


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("asym")  # towers of different widths: image 128, text 192


def prepared(backbone, classes=CLASSES, **settings):
    method = UPT(backbone, UPT.configure(backbone, **({"hidden": 32} | settings)))
    method.prepare(task(classes))
    return method


def given(backbone):
    images = noise_images(32)
    return Batch(images=images, features=backbone.encode_image(images), labels=LABELS)


@pytest.mark.parametrize("towers", ["both", "text", "image"])
def test_all_that_is_learned_gets_a_gradient_and_nothing_else(towers, backbone):
    method = prepared(backbone, towers=towers)
    method.loss(given(backbone)).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())
    assert all(p.grad is None for p in backbone.parameters())
    m, d, width, h, layers = 4, 192, 128, 32, 3
    text = m * d + (d * h + h) + (h * d + d)
    image = layers * m * width + (width * h + h) + (h * width + width)
    mixer = 12 * h * h + 13 * h  # attention 4 h^2 + 4 h, MLP 8 h^2 + 5 h, two norms 4 h
    assert method.trainable_parameters == mixer + {"both": text + image, "text": text, "image": image}[towers]
    assert method.eats == ("features" if towers == "text" else "images")


def test_the_mixer_is_a_pre_norm_block_over_one_sequence(backbone):
    method = prepared(backbone)
    block = method.mixer
    x = torch.cat([method.text_in(method.context), method.image_in(method.visual.flatten(0, 1))])[None]  # [1, 16, h]
    normed = F.layer_norm(x, (32,), block.ln_1.weight, block.ln_1.bias)
    q, k, v = (normed @ block.attn.in_proj_weight.T + block.attn.in_proj_bias).chunk(3, -1)
    attended = (q @ k.transpose(1, 2) / 32**0.5).softmax(-1) @ v
    x = x + attended @ block.attn.out_proj.weight.T + block.attn.out_proj.bias
    up = F.layer_norm(x, (32,), block.ln_2.weight, block.ln_2.bias) @ block.mlp.c_fc.weight.T + block.mlp.c_fc.bias
    x = x + (up * torch.sigmoid(1.702 * up)) @ block.mlp.c_proj.weight.T + block.mlp.c_proj.bias
    context, visual = method.mixed()
    torch.testing.assert_close(context, method.text_out(x[0, :4]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(visual, method.image_out(x[0, 4:]).unflatten(0, (3, 4)), atol=1e-5, rtol=1e-4)


def test_every_prompt_sees_every_other(backbone):
    """In the public re-implementation, each prompt is a batch of its own and sees itself alone."""
    method = prepared(backbone)
    with torch.no_grad():
        context, visual = method.mixed()
        method.visual[1, 2] += 1.0
        moved_context, moved_visual = method.mixed()
    assert ((moved_context - context).abs().amax(-1) > 1e-6).all()
    assert ((moved_visual - visual).abs().amax(-1) > 1e-6).all()


@pytest.mark.parametrize("hidden", [32, 128])
def test_alone_a_prompt_sees_itself_as_in_the_re_implementation(hidden, backbone):
    """Attention within a sequence of one is its value; a tower that is as wide as the mixer has no maps."""
    method = prepared(backbone, mixing="alone", hidden=hidden)
    block, names = method.mixer, {name.split(".")[0] for name, _ in method.named_parameters()}
    assert ("image_in" in names) == (hidden != 128) and {"text_in", "text_out"} < names  # image 128, text 192
    visual = method.visual.flatten(0, 1)
    if hidden != 128:
        visual = method.image_in(visual)
    x = torch.cat([method.text_in(method.context), visual])
    normed = F.layer_norm(x, (hidden,), block.ln_1.weight, block.ln_1.bias)
    value = F.linear(normed, block.attn.in_proj_weight[2 * hidden :], block.attn.in_proj_bias[2 * hidden :])
    x = x + block.attn.out_proj(value)
    x = x + block.mlp(block.ln_2(x))
    context, mixed = method.mixed()
    torch.testing.assert_close(context, method.text_out(x[:4]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mixed, method.image_out(x[4:]).unflatten(0, (3, 4)), atol=1e-5, rtol=1e-4)
    method.loss(given(backbone)).backward()
    assert all(p.grad is not None for p in method.parameters())


def test_without_mixing_the_prompts_are_what_is_learned(backbone):
    method = prepared(backbone, mixing="apart")
    assert {name for name, _ in method.named_parameters()} == {"context", "visual"}
    context, visual = method.mixed()
    assert context is method.context and torch.equal(visual, method.visual)
    method.loss(given(backbone)).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())


@pytest.mark.parametrize("mixing", ["together", "apart"])
def test_visual_prompts_of_another_number_and_width(mixing, backbone):
    """Learned at width 16, taken to the tower's 128; logits are those of the prompts that come out, learned as they are."""
    method = prepared(backbone, mixing=mixing, visual_ctx=2, project=16)
    assert method.visual.shape == (3, 2, 16) and method.context.shape == (4, 192)
    context, visual = method.mixed()
    assert visual.shape == (3, 2, 128)
    plain = prepared(backbone, mixing="apart", visual_ctx=2)
    plain.context.data, plain.visual.data = context.detach(), visual.detach()
    torch.testing.assert_close(method.logits(given(backbone)), plain.logits(given(backbone)), atol=1e-5, rtol=1e-4)
    method.loss(given(backbone)).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())
    if mixing == "apart":
        expected = method.visual @ method.visual_proj.weight.T + method.visual_proj.bias
        torch.testing.assert_close(visual, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("mixing", ["together", "apart"])
def test_prompts_go_where_the_equations_say(mixing, backbone):
    method = prepared(backbone, mixing=mixing)
    (context, visual), images = method.mixed(), noise_images(32)
    text, sentences = backbone.text, [f"X X {name} X X." for name in CLASSES]
    tokens = text.tokenize(sentences)
    rows = text.embed(tokens).clone()
    for c, length in enumerate(method.prompts.names.tolist()):
        rows[c, 1:3] = context[:2]
        rows[c, 3 + length : 5 + length] = context[2:]
    w = F.normalize(text.forward(rows, text.end_of_text(tokens)), dim=-1)
    tower = backbone.model.visual
    x, _ = backbone.image._tokens(images)
    for block, prompts in zip(tower.transformer.resblocks, visual, strict=True):
        x = block(torch.cat([x[:, :1], prompts.expand(8, -1, -1), x[:, 1:]], 1))  # behind the class token, as MVLPT
        x = torch.cat([x[:, :1], x[:, 5:]], 1)
    f = F.normalize(tower.ln_post(x[:, 0]) @ tower.proj, dim=-1)
    expected = backbone.logit_scale * f @ w.T
    torch.testing.assert_close(method.logits(Batch(images=images)), expected, atol=1e-4, rtol=1e-4)


def test_a_name_at_the_end_gives_the_same_whether_the_prefix_is_shared_or_not(backbone):
    method = prepared(backbone, position="end")
    context, _ = method.mixed()
    order = method.prompts.order(4)
    expected = method.prompts.features_around(backbone.text, context, order)
    torch.testing.assert_close(method._class_features(context), expected, atol=1e-5, rtol=1e-4)


def test_prompts_move_to_new_classes(backbone):
    method = prepared(backbone, CLASSES[:3])
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.set_classes(CLASSES[3:], ["a photo of a {}."])
    assert method.logits(Batch(images=noise_images(32))).shape == (8, 2)
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


def test_the_same_seed_gives_the_same_start_whatever_was_drawn_before(backbone):
    first = prepared(backbone).state_dict()
    torch.rand(3)
    assert all(torch.equal(first[name], value) for name, value in prepared(backbone).state_dict().items())


def test_the_official_size(backbone):
    """m = 4, h = 128, ViT-B/16: 566,400 numbers in the re-implementation."""
    image = types.SimpleNamespace(
        width=768,
        depth=12,
        supports={"tokens"},
        visual=types.SimpleNamespace(patch_size=(16, 16)),
        check_prompts=lambda *_: None,
    )
    text = types.SimpleNamespace(width=512, takes_prompts=True)
    method = UPT(types.SimpleNamespace(image=image, text=text, embedded=False, device=torch.device("cpu")))
    method.set_classes = lambda *_: None
    method.prepare(task(CLASSES))
    assert method.trainable_parameters == 566_400
    assert method.visual.abs().max() < (6 / (3 * 256 + 768)) ** 0.5 and method.visual.abs().max() > 0.0624


def test_what_it_cannot_do_is_said_in_one_line(backbone):
    with pytest.raises(VlmlabError, match="the visual prompts of UPT need a ViT: use micro-vit"):
        UPT(tiny_backbone("rn"))
    assert UPT(tiny_backbone("rn"), UPT.Config(towers="text")).eats == "features"
    with pytest.raises(VlmlabError, match="UPT asks for prompts in 5 blocks and the image tower of tiny-asym has 3"):
        UPT(backbone, UPT.Config(depth=5))
    with pytest.raises(VlmlabError, match="5 heads do not divide a width of 128"):
        UPT(backbone, UPT.Config(heads=5))
