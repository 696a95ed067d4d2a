"""The opened towers give open_clip's features, OpenAI's stored numbers, and what lies in between."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from PIL import Image

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from vlmlab.backbones import load_backbone
from vlmlab.backbones.backbone import Backbone
from vlmlab.errors import VlmlabError

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
VIT = {"image_size": 32, "patch_size": 8, "layers": 2, "width": 64, "head_width": 32}
VARIANTS = {
    "average": (VIT | {"pool_type": "avg"}, TEXT),
    "average, norm after": (VIT | {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True}, TEXT),
    "layer scale, custom blocks": (VIT | {"ls_init_value": 0.1, "qk_norm": True, "scale_heads": True}, TEXT),
    "both ways, last token": (VIT, TEXT | {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}),
    "end token by id": (VIT, TEXT | {"pool_type": "eos", "eos_id": 49407}),
    "timm": ({"timm_model_name": "resnet18", "timm_pool": "avg", "timm_proj": "linear", "image_size": 64}, TEXT),
}


def variant(name):
    vision, text = VARIANTS[name]
    torch.manual_seed(0)
    model = CustomTextCLIP(32, vision, text) if name in ("timm", "both ways, last token") else CLIP(32, vision, text)
    return Backbone(name, model, open_clip.SimpleTokenizer(context_length=16))


@pytest.fixture(scope="module")
def tiny():
    return {name: tiny_backbone(name) for name in ("vit", "rn", "asym")}


def pictures(name):
    return noise_images(64 if name == "rn" else 32)


@pytest.mark.parametrize("name", ["vit", "rn", "asym"])
@torch.no_grad()
def test_openais_numbers(tiny, name):
    base, backbone = golden("base"), tiny[name]
    tokens = torch.from_numpy(base["tokens"]).long()
    assert torch.equal(backbone.text.tokenize([f"a photo of a {c}." for c in CLASSES]), tokens)
    image, text = backbone.encode_image(pictures(name)), backbone.encode_text(tokens)
    for found, key in ((image, "image_features"), (text, "text_features")):
        np.testing.assert_allclose(found.numpy(), base[f"{name}/{key}"], atol=1e-5, rtol=1e-5)
    unit = torch.nn.functional.normalize
    logits = backbone.logit_scale * unit(image, dim=-1) @ unit(text, dim=-1).T
    np.testing.assert_allclose(logits.numpy(), base[f"{name}/logits_per_image"], atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
@torch.no_grad()
def test_features_are_open_clips(name):
    backbone = variant(name)
    images = torch.randn(2, 3, backbone.image_size, backbone.image_size)
    tokens = backbone.text.tokenize(["a cat", "a dog on a hill"])
    assert (backbone.encode_image(images) - backbone.model.encode_image(images)).abs().max() < 1e-5
    assert (backbone.encode_text(tokens) - backbone.model.encode_text(tokens)).abs().max() < 1e-5
    local = backbone.image.local_features(images)
    assert local.shape == (2, backbone.embed_dim, *backbone.image.grid(*images.shape[-2:]))
    if name == "timm":  # a linear head: the mean of the locations is the feature
        assert (local.mean((2, 3)) - backbone.encode_image(images)).abs().max() < 1e-5
    if name == "average":
        plain = backbone.image.local_features(images, kind="plain")
        assert (plain.mean((2, 3)) - backbone.encode_image(images)).abs().max() < 1e-5


@torch.no_grad()
def test_a_hugging_face_text_tower():
    transformers = pytest.importorskip("transformers")
    from open_clip.hf_model import HFTextEncoder

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64
    )
    model = CLIP(32, VIT, TEXT)
    model.text = HFTextEncoder("none", 32, config=config, pooler_type="mean_pooler", proj_type="linear")
    words = {"": [1, 2], "a": [1, 7, 2], "long": [1, 7, 8, 9, 2]}

    def tokenizer(texts):
        return torch.tensor([words[t] + [0] * (8 - len(words[t])) for t in texts])

    tokenizer.context_length = 8
    text = Backbone("bert", model, tokenizer).text
    tokens = text.tokenize(["a", "long", ""])
    assert (text.encode(tokens) - model.text(tokens)).abs().max() < 1e-5
    assert text.special == 1 and not text.causal and text.depth == 3
    embeddings, end = text.embed(tokens), text.end_of_text(tokens)
    assert end.tolist() == [2, 4, 1]
    shared = text.forward_shared_prefix(embeddings[0, :1], embeddings[:, 1:], end - 1)
    assert (shared - model.text(tokens)).abs().max() < 1e-5
    deep = text.forward(embeddings[:2], end[:2], deep=[torch.ones(1, 32)])
    assert (deep - shared[:2]).abs().max() > 1e-3
    with text._deep_prompts([torch.ones(1, 32)]), ThreadPoolExecutor(1) as another:  # the blocks are everybody's
        elsewhere = another.submit(text.forward, embeddings[:2], end[:2]).result()
    torch.testing.assert_close(elsewhere, shared[:2], rtol=0, atol=1e-5)
    torch.testing.assert_close(text.forward(embeddings[:2], end[:2]), shared[:2], rtol=0, atol=1e-5)
    assert (text.encode(tokens) - model.text(tokens)).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["vit", "rn", "asym"])
@torch.no_grad()
def test_attention_is_the_towers_own(tiny, name):
    backbone, images = tiny[name], pictures(name)
    before = backbone.encode_image(images)
    maps = backbone.image.attention(images)
    tokens = 1 + np.prod(backbone.image.grid(*images.shape[-2:]))
    assert len(maps) == (1 if name == "rn" else backbone.image.depth)
    for weights in maps:
        assert weights.shape == (8, backbone.image.heads, tokens, tokens)
        assert (weights.sum(-1) - 1).abs().max() < 1e-5
    assert torch.equal(backbone.encode_image(images), before)
    if name == "rn":  # the pool's weights on its own values give the feature
        image = backbone.image
        pool, last = backbone.model.visual.attnpool, image.last_map(images).flatten(2).transpose(1, 2)
        joined = torch.cat([last.mean(1, keepdim=True), last], 1) + pool.positional_embedding
        values = pool.v_proj(joined).unflatten(-1, (image.heads, -1)).transpose(1, 2)
        feature = pool.c_proj((maps[0][:, :, :1] @ values).transpose(1, 2).flatten(2))[:, 0]
    else:
        block = backbone.model.visual.transformer.resblocks[0]
        normed = block.ln_1(backbone.image._tokens(images)[0])
        expected = block.attn(normed, normed, normed, average_attn_weights=False)[1]
        assert (maps[0] - expected).abs().max() < 1e-5
        return
    assert (feature - before).abs().max() < 1e-4


@torch.no_grad()
def test_prompts_among_the_tokens(tiny):
    image, images = tiny["asym"].image, pictures("asym")
    prompts = 0.1 * torch.randn(2, image.width)
    plain, prompted = image.forward(images), image.forward(images, prompts)
    assert (prompted - plain).abs().max() > 1e-3
    each = image.forward(images, prompts.expand(8, -1, -1))
    assert (each - prompted).abs().max() < 1e-5
    deep = image.forward(images, prompts, deep=[prompts + 1.0])
    assert (deep - prompted).abs().max() > 1e-3
    behind = image.forward(images, prompts, behind_norm=True)
    assert (behind - prompted).abs().max() > 1e-3
    normed = image.forward(images, image.visual.ln_pre(prompts), behind_norm=True)
    assert (normed - prompted).abs().max() < 1e-5
    with pytest.raises(VlmlabError, match="blocks exceed"):
        image.forward(images, prompts, deep=[prompts] * 3)


@torch.no_grad()
def test_deep_prompts_that_look_at_the_picture(tiny):
    image, images = tiny["asym"].image, pictures("asym")
    prompts = 0.1 * torch.randn(2, image.width)
    seen = []

    def means(tokens):
        seen.append(tokens)
        return tokens.mean(1, keepdim=True).expand(-1, 3, -1)  # as many as they like

    found = image.forward(images, prompts, deep=[means])
    assert [tokens.shape for tokens in seen] == [(8, 17, image.width)]  # class token and patches, no prompts
    joined, _ = image._tokens(images, prompts)
    first = image.visual.transformer.resblocks[0](joined)[:, :17]
    assert (seen[0] - first).abs().max() < 1e-5
    fixed = image.forward(images, prompts, deep=[first.mean(1, keepdim=True).expand(-1, 3, -1)])
    assert (found - fixed).abs().max() < 1e-5
    maps = image.attention(images, prompts, deep=[means])
    assert [weights.shape[-1] for weights in maps] == [19, 20, 20]


@torch.no_grad()
def test_a_tower_without_tokens_names_one_that_has_them(tiny):
    with pytest.raises(VlmlabError, match=r"MaPLe.*micro-vit"):
        tiny["rn"].image.forward(pictures("rn"), torch.zeros(2, 512))
    assert "tokens" not in tiny["rn"].image.supports
    for closed in (tiny["rn"].image, variant("timm").image):
        with pytest.raises(VlmlabError, match=r"the visual prompts of UPT need a ViT: use micro-vit"):
            closed.check_prompts("UPT", 1)
    with pytest.raises(VlmlabError, match=r"UPT asks for prompts in 5 blocks and the image tower of tiny-vit has 4"):
        tiny["vit"].image.check_prompts("UPT", 5)
    tiny["vit"].image.check_prompts("UPT", 4)
    with pytest.raises(VlmlabError, match="no prompt tokens"):
        tiny["rn"].image.attention(pictures("rn"), torch.zeros(2, 512))
    with pytest.raises(VlmlabError, match="attention maps"):
        variant("timm").image.attention(torch.zeros(1, 3, 64, 64))


@torch.no_grad()
def test_other_picture_sizes(tiny):
    assert tiny["vit"].image.local_features(torch.randn(1, 3, 48, 64)).shape == (1, 64, 6, 8)
    assert tiny["rn"].image.local_features(torch.randn(1, 3, 96, 64)).shape == (1, 64, 3, 2)
    assert tiny["rn"].encode_image(torch.randn(1, 3, 128, 128)).shape == (1, 64)


@torch.no_grad()
def test_the_grid_is_that_of_the_stride(tiny):
    towers = {
        "vit": (tiny["vit"].image, (8, 8)),
        "rn": (tiny["rn"].image, (32, 32)),
        "timm": (variant("timm").image, (32, 32)),
    }
    for name, (image, stride) in towers.items():
        assert image.stride == stride
        for size in ((64, 96), (71, 100)):
            found = image.local_features(torch.randn(1, 3, *size)).shape[-2:]
            assert found == image.grid(*size), name


def test_preprocessing(tiny):
    backbone = tiny["vit"]
    rng = np.random.default_rng(0)
    right = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    own = torch.stack([backbone.transform(Image.fromarray(p)) for p in right])
    for given in (right, torch.from_numpy(right), list(right), [Image.fromarray(p) for p in right]):
        assert (backbone.preprocess(given) - own).abs().max() < 1e-5
    blocks = np.kron(rng.integers(0, 256, (2, 6, 8, 3), dtype=np.uint8), np.ones((1, 10, 10, 1), np.uint8))
    by_pil = torch.stack([backbone.transform(Image.fromarray(p)) for p in blocks])
    assert torch.equal(backbone.preprocess(blocks), by_pil)
    sizes = backbone.preprocess([right[0], blocks[0], Image.fromarray(right[1])])
    assert torch.allclose(sizes[1], by_pil[0]) and sizes.shape == (3, 3, 32, 32)
    for wrong in (right[..., :1], right.astype(np.float32), []):
        with pytest.raises(VlmlabError):
            backbone.preprocess(wrong)


@torch.no_grad()
def test_class_embeddings(tiny):
    backbone = tiny["vit"]
    rows = backbone.class_embeddings(CLASSES, ["a photo of a {}.", "a {} on a hill"])
    by_hand = torch.stack(
        [
            torch.nn.functional.normalize(
                backbone.encode_text([f"a photo of a {c}.", f"a {c} on a hill"]), dim=-1
            ).mean(0)
            for c in CLASSES
        ]
    )
    assert (rows - torch.nn.functional.normalize(by_hand, dim=-1)).abs().max() < 1e-5


def names_are_checked(text):
    """Of a text tower: what it reads, what it does not, and what it would cut."""
    text.check_names(["cat", "ice_cream truck", "!", "Ü"], "a photo of a {}.")
    for name, told in (("", "holds no word"), ("_", "holds no word"), ("many words " * 60, "does not fit into the")):
        with pytest.raises(VlmlabError, match=told):
            text.check_names(["cat", name], "a photo of a {}.")
    fits = "cat " * (text.context_length - 8)
    text.check_names([fits])
    with pytest.raises(VlmlabError, match="does not fit"):
        text.check_names([fits], "a photo of a very large and rather old {}.")


def test_names_are_checked_before_they_are_cut(tiny):
    names_are_checked(tiny["vit"].text)


def test_fingerprint_follows_weights_and_activation():
    assert tiny_backbone("vit").fingerprint() == tiny_backbone("vit").fingerprint()
    assert tiny_backbone("vit", quick_gelu=False).fingerprint() != tiny_backbone("vit").fingerprint()
    changed = tiny_backbone("vit")
    changed.model.visual.proj.data[0, 0] += 1
    assert changed.fingerprint() != tiny_backbone("vit").fingerprint()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["a", "A"], True),
        (["café", "cafe\u0301"], True),
        (["fish &amp; chips", "fish & chips"], True),
        (["a", "b"], False),
    ],
)
def test_names_that_the_tokenizer_folds_into_one_are_refused(names, told):
    text = load_backbone("micro-vit", device="cpu").text
    if told:
        with pytest.raises(VlmlabError, match=r"reads the class names .* as the same tokens"):
            text.check_names(["tree", *names])
    else:
        text.check_names(["tree", *names, "tree"])
