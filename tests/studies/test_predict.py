"""Words in, boxes out, on anybody's images."""

import json

import numpy as np
import pytest
from PIL import Image

from vlmlab.cli import main
from vlmlab.errors import VlmlabError
from vlmlab.studies.predict import LONGEST, check_words, predict_images, read_images
from vlmlab.testing import toys


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "wide.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 70, 3), dtype=np.uint8)).save(file)
    return file


def test_boxes_come_in_the_image_s_pixels_with_the_surest_first(picture):
    method, _ = toys.fitted("region_clip")
    ((facts, drawn),) = predict_images(method, read_images([picture]), ["apple", "tree"], most=5)
    assert facts["size"] == [40, 70] and 0 < len(facts["detections"]) <= 5 and drawn.size == (70, 40)
    scores = [one["score"] for one in facts["detections"]]
    assert scores == sorted(scores, reverse=True)
    for one in facts["detections"]:
        x0, y0, x1, y1 = one["box"]
        assert one["word"] in ("apple", "tree") and 0 <= x0 <= x1 <= 70 and 0 <= y0 <= y1 <= 40
    assert np.asarray(drawn).tolist() != read_images([picture])[0].tolist()
    between = (scores[0] + scores[-1]) / 2
    ((fewer, _),) = predict_images(method, read_images([picture]), ["apple", "tree"], between, 5)
    assert 0 < len(fewer["detections"]) < len(scores)


def test_what_neither_detects_nor_segments_is_refused(picture):
    method, _ = toys.fitted("zero_shot")
    with pytest.raises(VlmlabError, match="detects or segments"):
        predict_images(method, read_images([picture]), ["apple"])


def test_words_are_checked():
    assert check_words([" apple", "tree ", ""]) == ["apple", "tree"]
    for wrong in ([], ["  "], ["apple", "apple "]):
        with pytest.raises(VlmlabError):
            check_words(wrong)


def test_a_large_image_is_made_smaller(tmp_path):
    Image.new("RGB", (3 * LONGEST, LONGEST)).save(tmp_path / "large.png")
    assert max(read_images([tmp_path / "large.png"])[0].shape) == LONGEST


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vild", "none.png", "--words", "apple"], "there is no image"),
        (["vild", "{}", "--words", " , "], "at least one"),
        (["vild", "{}", "--words", "apple, apple"], "comes twice"),
        (["coop", "{}", "--words", "apple"], "detects or segments"),
        (["vlid", "{}", "--words", "apple"], "vild"),
    ],
)
def test_mistakes_are_told_in_one_line_before_anything_is_learned(arguments, message, picture, capsys, monkeypatch):
    monkeypatch.setattr("vlmlab.studies.run.adapt", None)
    assert main(["predict", *(argument.format(picture) for argument in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err


def test_the_command_prints_boxes_and_writes_the_drawn_image(picture, capsys, monkeypatch, tmp_path):
    class Adapted:
        method = toys.fitted("region_clip")[0]

    monkeypatch.setattr("vlmlab.studies.run.adapt", lambda experiment, device: Adapted)
    command = ["predict", "region_clip", str(picture), "--words", "apple, tree", "--most", "3", "--json"]
    assert main([*command, "--out", str(tmp_path / "drawn")]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert len(row["detections"]) == 3 and Image.open(row["drawn"]).size == (70, 40)
