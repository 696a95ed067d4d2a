"""Directions of pretraining and distillation: grammar, what learns, captions, teachers, individuals."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vlmlab.errors import VlmlabError
from vlmlab.studies.directions import captions, individuals, languages, teachers
from vlmlab.studies.directions.encoded import encoded
from vlmlab.studies.run import shared_bank
from vlmlab.world.objects import OBJECTS


def test_french_agrees():
    assert languages.sentence("cat", "red", "on grass", "a photo of")[1] == "une photo d'un chat rouge sur l'herbe"
    assert languages.sentence("flower", "green")[1] == "une fleur verte"
    assert languages.sentence("scissors", "grey", opening="a picture of") == (
        "a picture of grey scissors",
        "une image de ciseaux gris",
    )
    assert languages.sentence("glasses", "blue")[1] == "des lunettes bleues"
    with pytest.raises(VlmlabError, match="no 'octopus'"):
        languages.sentence("octopus")


def test_the_dictionary_covers_the_dataset_and_pairs_leave_out_what_is_held_out():
    assert set(encoded("objects").classes) == set(languages.FRENCH)
    drawn = languages.pairs(400)
    assert drawn == languages.pairs(400) and drawn != languages.pairs(400, seed=1)
    words = {word for _, french in drawn for word in french.replace("'", " ").split()}
    assert not words & {languages.FRENCH[name][0] for name in languages.HELD_OUT}
    assert len(words & {noun for noun, _ in languages.FRENCH.values()}) == len(languages.FRENCH) - len(
        languages.HELD_OUT
    )


@pytest.mark.parametrize("blocks", [True, False])
def test_learning_lowers_the_loss_and_leaves_the_frozen_tower(blocks):
    backbone = shared_bank("micro-vit").backbone
    before = {name: p.detach().clone() for name, p in backbone.named_parameters() if "visual" not in name}
    given = languages.pairs(40)
    found = languages.learn(given, steps=12, blocks=blocks, batch=16)
    assert np.mean(found.losses[-3:]) < np.mean(found.losses[:3])
    assert all(torch.equal(p, before[name]) for name, p in backbone.named_parameters() if name in before)
    moved = (found.encode([f for _, f in given]) - languages.frozen()([f for _, f in given])).abs().max()
    assert float(moved) > 1e-3
    unused = ["an octopus"] if not blocks else []
    for text in unused:  # of tokens that no pair has, nothing changes unless the Transformer learns
        same = F.cosine_similarity(found.encode([text]), languages.frozen()([text]))
        assert float(same) > 0.9


def test_diets_say_what_they_promise():
    images = captions.locked(60, 3)
    rng = np.random.default_rng(0)
    scene = next(s for s in images.scenes if len(s.objects) == 2 and s.style == "photo")
    one, word = captions.diet("one caption"), captions.diet("reworded")
    assert len({one(scene, rng) for _ in range(5)}) == 1 and len({word(scene, rng) for _ in range(20)}) > 1
    assert len({captions.diet("looked again")(scene, rng) for _ in range(20)}) > 3
    said = captions.diet("everything")(scene, rng)
    assert all(OBJECTS[o.category].name in said and o.colour in said for o in scene.objects)
    assert captions.diet("invented", 1.0)(scene, rng).count(" and ") == 3
    with pytest.raises(VlmlabError, match="unknown diet"):
        captions.diet("salad")


def test_noise_moves_so_many_captions_and_a_tower_learns_on_what_it_is_given():
    images = captions.locked(60, 3)
    texts, true = captions.noisy(images, 0.5)
    fair, _ = captions.noisy(images, 0.0)
    assert int((~true).sum()) == 30 and all(a == b for a, b, t in zip(texts, fair, true.tolist(), strict=True) if t)
    assert sorted(texts) == sorted(fair)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    tower, curve = captions.trained(images, fair, steps=40, batch=30, every=20)
    assert torch.equal(torch.get_rng_state(), state), "only local generators are used"
    again, _ = captions.trained(images, fair, steps=40, batch=30)
    assert [step for step, _ in curve] == [20, 40] and torch.equal(tower(fair), again(fair))
    with torch.no_grad():
        own = images.features @ tower(fair).T
    assert float(own.diagonal().mean()) > float(own.mean()) + 0.05
    assert float(tower(["qwertz zuiop"]).norm()) == pytest.approx(1)
    half = captions.better_half(torch.arange(60.0))
    assert sorted(half.tolist()) == list(range(30, 60))


def test_targets_of_teachers_that_agree_change_nothing():
    f = F.normalize(torch.randn(7, 5, generator=torch.Generator().manual_seed(1)), dim=-1)
    words = F.normalize(torch.randn(3, 5, generator=torch.Generator().manual_seed(2)), dim=-1)
    alone = teachers.one_teacher(0)([f, f], words, 10.0)
    assert torch.allclose(teachers.feature_sum([f, f], words, 10.0), alone, atol=1e-5)
    assert torch.allclose(teachers.probability_mean([f, f], words, 10.0), alone.log_softmax(-1), atol=1e-4)
    assert torch.equal(teachers.most_confident([f, f], words, 10.0), alone)
    sure = torch.cat([words, words])[:3]
    assert torch.equal(teachers.most_confident([f[:3] * 0.1, sure], words, 50.0), 50.0 * sure @ words.T)


def test_either_is_at_least_the_better_teacher():
    seen = teachers.views("textures", 40, 1, ("micro-vit", "micro-vit"))
    assert torch.equal(seen[0].labels, seen[1].labels)
    assert teachers.either(seen) == pytest.approx(teachers.measured(teachers.one_teacher(0), seen), abs=1e-3)


def test_albums_and_ranking():
    found = individuals.album(16, 3, "shape", seed=1)
    assert len(found.pixels) == 48 and int(found.who.max()) == 15
    perfect = F.one_hot(found.who).float()
    assert individuals.ranked(perfect, found) == {"rank-1": 100.0, "mean AP": 100.0, "kind": 100.0}
    assert individuals.chance(found) == pytest.approx(100 * 2 / 5)
    generator = torch.Generator().manual_seed(0)
    nuisance = torch.randn(48, 6, generator=generator)
    f = F.normalize(torch.cat([perfect, 3 * nuisance], 1), dim=-1)
    mended = F.normalize(f @ individuals.learned(f, found, 1e-3), dim=-1)
    assert individuals.ranked(mended, found)["rank-1"] > individuals.ranked(f, found)["rank-1"] + 20
    with pytest.raises(VlmlabError, match="unknown way"):
        individuals.album(differ="names")
