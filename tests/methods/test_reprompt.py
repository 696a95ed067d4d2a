import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, noise_images, tiny_backbone
from tests.methods.fakes import Pictures, task
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.other.zero_shot import ZeroShot
from vlmlab.methods.visual_prompt.reprompt import HARDEST, RePrompt

SUPPORT = Pictures([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


def prepared(backbone, classes=CLASSES, shots=2, support=SUPPORT, val=None, **settings):
    method = RePrompt(backbone, RePrompt.configure(backbone, **({"from_block": 3, "neighbours": 3} | settings)))
    method.prepare(task(classes, shots=shots, support=support, val=val))
    return method


def batch(backbone, index):
    pictures = torch.from_numpy(SUPPORT.images(index))
    return Batch(images=backbone.preprocess(pictures), labels=SUPPORT.labels[index], index=torch.tensor(index))


def test_what_is_learned_gets_a_gradient_and_nothing_else(backbone):
    method = prepared(backbone)
    method.loss(batch(backbone, [0, 3, 6])).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in method.parameters())
    assert all(p.grad is None for p in backbone.parameters())
    e = width = 64
    maker = (2 * e * 128 + 128) + (128 * 4 * width + 4 * width)
    assert method.trainable_parameters == 4 * 8 * width + maker
    assert prepared(backbone, retrieval=False).trainable_parameters == 4 * 8 * width


def test_without_vote_and_retrieved_tokens_it_is_the_plain_prompt(backbone):
    plain, method = prepared(backbone, retrieval=False), prepared(backbone, share=0.0)
    assert torch.equal(plain.visual, method.visual)
    images = Batch(images=noise_images(32))
    first, *deep = plain.visual
    f = F.normalize(backbone.image.forward(images.images, first, deep, behind_norm=True), dim=-1)
    torch.testing.assert_close(plain.logits(images), backbone.logit_scale * f @ plain.classifier.T)
    method.in_training = False
    torch.testing.assert_close(method.logits(images).softmax(-1), plain.logits(images).softmax(-1))


def test_a_vote_of_one_is_the_vote_of_the_neighbours(backbone):
    method = prepared(backbone, share=1.0, neighbours=10)
    images = noise_images(32)
    f0 = F.normalize(backbone.encode_image(images), dim=-1)
    weights = (method.config.sharpness * f0 @ method.store.keys.T).softmax(-1)
    expected = weights @ F.one_hot(SUPPORT.labels, 5).float()
    torch.testing.assert_close(method.logits(Batch(images=images)).softmax(-1), expected)


def test_retrieved_tokens_stand_in_the_late_blocks_only(backbone, monkeypatch):
    method, seen = prepared(backbone), []
    forward = backbone.image.forward

    def spy(images, first, deep, **rest):
        seen.extend([first.shape[-2], *(d.shape[-2] for d in deep)])
        return forward(images, first, deep, **rest)

    monkeypatch.setattr(backbone.image, "forward", spy)
    method.prompted(noise_images(32), method.look_up(method.store.keys[:8]))
    assert seen == [8, 8, 12, 12]  # from the third block on


def test_the_loss_follows_its_equation_and_no_picture_finds_itself(backbone):
    method, index = prepared(backbone, gamma=0.7), [1, 4, 8]
    given = batch(backbone, index)
    own = torch.tensor(index)
    found = method.look_up(method.store.keys[own], own)
    assert not (found.index == own[:, None]).any()
    q = method.store.probabilities(found)[range(3), given.labels]
    ce = F.cross_entropy(method.prompted(given.images, found), given.labels, reduction="none")
    expected = (ce * (1 + 0.7 * (-q.log()).clamp_max(HARDEST))).mean()
    torch.testing.assert_close(method.loss(given), expected)
    assert method.loss(given).isfinite()


def test_one_shot_learns_a_plain_prompt_and_still_votes(backbone):
    one = Pictures([0, 1, 2, 3, 4])
    method = prepared(backbone, shots=1, support=one, share=0.5)
    assert method.trainable_parameters == 4 * 8 * 64
    images = Batch(images=backbone.preprocess(torch.from_numpy(one.images([0, 2]))))
    assert method.logits(images).argmax(-1).tolist() == [0, 2]  # the store knows these very images


def test_the_share_of_the_vote_is_chosen_on_validation_pictures(backbone):
    method = prepared(backbone, val=SUPPORT)  # which the store knows by heart
    method.finish(task(CLASSES, val=SUPPORT))
    assert method.share > 0
    accuracy = method.logits(Batch(images=backbone.preprocess(torch.from_numpy(SUPPORT.images(range(10))))))
    assert (accuracy.argmax(-1) == SUPPORT.labels).all()
    fixed = prepared(backbone, val=SUPPORT, share=0.1)
    fixed.finish(task(CLASSES, val=SUPPORT))
    assert float(fixed.share) == pytest.approx(0.1)


def test_other_classes_keep_the_prompts_and_lose_the_vote(backbone):
    method = prepared(backbone, CLASSES, share=0.9)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.set_classes(["bus", "cup"], ["a photo of a {}."])
    assert method.logits(Batch(images=noise_images(32))).shape == (8, 2) and not method.votes
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())
    method.set_classes(CLASSES, ["a photo of a {}."])
    assert method.votes


def test_the_vote_follows_its_classes_into_another_order(backbone):
    method, images = prepared(backbone, share=0.9), Batch(images=noise_images(32))
    before = method.logits(images)
    method.set_classes(CLASSES[::-1], ["a photo of a {}."])
    assert method.votes
    torch.testing.assert_close(method.logits(images).flip(1), before)


def test_a_crop_is_looked_up_by_its_own_feature(backbone, monkeypatch):
    method, asked = prepared(backbone), []
    monkeypatch.setattr(
        method, "look_up", lambda f0, own=None: asked.append((f0, own)) or type(method).look_up(method, f0, own)
    )
    whole = batch(backbone, [0, 3])
    crop = Batch(images=whole.images.flip(-1), labels=whole.labels, index=whole.index, cropped=True)
    for given in (whole, crop):
        method.loss(given)
    (of_whole, own), (of_crop, same_own) = asked
    torch.testing.assert_close(of_crop, F.normalize(backbone.encode_image(crop.images), dim=-1))
    assert not torch.allclose(of_whole, of_crop) and torch.equal(own, same_own), "its own key stays left out"


def test_what_it_cannot_do_is_said_in_one_line(backbone):
    with pytest.raises(VlmlabError, match="the visual prompts of RePrompt need a ViT: use micro-vit"):
        RePrompt(tiny_backbone("rn"))
    with pytest.raises(
        VlmlabError, match="RePrompt asks for prompts in 7 blocks and the image tower of tiny-vit has 4"
    ):
        RePrompt(backbone)
    with pytest.raises(VlmlabError, match="at least one shot"):
        prepared(backbone, support=Pictures([]))


def test_the_classifier_is_that_of_zero_shot(backbone):
    zero_shot = ZeroShot(backbone)
    zero_shot.prepare(task(CLASSES))
    images = Batch(images=noise_images(32))
    f0 = F.normalize(backbone.encode_image(images.images), dim=-1)
    expected = zero_shot.logits(images)
    torch.testing.assert_close(backbone.logit_scale * f0 @ prepared(backbone).classifier.T, expected)
