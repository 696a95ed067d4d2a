"""CLIPSeg: the release's decoder, what it starts as, which phrases and prompts it learns from."""

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.parity import learned, same, same_gradients
from vlmlab.datasets.truth import UNLABELLED
from vlmlab.errors import VlmlabError
from vlmlab.learning.fit import fit
from vlmlab.methods.method import Batch
from vlmlab.methods.segmentation.clipseg import CLIPSeg, Decoder, prompt_crops, read_blocks
from vlmlab.testing import toys


def released(after=(3, 2)) -> CLIPSeg:
    """The system on the tiny CLIP of the reference numbers, with the weights that they were computed with."""
    backbone = tiny_backbone("asym")
    method = CLIPSeg(backbone, CLIPSeg.configure(backbone, templates="a photo of a {}.", start="random"))
    method.set_classes(CLASSES, ["{}"])
    method.after = list(after)
    method.decoder = Decoder([128] * len(after), 32, 16, 4, 2048, (8, 8), pre_norm=False)
    return method


def test_maps_loss_and_gradients_are_those_of_the_release():
    numbers = golden("clipseg")
    method = released()
    method.decoder.load_state_dict(learned(numbers))
    same(method.text[[1, 3, 4], 0], numbers["out/text"])
    images = noise_images(32, 3)
    same(method.backbone.encode_image(images), numbers["out/image"])
    maps = method.decoder(method.read(images), torch.from_numpy(numbers["in/mixed"]), (4, 4))
    same(maps, numbers["out/maps"])
    loss = F.binary_cross_entropy_with_logits(maps, (images.mean(1) > 0).float())
    same(loss, numbers["out/loss"])
    loss.backward()
    same_gradients({name: p.grad for name, p in method.decoder.named_parameters()}, numbers)


def test_image_prompts_are_those_of_the_release():
    numbers = golden("clipseg")
    images, masks = torch.from_numpy(numbers["in/prompt_images"]), torch.from_numpy(numbers["in/prompt_masks"]) > 0
    crops = prompt_crops(images, masks)
    same(crops, numbers["out/prompts"])
    assert CLIPSeg.Config().crop == "padded" and (crops[0, :, :, 0] == 0).all()  # a tall thing has zeros beside it
    assert prompt_crops(images, masks, "square")[0, :, :, 0].abs().min() > 0


def test_a_map_per_prompt_is_the_map_of_the_prompt_alone():
    method = released()
    images, prompts = noise_images(32, 2), method.text.mean(1)
    together = method.maps_by(images, prompts)
    alone = method.maps_by(images[1:], prompts[2:3])
    torch.testing.assert_close(together[1:, 2:3], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(method.logits(Batch(images=images)), together)


@pytest.fixture(scope="module")
def prepared():
    task = toys.task_for("clipseg").seen_by("open-vocabulary")
    method = CLIPSeg(toys.backbone(), CLIPSeg.configure(toys.backbone(), batch_size=6, epochs=1))
    fit(method, task, should_stop=lambda: True)
    return method, task


def test_the_cosine_start_is_the_cosine_of_place_and_prompt():
    method = CLIPSeg(toys.backbone(), CLIPSeg.configure(toys.backbone(), width=16))  # no direction is lost
    task = toys.task_for("clipseg").seen_by("open-vocabulary")
    fit(method, task, should_stop=lambda: True)
    for name in ("reduces.1", "reduces.2"):  # only the first activation carries the prompt
        torch.nn.init.zeros_(method.decoder.get_submodule(name).weight)
    images = method.framed([task.train.images(0)])[0]
    local = F.normalize(method.backbone.image.local_features(images), dim=1)
    prompt = F.normalize(method.text.mean(1)[:2], dim=-1)
    expected = 20 * torch.einsum("behw,ce->bchw", local, prompt) - 5
    maps = method.maps_by(images, prompt * 16**0.5)[..., ::8, ::8]
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-3)


def test_phrases_are_present_or_absent_by_share(prepared):
    method, _ = prepared
    present = method.present[method.present.any(1)][:6]
    for share, shown in ((0.0, True), (1.0, False)):
        method.config.negatives = share
        chosen = method.phrases(present)
        assert present.gather(1, chosen[:, None])[:, 0].eq(shown).all() and method.granted[chosen].all()
    method.config.negatives = 0.2
    nothing = torch.zeros_like(present)
    assert method.granted[method.phrases(nothing)].all()


def test_image_prompts_show_granted_classes_alone(prepared):
    method, task = prepared
    assert set(method.prompt_class.tolist()) == set(task.base) == set(method.granted.nonzero().flatten().tolist())
    assert len(method.prompts) == len(method.prompt_class)
    assert method.prompt_class.bincount().max() <= method.config.prompts_per_class
    torch.testing.assert_close(method.prompts.norm(dim=-1), torch.full((len(method.prompts),), 4.0))  # sqrt(e)


def test_a_sentence_counts_no_more_than_the_setting_and_alone_where_there_is_no_image(prepared):
    method, task = prepared
    classes = torch.tensor([task.base[0]] * 40 + [task.new[0]])
    method.config.most_text = 0.0
    prompts = method.mixed(classes)
    assert all((method.prompts[method.prompt_class == task.base[0]] == p).all(1).any() for p in prompts[:-1])
    assert (method.text[task.new[0]] == prompts[-1]).all(1).any()
    method.config.most_text = 0.5


def test_pixels_without_a_granted_class_do_not_count(prepared):
    method, task = prepared
    index = torch.arange(4)
    images = method.framed([task.train.images(i) for i in range(4)])[0]
    masks = torch.full((4, 32, 32), UNLABELLED)
    method.decoder.zero_grad()
    loss = method.loss(Batch(images=images, index=index, masks=masks))
    loss.backward()
    assert loss.item() == 0 and all(p.grad.abs().max() == 0 for p in method.decoder.parameters())


def test_what_lies_around_a_thing_is_dark_in_its_prompt(prepared):
    method, _ = prepared
    images = torch.ones(2, 3, 32, 32)
    images[1, :, :8] = -1.0  # far from the thing
    masks = torch.zeros(2, 32, 32, dtype=torch.bool)
    masks[:, 20:28, 20:28] = True
    same_thing = method.image_prompts(images, masks)
    torch.testing.assert_close(same_thing[0], same_thing[1])
    changed = images[:1].clone()
    changed[:, :, 20:28, 20:28] = -1
    assert (method.image_prompts(changed, masks[:1]) - same_thing[0]).abs().max() > 1e-3


def test_blocks_are_read_at_their_share_of_the_way():
    assert read_blocks("10, 8, 4", 12) == [10, 8, 4] and read_blocks("12, 8, 4", 6) == [6, 4, 2]
    for wrong in ("", "a", "0", "13", "1,1", "2, 1"):
        with pytest.raises(VlmlabError, match="must name different blocks"):
            read_blocks(wrong, 6)
