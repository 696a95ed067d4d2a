"""ZegCLIP: the release's tower, decoder and loss, what it starts as, what teaches it and what may be asked."""

import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import golden, noise_images, tiny_backbone
from tests.methods.parity import learned, same, same_gradients
from vlmlab.datasets.truth import NOTHING, UNLABELLED
from vlmlab.errors import VlmlabError
from vlmlab.learning.fit import fit
from vlmlab.methods.method import Batch
from vlmlab.methods.segmentation.lseg import renumbered
from vlmlab.methods.segmentation.maskclip_plus import pseudo_labelled
from vlmlab.methods.segmentation.zegclip import Decoder, Prompts, ZegCLIP, enlarged, prompted, separate_loss
from vlmlab.testing import toys

SEEN = [0, 2, 3]  # of five classes of the reference numbers


def released(numbers) -> tuple[Prompts, Decoder]:
    """The learned parts with the weights that the reference numbers were computed with."""
    values = learned(numbers)
    prompts, decoder = Prompts(3, 3, 128, 8), Decoder(32, 3, 4)
    tower = {name.removeprefix("tower/prompt_"): value for name, value in values.items() if "tower/prompt" in name}
    tokens = torch.cat([tower.pop("embeddings"), values["tower/deep_prompt_embeddings"]])
    prompts.load_state_dict(tower | {"tokens": tokens})
    decoder.load_state_dict({ours(name): value for name, value in values.items() if name.startswith("head/")})
    return prompts, decoder


def ours(name: str) -> str:
    """The release's name of a parameter of the head -> ours; the last of three layers is `last`."""
    name = name.removeprefix("head/").removeprefix("decoder_1.").replace("multihead_attn.", "")
    return name.replace("layers.2.", "last.")


def test_tower_maps_loss_and_gradients_are_those_of_the_release():
    numbers = golden("zegclip")
    prompts, decoder = released(numbers)
    places, image = prompted(tiny_backbone("asym").image, noise_images(32, 3), prompts)
    same(places, numbers["out/places"])
    same(image, numbers["out/image"])
    text, target = torch.from_numpy(numbers["in/text"]), torch.from_numpy(numbers["in/target"])
    maps = enlarged(decoder(places, image, text[SEEN]).unflatten(2, (4, 4)), (16, 16))
    same(maps, numbers["out/maps"])
    loss = separate_loss(maps, target.masked_fill(target == 255, -1))
    same(loss, numbers["out/loss"])
    loss.backward()
    found = {}
    for name in learned(numbers):
        if name.startswith("head/"):
            found[name] = decoder.get_parameter(ours(name)).grad
        elif "embeddings" not in name:
            found[name] = prompts.get_parameter(name.removeprefix("tower/prompt_")).grad
    found["tower/prompt_embeddings"], found["tower/deep_prompt_embeddings"] = prompts.tokens.grad.split([1, 2])
    same_gradients(found, numbers)


def test_predictions_and_pseudo_labels_are_those_of_the_release():
    numbers = golden("zegclip")
    backbone = tiny_backbone("asym")
    method = ZegCLIP(backbone, ZegCLIP.configure(backbone, calibration=0.1))
    method.prompts, method.decoder = released(numbers)
    method.classes, method.taught = list("abcde"), {"a", "c", "d"}
    method.words = torch.from_numpy(numbers["in/text"])
    images = noise_images(32, 3)
    with torch.no_grad():
        for transductive, name in ((False, "test"), (True, "transductive")):
            method.config.self_training = transductive
            found = F.interpolate(method.logits(Batch(images=images)), scale_factor=0.5, mode="area")
            # The release enlarges to its own size before the sigmoid; here the batch's is twice that.
            maps = enlarged(method.maps_of(images, method.words), (16, 16)).sigmoid()
            if not transductive:
                maps[:, SEEN] -= 0.1
            same(maps, numbers[f"out/{name}"])
            torch.testing.assert_close(found, maps, atol=0.02, rtol=0)
    partly = torch.from_numpy(numbers["in/partly"])
    masks = partly.masked_fill(partly == -1, UNLABELLED).masked_fill(partly == 255, NOTHING)
    found = pseudo_labelled(masks, torch.from_numpy(numbers["out/all_maps"]), [1, 4])
    assert found.masked_fill(found == NOTHING, 255).tolist() == numbers["out/pseudo"].tolist()


def test_the_cosine_start_is_the_cosine_of_place_and_word():
    generator = torch.Generator().manual_seed(0)
    places, image, words = (
        F.normalize(torch.randn(*shape, generator=generator), dim=-1) for shape in ((2, 9, 16), (2, 16), (5, 16))
    )
    for descriptor in (True, False):
        decoder = Decoder(16, 1, 4, descriptor, cosine=True)
        torch.testing.assert_close(decoder(places, image, words), 20 * words @ places.mT - 5)
    deep = Decoder(16, 3, 4, cosine=True)
    assert torch.corrcoef(torch.stack([deep(places, image, words), 20 * words @ places.mT]).flatten(1))[0, 1] > 0.98


