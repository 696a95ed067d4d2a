import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from vlmlab.errors import VlmlabError
from vlmlab.files import sha256
from vlmlab.pretraining import micro as pretrain


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A cache folder of its own, a small pool, a random table in place of the sentence encoder's."""
    patch = pytest.MonkeyPatch()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with more, the order of a sum may differ from run to run, and bits with it
    patch.setenv("VLMLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setattr(pretrain, "token_vectors", lambda: torch.randn(49408, 8, generator=torch.Generator().manual_seed(0)))
    recipe = dataclasses.replace(pretrain.RECIPES["micro-vit"], steps=3, pool=48, batch=16)
    patch.setitem(pretrain.RECIPES, "micro-vit", recipe)
    yield recipe, pretrain.make_pool(48, workers=1, chunk=48, echo=lambda _: None)
    torch.set_num_threads(threads)
    patch.undo()


def parameters(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.parameters])


@pytest.mark.slow
def test_a_resumed_build_equals_an_unbroken_one(workshop, tmp_path):
    recipe, pool = workshop
    unbroken, first = (pretrain.Trainer("micro-vit", recipe, pool, tmp_path) for _ in range(2))
    losses = [unbroken.train_step() for _ in range(3)]
    first.train_step()
    second = pretrain.Trainer("micro-vit", recipe, pool, tmp_path)
    second.load(first.state())
    assert [second.train_step(), second.train_step()] == losses[1:]
    assert torch.equal(parameters(unbroken), parameters(second))


@pytest.mark.slow
def test_a_build_writes_what_the_loader_takes(workshop, tmp_path, monkeypatch):
    pretrain.build("micro-vit", workers=1, out=tmp_path, echo=lambda _: None)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    entry = manifest["micro-vit"]
    assert all(sha256(tmp_path / f) == pin for f, pin in entry["sha256"].items())
    state = {k: v for f in entry["weights"] for k, v in load_file(tmp_path / f).items()}
    model = pretrain.CLIP(**json.loads(pretrain.data_path("backbones", entry["config"]).read_text()))
    missing = set(model.state_dict()) - set(state)
    assert missing <= {"attn_mask"} and all(v.dtype == torch.float16 for v in state.values())


def test_novel_and_nameless_categories_are_in_no_region_term(workshop):
    _, pool = workshop
    index = list(range(len(pool)))
    pictures, cover, labels = pretrain.region_targets(pool, index, 8, np.ones(len(pool), bool))
    named = pretrain.BASE + pretrain.STUFF
    assert len(labels) > 10 and int(labels.max()) < len(named)
    for b, label in zip(pictures.tolist(), labels.tolist(), strict=True):
        shown = pool.shown[b]
        assert named[label] in {o.category for o in shown.objects} | {shown.background}
    assert float(cover.max()) <= 1 and float(cover.min()) >= 0


def test_local_and_global_features_are_those_of_the_opened_tower(workshop, tmp_path):
    """What pretraining optimises is what `local_features` and `encode_image` read."""
    from vlmlab.backbones.image_tower import open_image_tower

    recipe, pool = workshop
    visual = pretrain.Trainer("micro-vit", recipe, pool, tmp_path).model.visual.eval()
    images = pretrain.normalised(pool.pixels[:2])
    with torch.no_grad():
        pooled, local, kept = pretrain.vit_features(visual, images)
        tower = open_image_tower(visual, "micro-vit")
        opened = torch.nn.functional.normalize(tower.local_features(images), dim=1).flatten(2).transpose(1, 2)
        whole = torch.nn.functional.normalize(tower.forward(images), dim=-1)
    assert torch.equal(kept[0], torch.arange(64))
    torch.testing.assert_close(opened, local, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole, pooled, rtol=1e-4, atol=1e-5)


