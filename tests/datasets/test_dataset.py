import pytest

import vlmlab.datasets
from tests.datasets.conftest import save_picture
from vlmlab.datasets.catalog import is_path
from vlmlab.datasets.loading import load_dataset
from vlmlab.errors import VlmlabError


@pytest.mark.parametrize("wrong", ["objekts-sketch", "object_sketch", "OBJECTS-SKETH"])
def test_an_unknown_name_gets_the_closest_ones_and_the_way_to_name_a_folder(wrong):
    with pytest.raises(
        VlmlabError,
        match=r"unknown dataset.*did you mean .*objects-sketch.*or the path of a folder of your own, such as \./",
    ):
        load_dataset(wrong)


def test_names_may_be_written_with_underscores_and_capitals():
    assert load_dataset("Objects_Sketch").name == "objects-sketch"


def test_what_counts_as_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert all(map(is_path, ["a/b", "./digits", "~", ".", "here"]))
    assert not is_path("digits")


def test_a_folder_in_the_working_directory_does_not_hide_a_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for label in ("a", "b"):
        for i in range(2):
            save_picture(tmp_path / "digits" / label / f"{i}.png", i)
    assert len(load_dataset("digits").classes) == 10
    assert load_dataset("./digits").classes == ["a", "b"]


def test_the_package_offers_its_names_lazily():
    for name in vlmlab.datasets.__all__:
        assert getattr(vlmlab.datasets, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vlmlab.datasets.nothing


@pytest.mark.parametrize("name", ["objects", "tableau", "digits"])
def test_a_size_at_which_nothing_is_seen_is_refused(name):
    with pytest.raises(VlmlabError, match="at least"):
        load_dataset(name, size=4)
