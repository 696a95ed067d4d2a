"""One way to separate the entries of a list, in panels, in reports and on the command line."""

import pytest

from vlmlab.book.exercise import Wrong, number, same_shape
from vlmlab.cli.options import names_in
from vlmlab.errors import VlmlabError
from vlmlab.lists import entries
from vlmlab.studies.templates import from_text
from vlmlab.widgets.prompt_microscope import doubled, read_words

TEXT = 'fire engine,"salt, pepper"\n\u732b\uff0c\U0001f431\u3001 it\'s'
WORDS = ["fire engine", "salt, pepper", "\u732b", "\U0001f431", "it's"]


def test_a_list_is_read_alike_everywhere():
    assert entries(TEXT) == read_words(TEXT) == names_in([TEXT]) == from_text("words", TEXT, {"words": ["x"]}) == WORDS


def test_what_is_missing_or_written_twice_is_told():
    assert entries("a,, b,") == ["a", "", "b", ""]
    with pytest.raises(VlmlabError, match="empty entry"):
        read_words("a,, b")
    assert doubled("a, b\na") == "Written more than once, used once: a."
    assert doubled("a, b,") == ""


def test_a_quote_that_nobody_closed_is_a_letter():
    assert entries('5" wheel, tyre') == ['5" wheel, tyre'] or entries('5" wheel, tyre') == ['5" wheel', "tyre"]


def test_answers_of_the_wrong_kind_are_named_with_their_article():
    import torch

    with pytest.raises(Wrong, match=r"and this is an int\."):
        same_shape(3, torch.zeros(2), "[C]")
    with pytest.raises(Wrong, match=r"and this is a list\."):
        number([1], 0, 1, "a share")