def test_an_unknown_name_and_a_missing_teacher_are_one_line(workshop, tmp_path):
    recipe, pool = workshop
    with pytest.raises(VlmlabError, match="micro-vit"):
        pretrain.build("micro-vti")
    locked = dataclasses.replace(recipe, locked_text=True)
    with pytest.raises(VlmlabError, match="vlmlab build micro-vit first"):
        pretrain.Trainer("micro-rn", locked, pool, tmp_path)


def test_a_zoomed_picture_shows_one_object_large_and_its_caption_speaks_of_it_alone(workshop):
    """The centre of the enlarged image is the centre of the object, and the others are left as they were."""
    _, pool = workshop
    rng = np.random.default_rng(0)
    images = pretrain.normalised(pool.pixels[:])
    zoomed, shown, whole = pretrain.zoom(images.clone(), pool.shown, 0.1, rng)
    assert 0 < (~whole).sum() <= round(0.1 * len(pool))
    for b in range(len(pool)):
        if whole[b]:
            assert shown[b] is pool.shown[b] and torch.equal(zoomed[b], images[b])
            continue
        (only,) = shown[b].objects
        assert only in pool.shown[b].objects and only.category in pretrain.BASE
        inside = 0.25 < only.x < 0.75 and 0.25 < only.y < 0.75  # far from the border, so the window is centred
        if inside:
            x, y = round(64 * only.x - 0.5), round(64 * only.y - 0.5)
            near = images[b, :, y - 1 : y + 2, x - 1 : x + 2]
            middle = zoomed[b, :, 31:33, 31:33].mean((1, 2))
            assert ((middle >= near.amin((1, 2)) - 0.1) & (middle <= near.amax((1, 2)) + 0.1)).all()


def test_blurred_pictures_keep_their_mean_and_lose_detail(workshop):
    _, pool = workshop
    images = pretrain.normalised(pool.pixels[:])
    blurred = pretrain.blur(images.clone(), 0.5, np.random.default_rng(0))
    changed = (blurred != images).flatten(1).any(1)
    assert int(changed.sum()) == len(pool) // 2
    step = (images.diff(dim=-1).abs().mean((1, 2, 3)), blurred.diff(dim=-1).abs().mean((1, 2, 3)))
    assert (step[1][changed] < step[0][changed]).all()


@pytest.fixture(scope="module")
def resnet(workshop, tmp_path_factory):
    """micro-rn's recipe on a few images, with a teacher and a text tower of random weights."""
    torch.manual_seed(0)
    model = pretrain.CLIP(**json.loads(pretrain.data_path("backbones", "micro_vit.json").read_text()))
    state = {k: v.half().contiguous() for k, v in model.state_dict().items() if k != "attn_mask"}
    folder = tmp_path_factory.mktemp("teacher")
    save_file({k: v for k, v in state.items() if k.startswith("visual.")}, folder / "micro_vit.safetensors")
    save_file({k: v for k, v in state.items() if not k.startswith("visual.")}, folder / "micro_text.safetensors")
    recipe = dataclasses.replace(pretrain.RECIPES["micro-rn"], steps=4, pool=16, batch=8)
    return recipe, pretrain.make_pool(16, 128, workers=1, chunk=16, echo=lambda _: None), folder


def test_a_resnet_learns_its_image_tower_alone_and_resumes(resnet):
    recipe, pool, folder = resnet
    unbroken, first = (pretrain.Trainer("micro-rn", recipe, pool, folder) for _ in range(2))
    assert {n.split(".")[0] for n, p in unbroken.model.named_parameters() if p.requires_grad} == {"visual"}
    text = unbroken.model.token_embedding.weight.clone()
    losses = [unbroken.train_step() for _ in range(3)]
    first.train_step()
    second = pretrain.Trainer("micro-rn", recipe, pool, folder)
    second.load(first.state())
    assert [second.train_step(), second.train_step()] == losses[1:]
    assert torch.equal(parameters(unbroken), parameters(second))
    assert torch.equal(text, unbroken.model.token_embedding.weight)
    assert set(losses[0]) == {"contrast", "region", "distil", "scale"}


