import socket

from vlmlab.datasets.loading import load_dataset
from vlmlab.datasets.photographs import photographs


def test_photographs_are_installed_and_need_no_network(monkeypatch):
    def refuse(*_):
        raise OSError("a photograph asked for the network")

    monkeypatch.setattr(socket, "socket", refuse)
    shown = photographs()
    assert {"cat", "temple", "flower", "astronaut"} <= {word for word, _ in shown}
    assert all(pixels.ndim == 3 and min(pixels.shape[:2]) > 150 for _, pixels in shown)


def test_every_photograph_is_its_own_class():
    dataset = load_dataset("photographs")
    assert dataset.test.labels.tolist() == list(range(len(dataset.classes)))
    assert len(dataset.train) == 0 == len(dataset.val)


def test_both_ways_of_reading_agree():
    dataset = load_dataset("photographs")
    for i, (word, pixels) in enumerate(photographs()):
        assert dataset.classes[i] == word
        assert (dataset.test.images(i) == pixels).all()