def test_a_word_s_map_changes_with_the_image_by_the_descriptor_alone():
    generator = torch.Generator().manual_seed(1)
    places, words = torch.randn(1, 9, 16, generator=generator), torch.randn(5, 16, generator=generator)
    one, other = torch.randn(2, 1, 16, generator=generator)
    for descriptor in (True, False):
        decoder = Decoder(16, 2, 4, descriptor)
        assert torch.equal(decoder(places, one, words), decoder(places, other, words)) != descriptor


def test_words_do_not_compete_and_pixels_without_class_are_background():
    maps = torch.zeros(1, 3, 2, 2)
    target = torch.tensor([[[0, 0], [-1, -1]]])
    alone = separate_loss(maps, target)
    raised = maps.clone()
    raised[:, 1] += 3  # another word that claims the image costs by itself
    raised.requires_grad_()
    loss = separate_loss(raised, target)
    assert loss > alone
    (gradient,) = torch.autograd.grad(loss, raised)
    changed = raised.detach().clone()
    changed[:, 1] -= 3
    changed.requires_grad_()
    (other,) = torch.autograd.grad(separate_loss(changed, target), changed)
    torch.testing.assert_close(gradient[:, 0], other[:, 0])  # and changes nothing for the first
    assert (gradient[:, 1] > 0).all()  # on pixels without class, too


@pytest.fixture(scope="module")
def prepared():
    task = toys.task_for("zegclip").seen_by("open-vocabulary")
    method = ZegCLIP(toys.backbone(), ZegCLIP.configure(toys.backbone(), self_training=True, epochs=4))
    fit(method, task, should_stop=lambda: True)
    return method, task


def batch_of(method, task, mask: int) -> Batch:
    images = method.framed([task.train.images(i) for i in range(4)])[0]
    return Batch(images=images, index=torch.arange(4), masks=torch.full((4, 32, 32), mask))


def test_new_words_are_taught_in_the_second_half_alone(prepared):
    method, task = prepared
    assert [len(stage) for stage in method.stages(task)] == [len(task.train)] * 2 and method.planned_epochs == 2
    batch, losses = batch_of(method, task, UNLABELLED), {}
    before = method.task_words.clone()
    for stage in (0, 1):
        method.stage = stage
        method.task_words[:] = before
        first = method.loss(batch)
        method.task_words[task.new] = before[task.new].flip(-1)
        losses[stage] = (first, method.loss(batch))
    method.task_words[:], method.stage = before, 0
    assert losses[0][0] == losses[0][1] and losses[1][0] != losses[1][1]


def test_gradients_go_through_the_tower_and_stay_out_of_it(prepared):
    method, task = prepared
    method.zero_grad()
    method.loss(batch_of(method, task, task.base[0])).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())
    assert all(p.grad is None for p in method.backbone.parameters())
    assert {p.shape[0] for name, p in method.named_parameters() if name == "prompts.tokens"} == {
        method.backbone.image.depth
    }


def test_what_was_taught_is_known_by_its_name(prepared):
    method, task = prepared
    batch = batch_of(method, task, task.base[0])
    with torch.no_grad():
        method.config.self_training = False
        less = method.logits(batch)
        method.config.calibration = 0.0
        more = method.logits(batch)
        difference = (more - less).mean((0, 2, 3))
        assert [c for c in range(len(task.classes)) if difference[c] > 0.05] == task.base
        method.set_classes(task.classes[::-1], task.templates)
        torch.testing.assert_close(method.logits(batch), more.flip(1))
    method.set_classes(task.classes, task.templates)
    method.config.self_training, method.config.calibration = True, 0.1


def test_without_prompts_and_among_the_words():
    task = toys.task_for("zegclip").seen_by("open-vocabulary")
    method = ZegCLIP(toys.backbone(), ZegCLIP.configure(toys.backbone(), prompts=0, loss="exclusive", calibration=0))
    fit(method, task, should_stop=lambda: True)
    assert [name for name, _ in method.prompts.named_parameters()] == ["norm.weight", "norm.bias"]
    scores = method.logits(batch_of(method, task, task.base[0]))
    torch.testing.assert_close(scores.sum(1), torch.ones_like(scores[:, 0]))
    assert method.loss(batch_of(method, task, UNLABELLED)) == 0
    assert (renumbered(torch.tensor([[[task.new[0]]]]), method.seen) < 0).all()


def test_the_rate_rises_and_falls_as_a_power():
    method = ZegCLIP(toys.backbone(), ZegCLIP.configure(toys.backbone(), lr=0.1, warmup_epochs=1))
    method.batches = 4
    assert method.learning_rate(0, 20) == pytest.approx(1e-7, rel=0.01)
    assert method.learning_rate(2, 20) == pytest.approx(0.05 * 0.9**0.9, rel=0.01)
    assert method.learning_rate(10, 20) == pytest.approx(0.1 * 0.5**0.9, rel=0.01)
    assert method.learning_rate(20, 20) == pytest.approx(1e-6)


def test_heads_must_divide_the_width():
    method = ZegCLIP(toys.backbone(), ZegCLIP.configure(toys.backbone(), heads=3))
    with pytest.raises(VlmlabError, match="does not divide"):
        method.prepare(toys.task_for("zegclip").seen_by("open-vocabulary"))