def test_places_of_objects_learn_what_the_teacher_says_of_their_crops(resnet):
    """micro-vit-fine's fourth loss: an object's window is shown to the teacher, and its places alone turn to the answer."""
    _, pool, folder = resnet
    recipe = dataclasses.replace(pretrain.RECIPES["micro-vit-fine"], steps=4, pool=16, batch=8)
    unbroken, first = (pretrain.Trainer("micro-vit-fine", recipe, pool, folder) for _ in range(2))
    asked = []
    unbroken._said_of = lambda images: asked.append(images) or pretrain.Trainer._said_of(unbroken, images)
    losses = [unbroken.train_step() for _ in range(3)]
    assert set(losses[0]) == {"contrast", "region", "distil", "object", "scale"}
    assert all(images.shape[1:] == (3, pretrain.CROP, pretrain.CROP) for images in asked)
    assert losses[2]["object"] < losses[0]["object"]
    first.train_step()
    second = pretrain.Trainer("micro-vit-fine", recipe, pool, folder)
    second.load(first.state())
    assert [second.train_step(), second.train_step()] == losses[1:]
    assert torch.equal(parameters(unbroken), parameters(second))


def test_a_window_shows_its_object():
    image = torch.zeros(1, 1, 64, 64)
    image[..., 8:24, 40:56] = 1  # around (48, 16)
    o = pretrain.SceneObject("cat", "red", "plain", 0.75, 0.25, 0.125, 0.0, 1.0, False, 0)
    share = pretrain.cut(image, [pretrain.window(o, np.random.default_rng(0))], 32).mean()
    assert 1 / 1.5**2 - 0.05 < share <= 1


def test_a_resnets_features_are_those_of_the_opened_tower(resnet):
    from vlmlab.backbones.image_tower import open_image_tower

    recipe, pool, folder = resnet
    trainer = pretrain.Trainer("micro-rn", recipe, pool, folder)
    visual, images = trainer.model.visual.eval(), pretrain.normalised(pool.pixels[:2])
    with torch.no_grad():
        pooled, local, kept = pretrain.resnet_features(trainer.tower, images)
        tower = open_image_tower(visual, "micro-rn")
        opened = torch.nn.functional.normalize(tower.local_features(images), dim=1).flatten(2).transpose(1, 2)
        whole = torch.nn.functional.normalize(visual(images), dim=-1)
    assert torch.equal(kept[0], torch.arange(16))
    torch.testing.assert_close(opened, local, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole, pooled, rtol=1e-4, atol=1e-5)


def test_the_teacher_is_asked_once_per_picture(resnet, monkeypatch):
    recipe, pool, folder = resnet
    trainer = pretrain.Trainer("micro-rn", recipe, pool, folder)
    index = np.array([1, 3])
    wanted = trainer._taught(index)
    monkeypatch.setattr(trainer.teacher.visual, "forward", lambda images: pytest.fail("it was asked again"))
    assert torch.equal(trainer._taught(index[::-1].copy()), wanted.flip(0))


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="Linux says here what its processor can do")
def test_bfloat16_is_used_where_the_processor_has_it():
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    assert pretrain.has_bfloat16() == bool({"amx_tile", "avx512_bf16"} & set(flags.split()))


@pytest.mark.parametrize("has", [True, False])
def test_towers_compute_in_bfloat16_there_and_in_float32_elsewhere(workshop, tmp_path, monkeypatch, has):
    recipe, pool = workshop
    monkeypatch.setattr(pretrain, "has_bfloat16", lambda: has)
    trainer, seen = pretrain.Trainer("micro-vit", recipe, pool, tmp_path), set()
    trainer.model.visual.ln_post.register_forward_hook(lambda *_: seen.add(torch.is_autocast_enabled("cpu")))
    trainer.train_step()
    assert seen == {has}
