import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import of_variant, same, same_gradient
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.other.zero_shot import ZeroShot
from vlmlab.methods.text_prompt import tpt
from vlmlab.methods.text_prompt.tpt import TPT, averaged_entropy, confident
from vlmlab.studies.experiment import Experiment
from vlmlab.studies.run import run_experiment

SHARES = {"ctx_init_p0.5": 0.5, "random_p0.25": 0.25}


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


def prepared(backbone, **settings):
    method = TPT(backbone, TPT.configure(backbone, **settings))
    method.prepare(task(CLASSES))
    return method


def views(count=3):
    """Random views [count, 6, 3, 32, 32], each image's its own."""
    return torch.randn(count, 6, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def test_every_stored_variant_is_tested():
    assert {key.split("/")[0] for key in golden("tpt")} == set(SHARES)


@pytest.mark.parametrize("variant", SHARES)
def test_numbers_of_the_official_implementation(variant, backbone):
    numbers = of_variant(golden("tpt"), variant)
    method = prepared(backbone, selection=SHARES[variant])
    expected = torch.from_numpy(numbers["param/prompt_learner.ctx"])
    if variant.startswith("ctx_init"):
        assert torch.equal(method.start, expected)
    method.start = expected
    f = F.normalize(backbone.encode_image(noise_images(32)), dim=-1)[None]
    context = expected[None].clone().requires_grad_()
    logits = method.scores(f, context)
    same(logits[0], numbers["out/view_logits"])
    kept = confident(logits, SHARES[variant])
    assert kept[0].tolist() == numbers["out/selected_idx"].tolist()
    chosen = logits[:, kept[0]]
    same(chosen[0], numbers["out/selected_logits"])
    loss = averaged_entropy(chosen)[0]
    same(loss, numbers["out/loss"])
    loss.backward()
    same_gradient(context.grad[0], numbers["grad/prompt_learner.ctx"])
    tuned = method.tune(f)[0]
    same(tuned, numbers["out/ctx_after_one_adamw_step"])
    assert (tuned - expected).abs().max() > 1e-3
    same(method.logits(Batch(images=noise_images(32)[None])), numbers["out/logits_after_step_image0"])


@pytest.mark.parametrize(("name", "steps", "share"), [("vit", 3, 0.25), ("asym", 2, 0.5), ("rn", 2, 0.25)])
def test_several_steps_of_the_official_implementation(name, steps, share):
    numbers = of_variant(golden("tpt_steps"), f"{name}_steps{steps}_p{share}")
    own = tiny_backbone(name)
    method, images = prepared(own, steps=steps, selection=share), noise_images(own.image_size)
    same(method.tune(F.normalize(own.encode_image(images), dim=-1)[None])[0], numbers["out/ctx"])
    same(method.logits(Batch(images=images[None])), numbers["out/logits"])


@pytest.mark.parametrize("steps", [1, 3])
def test_many_pictures_at_once_are_each_tuned_alone(steps, backbone):
    method = prepared(backbone, selection=0.5, steps=steps)
    with torch.no_grad():  # as evaluation calls it
        together = method.logits(Batch(images=views()))
        alone = torch.cat([method.logits(Batch(images=picture[None])) for picture in views()])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    contexts = method.tune(F.normalize(backbone.encode_image(views().flatten(0, 1)).unflatten(0, (3, 6)), dim=-1))
    assert (contexts[0] - contexts[1]).abs().max() > 1e-3


def test_every_picture_starts_anew_and_nothing_is_left_behind(backbone):
    method = prepared(backbone)
    start = method.start.clone()
    first = method.logits(Batch(images=views()))
    assert torch.equal(method.logits(Batch(images=views())), first)
    assert torch.equal(method.start, start)
    assert list(method.parameters()) == [] and all(p.grad is None for p in backbone.parameters())


def test_no_step_is_zero_shot_and_a_step_sharpens(backbone):
    zero_shot = ZeroShot(backbone)
    zero_shot.prepare(task(CLASSES))
    still = prepared(backbone, steps=0).logits(Batch(images=views()))
    torch.testing.assert_close(still, zero_shot.logits(Batch(images=views()[:, 0])), rtol=1e-4, atol=1e-4)
    method = prepared(backbone, selection=0.5)
    f = F.normalize(backbone.encode_image(views().flatten(0, 1)).unflatten(0, (3, 6)), dim=-1)
    before = method.scores(f, method.start.expand(3, -1, -1))
    after = method.scores(f, method.tune(f))
    kept = confident(before, 0.5)[..., None].expand(-1, -1, 5)
    assert (averaged_entropy(after.gather(1, kept)) < averaged_entropy(before.gather(1, kept))).all()


def test_selection_keeps_the_surest_and_at_least_one():
    logits = torch.tensor([[[0.0, 0.0], [9.0, 0.0], [1.0, 0.0], [4.0, 0.0]]])
    assert confident(logits, 0.5).tolist() == [[1, 3]]
    assert confident(logits, 0.1).tolist() == [[1]]
    assert confident(logits[0], 0.5).tolist() == [1, 3]  # one image without a batch
    assert confident(logits.expand(1, 4, 2).repeat(1, 16, 1), 0.1).shape == (1, 6)


def test_entropy_of_the_mean_probability_not_of_the_mean_logit():
    logits = torch.tensor([[[8.0, -8.0], [-8.0, 8.0]]])
    torch.testing.assert_close(averaged_entropy(logits), torch.tensor([np.log(2.0)]).float(), atol=1e-5, rtol=0)
    logits = torch.tensor([[[3.0, 0.0], [1.0, 0.0]]])
    p = logits.softmax(-1).mean(1)
    torch.testing.assert_close(averaged_entropy(logits), -(p * p.log()).sum(-1))
    assert torch.isfinite(averaged_entropy(torch.tensor([[[500.0, 0.0]]]))).all()


@pytest.mark.parametrize("augmix", [False, True])
def test_views_follow_from_the_seed(augmix, backbone):
    method = prepared(backbone, n_views=9, augmix=augmix)
    pictures = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), dtype=np.uint8)
    made = method.views(list(pictures), [5, 6])
    state = torch.get_rng_state()
    again = method.views([pictures[1]], [6])
    assert made.shape == (2, 9, 3, 32, 32)
    assert torch.equal(made[1], again[0]) and torch.equal(state, torch.get_rng_state())
    assert torch.equal(made[0, 0], backbone.preprocess(pictures[:1])[0])
    assert not torch.equal(method.views([pictures[1]], [7])[0, 1:], again[0, 1:])
    assert all(not torch.equal(made[0, i], made[0, j]) for i in range(9) for j in range(i))


