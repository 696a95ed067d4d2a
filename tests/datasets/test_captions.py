import pytest

from vlmlab.datasets.captions import forms, noun_filter, read_captions, scene_captions, template_captions
from vlmlab.errors import VlmlabError

CLASSES = ["cat", "truck", "ice cream truck", "cherry", "leaf"]


def found(sentence, classes=CLASSES, **how):
    kept = noun_filter([sentence], classes, **how)
    return {classes[c] for c in kept.labels[0].nonzero().flatten().tolist()}


def test_a_noun_is_found_as_a_whole_word_in_singular_and_plural():
    assert found("Two CATS and a truck.") == {"cat", "truck"}
    assert found("cherries on a leaf") == {"cherry", "leaf"}
    assert found("leaves on a truck") == {"leaf", "truck"}  # MicroWorld knows the plural
    with pytest.raises(VlmlabError, match="none of 1 sentences names any of the 5 classes"):
        noun_filter(["a caterpillar"], CLASSES)


def test_the_longest_name_takes_its_words():
    assert found("an ice cream truck") == {"ice cream truck"}
    assert found("an ice cream truck behind a truck") == {"ice cream truck", "truck"}


def test_several_words_may_be_written_as_one():
    assert found("an icecream truck", ["ice cream", "truck"]) == {"ice cream", "truck"}


def test_synonyms_count_and_sentences_without_a_class_are_left_out():
    kept = noun_filter(["a kitten", "the sky", "a lorry with a cat"], CLASSES, {"cat": ["kitten"], "truck": ["lorry"]})
    assert kept.sentences == ["a kitten", "a lorry with a cat"]
    assert kept.labels.tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0]]


def test_plurals_follow_english_rules():
    assert forms("bus") == ("bus", "buses")
    assert forms("sunny_day") == ("sunny day", "sunny days", "sunnyday", "sunnydays")
    assert "ferries" in forms("ferry") and "brushes" in forms("brush")


def test_captions_of_scenes_are_those_of_a_seed_and_name_what_they_show():
    names = ["cat", "boat", "star", "apple"]
    first = scene_captions(names, 40, seed=3)
    assert first == scene_captions(names, 40, seed=3) and first != scene_captions(names, 40, seed=4)
    kept = noun_filter(first, names)
    assert 20 < len(kept) <= 40 and kept.labels.sum(0).min() > 3 and kept.labels.sum(1).max() >= 2
    with pytest.raises(VlmlabError, match=r"no scenes of 'quokka'.*sentences="):
        scene_captions(["cat", "quokka"], 3)


def test_templates_name_one_class_each_and_sets_can_be_joined():
    both = template_captions(["a_b", "c"], ["x {}", "y {}"])
    assert both.sentences == ["x a b", "y a b", "x c", "y c"]
    assert both.labels.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert len(both + both) == 8 and (both + both).fingerprint() != both.fingerprint()


def test_a_file_of_captions_has_one_a_line(tmp_path):
    file = tmp_path / "captions.txt"
    file.write_text("a cat\n\n  a truck \n")
    assert read_captions(file) == ["a cat", "a truck"]
    file.write_text("\n")
    with pytest.raises(VlmlabError, match="no line of text"):
        read_captions(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(VlmlabError, match="no text in UTF-8"):
        read_captions(file)
    with pytest.raises(VlmlabError, match="there is no text file"):
        read_captions(tmp_path / "none.txt")
