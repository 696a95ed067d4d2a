"""The scaling study: an arm that is stopped goes on, captions go wrong as they should, and nothing is run twice."""

import dataclasses

import numpy as np
import pytest
import torch

from vlmlab.pretraining import micro, scaling

TINY = scaling.Arm("A", 48, 3, (32, 1), (32, 1), batch=16)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A cache of its own, a random table in place of the sentence encoder's, and images painted once."""
    patch = pytest.MonkeyPatch()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    patch.setenv("VLMLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
    patch.setattr(micro, "token_vectors", lambda: torch.randn(49408, 8, generator=torch.Generator().manual_seed(0)))
    patch.setattr(scaling, "judged", judged)
    yield micro.make_pool(48, workers=1, chunk=48, echo=lambda _: None)
    torch.set_num_threads(threads)
    patch.undo()


def judged(backbone, each, scenes):
    """What the arm's model says of one image and one text, in place of a minute of measuring."""
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        image, text = backbone.encode_image(noise), backbone.encode_text(["a photo of a cat"])
    return {"photo": float(image.sum()), "styles": float(text.sum()), "domains": backbone.image.width, "retrieval": 0.0}


def quiet(arm, **settings):
    return scaling.run(arm, echo=lambda _: None, **settings)


def test_an_arm_that_was_stopped_ends_like_an_unbroken_one(workshop):
    whole = quiet(TINY)
    assert quiet(TINY, stop=lambda step: step == 2) is None
    resumed = quiet(TINY)
    assert {k: v for k, v in whole.items() if k != "minutes"} == {k: v for k, v in resumed.items() if k != "minutes"}
    assert whole["distinct"] == 48 and whole["seen"] == 48 and whole["domains"] == 32 and whole["true_captions"] == 100
    other = quiet(dataclasses.replace(TINY, seed=1))
    assert other["photo"] != whole["photo"]


def test_the_sizes_are_those_of_the_arm(workshop):
    sizes = [
        quiet(dataclasses.replace(TINY, steps=1, image=image))["parameters"] for image in ((32, 1), (32, 2), (64, 1))
    ]
    assert sizes[0] < sizes[1] < sizes[2]


def test_half_of_the_captions_are_wrong_and_the_better_half_has_more_true_ones(workshop):
    half, right = scaling.pool_of(dataclasses.replace(TINY, grid="D", captions="half wrong"))
    better, kept = scaling.pool_of(dataclasses.replace(TINY, grid="D", captions="better half"))
    assert len(half.shown) == len(better.shown) == 24 and kept > right and abs(right - 0.5) < 0.25
    own = [k for k in range(24) if half.shown[k] is workshop.shown[half.pixels.rows[k]] or
           half.shown[k] == workshop.shown[half.pixels.rows[k]]]  # fmt: skip
    assert len(own) / 24 >= right
    assert np.array_equal(half.pixels[np.array([3])], workshop.pixels[half.pixels.rows[[3]]])
    row = quiet(dataclasses.replace(TINY, grid="D", captions="half wrong"))
    assert row["captions"] == "half wrong" and row["true_captions"] == round(100 * right, 1)


def test_arms_have_names_of_their_own_and_one_that_is_there_is_not_run_again(workshop, tmp_path, monkeypatch, capsys):
    assert len({arm.name for arm in scaling.ARMS}) == len(scaling.ARMS)
    path = tmp_path / "scaling.csv"
    arms = [dataclasses.replace(TINY, steps=1), dataclasses.replace(TINY, steps=2)]
    rows = scaling.study(arms, path, echo=lambda _: None)
    assert [row["arm"] for row in rows] == [arm.name for arm in arms] and tuple(rows[0]) == scaling.COLUMNS
    monkeypatch.setattr(scaling, "run", lambda *_, **__: pytest.fail("it was there"))
    assert scaling.study(arms, path, echo=lambda _: None) == rows
    assert scaling.main(["--list", "--grid", "B", "--out", str(path)]) == 0
    assert capsys.readouterr().out.count("open") == 4
    path.write_text("a,b\n")
    assert scaling.main(["--list", "--out", str(path)]) == 2
    assert "does not have the columns" in capsys.readouterr().err