def test_augmix_stays_within_the_colours_there_are(backbone):
    method = prepared(backbone, n_views=30, augmix=True)
    black = backbone.preprocess(np.zeros((1, 32, 32, 3), np.uint8))
    white = backbone.preprocess(np.full((1, 32, 32, 3), 255, np.uint8))
    picture = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    made = method.views([picture], [0])[0]
    assert (made >= black - 1e-4).all() and (made <= white + 1e-4).all()


def test_augmix_moves_pixels_as_pillow_does_in_the_release(monkeypatch):
    """At full strength, and never negated: rotation, shears and shifts of a smooth image, but for its borders."""
    monkeypatch.setattr(tpt, "_level", lambda most: most / 10)
    monkeypatch.setattr(tpt, "_either", lambda value: value)
    y, x = np.mgrid[:64, :64] / 64
    picture = np.stack([255 * x, 255 * y, 127 + 120 * np.sin(9 * x + 5 * y)], -1).round().astype(np.uint8)
    pixels, pillow = torch.from_numpy(picture).movedim(-1, 0), Image.fromarray(picture)

    def moved(*matrix):
        return pillow.transform((64, 64), Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR)

    expected = [
        pillow.rotate(3, resample=Image.Resampling.BILINEAR),
        moved(1, 0.03, 0, 0, 1, 0),
        moved(1, 0, 0, 0.03, 1, 0),
        moved(1, 0, -2, 0, 1, 0),
        moved(1, 0, 0, 0, 1, -2),
    ]
    for operation, other in zip(tpt.OPERATIONS[4:], expected, strict=True):
        ours, theirs = (
            a[4:-4, 4:-4].astype(int) for a in (operation(pixels).movedim(0, -1).numpy(), np.asarray(other))
        )
        assert np.abs(ours - theirs).max() <= 1


PET = "a centered photo of a {}, a type of pet."


def test_it_begins_as_the_sentence_of_the_dataset_if_asked_to(backbone):
    """Before the first step it is zero-shot prediction with that sentence, what stands behind the name with it."""
    tasks = [task(CLASSES), task(CLASSES)]
    tasks[1].templates = [PET, "a drawing of a {}."]
    for one in tasks:
        method = TPT(backbone, TPT.configure(backbone, init="template", steps=0))
        method.prepare(one)
        same_words = ZeroShot(backbone, ZeroShot.configure(backbone, templates=method.compared_with))
        same_words.prepare(one)
        expected = same_words.logits(Batch(images=views()[:, 0]))
        torch.testing.assert_close(method.logits(Batch(images=views())), expected, rtol=1e-4, atol=1e-4)
    assert method.compared_with == PET
    method.set_classes(CLASSES[:3], ["a sketch of {}."])
    assert torch.equal(method.start, method.prompts.words) and len(method.prompts.rest) == 3


def test_a_sentence_without_words_before_the_name_is_refused(backbone):
    method = TPT(backbone, TPT.configure(backbone, init="template"))
    bare = task(CLASSES)
    bare.templates = ["{} texture."]
    with pytest.raises(VlmlabError, match="no word before the name"):
        method.prepare(bare)


def test_it_is_judged_against_the_words_that_it_begins_with():
    sentences = {}
    for init in ("a photo of a", "template"):
        one = Experiment("tpt", "actions", shots=0, config={"init": init, "steps": 0, "n_views": 2}, test_pictures=20)
        result = run_experiment(one)
        assert result["metrics"]["accuracy"] == result["zero_shot"]["accuracy"], "no step, the same words"
        sentences[init] = result["zero_shot_templates"]
    assert sentences["a photo of a"] == "a photo of a {}." != sentences["template"]
    assert "zero_shot_templates" not in run_experiment(Experiment("zero_shot", "digits", shots=0, test_pictures=20))


def test_official_defaults():
    config = TPT.Config()
    assert (config.init, config.n_views, config.selection, config.steps) == ("a photo of a", 64, 0.1, 1)
    assert (config.lr, config.weight_decay) == (0.005, 0.01)
