import numpy as np
import pytest
import torch
from torch import nn

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import same
from vlmlab.methods.method import Batch
from vlmlab.methods.other.maskclip import ABSENT, MaskCLIP
from vlmlab.methods.templates import SETS

REFINEMENTS = {
    "plain": {},
    "ks0.6": {"key_smoothing": 0.6},
    "ks1": {"key_smoothing": 1.0},
    "pd0.5": {"prompt_denoising": 0.5},
    "ks1_pd0.5": {"key_smoothing": 1.0, "prompt_denoising": 0.5},
}
CASES = [(inputs, name) for inputs in ("vit/res32", "vit/res48", "rn/res64", "rn/res128") for name in REFINEMENTS]


@pytest.fixture(scope="module")
def numbers():
    return golden("maskclip")


@pytest.fixture(scope="module")
def backbones():
    """The release runs the ViT with ordinary GELU and an eps of 1e-6; text towers keep QuickGELU."""
    vit = tiny_backbone("vit", eps=1e-6)
    for block in vit.model.visual.transformer.resblocks:
        block.mlp.gelu = nn.GELU()
    resnet = tiny_backbone("rn")
    return {"vit": vit, "rn": resnet}


def pictures(inputs: str) -> torch.Tensor:
    if inputs == "vit/res48":
        noise = np.random.Generator(np.random.PCG64(1)).standard_normal((2, 3, 48, 48))
        return torch.from_numpy(noise.astype(np.float32))
    side = int(inputs.split("res")[1])
    return noise_images(side, 2 if side == 128 else 8)


def prepared(backbone, numbers=None, **settings):
    method = MaskCLIP(backbone, MaskCLIP.configure(backbone, **({"scale": 100.0} | settings)))
    method.prepare(task(CLASSES, ["a photo of a {}."] if numbers is None else numbers["templates"].tolist()))
    return method


def test_every_stored_variant_is_tested(numbers):
    stored = {tuple(key.split("/out/")) for key in numbers if "/out/" in key}
    extra = {(f"vit/res{s}", "plain_resized_to_image_first_image") for s in (32, 48)}
    extra |= {(f"rn/res{s}", "attn_pooling") for s in (64, 128)}
    assert stored == set(CASES) | extra


@pytest.mark.parametrize(("inputs", "name"), CASES)
def test_numbers_of_the_official_implementation(inputs, name, backbones, numbers):
    tower = inputs.split("/")[0]
    method = prepared(backbones[tower], numbers, **REFINEMENTS[name])
    same(method.classifier, numbers[f"{tower}/text_embeddings"])
    same(method.dense(pictures(inputs)), numbers[f"{inputs}/out/{name}"])


@pytest.mark.parametrize("inputs", ["vit/res32", "vit/res48"])
def test_map_enlarged_to_the_picture(inputs, backbones, numbers):
    method = prepared(backbones["vit"], numbers)
    enlarged = method.logits(Batch(images=pictures(inputs)))
    expected = numbers[f"{inputs}/out/plain_resized_to_image_first_image"]
    same(enlarged[:1], expected)
    assert torch.equal(method.predict(pictures(inputs)), enlarged.argmax(1))
    assert (method.predict(pictures(inputs))[0].numpy() == expected[0].argmax(0)).mean() > 0.999


@pytest.mark.parametrize("inputs", ["rn/res64", "rn/res128"])
def test_attention_pooling_baseline(inputs, numbers):
    """The release's ResNet with attention, which leaves the positions of the pool out."""
    backbone = tiny_backbone("rn")
    backbone.model.visual.attnpool.positional_embedding.data.zero_()
    method = prepared(backbone, numbers, features="plain")
    same(method.dense(pictures(inputs)), numbers[f"{inputs}/out/attn_pooling"])


def test_templates_are_the_released_list(numbers, backbones):
    assert sorted(SETS["scene85"]) == sorted(numbers["templates"].tolist())
    method = MaskCLIP(backbones["vit"])  # with the defaults
    method.prepare(task(CLASSES, ["a photo of a {}."]))
    same(method.classifier, numbers["vit/text_embeddings"])


def test_nothing_learns(backbones):
    assert list(prepared(backbones["vit"]).parameters()) == []


def test_scale_is_the_backbones_unless_it_is_set(backbones):
    own = prepared(backbones["vit"], key_smoothing=1.0, scale=None)
    set_to_it = prepared(backbones["vit"], key_smoothing=1.0, scale=float(backbones["vit"].logit_scale))
    torch.testing.assert_close(own.dense(pictures("vit/res32")), set_to_it.dense(pictures("vit/res32")))


def test_denoising_removes_whole_classes(backbones):
    method = prepared(backbones["vit"], prompt_denoising=0.5)
    scores = method.dense(pictures("vit/res32"))
    gone = (scores == ABSENT).flatten(2)
    assert torch.equal(gone.any(2), gone.all(2)) and 0 < gone.float().mean() < 1


def test_masks_have_the_size_that_is_asked_for(backbones):
    method = prepared(backbones["vit"])
    images = torch.randn(2, 3, 32, 56, generator=torch.Generator().manual_seed(0))
    assert method.predict(images).shape == (2, 32, 56)
    masks = method.predict(images, size=(100, 171))
    assert masks.shape == (2, 100, 171) and masks.dtype == torch.int64
    assert set(masks.unique().tolist()) <= set(range(5))


def test_other_words_need_no_preparation(backbones):
    method = prepared(backbones["vit"])
    method.set_classes(["sky", "grass"], ["a photo of the {}."])
    assert method.logits(Batch(images=pictures("vit/res32"))).shape == (8, 2, 32, 32)


@pytest.mark.parametrize(("tower", "size", "places"), [("vit", (33, 39), (5, 5)), ("rn", (64, 75), (2, 3))])
def test_no_edge_of_a_picture_is_left_out(tower, size, places, backbones):
    method = prepared(backbones[tower])
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    down, across = method.backbone.image.stride
    whole = torch.zeros(1, 3, places[0] * down, places[1] * across)
    whole[..., : size[0], : size[1]] = images
    found = method.logits(Batch(images=images))
    assert method.dense(whole).shape[-2:] == places
    torch.testing.assert_close(found, method.logits(Batch(images=whole))[..., : size[0], : size[1]])
    other = images.clone()
    other[..., -1] += 5.0
    assert not torch.allclose(method.logits(Batch(images=other)), found, atol=1e-3)
    assert method.predict(images).shape == (1, *size)
