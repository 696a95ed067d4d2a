import multiprocessing
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.learning.conftest import Probe, ToyTask
from vlmlab.datasets.image_set import FilePictures, ImageSet
from vlmlab.errors import VlmlabError
from vlmlab.features import decoding
from vlmlab.features.bank import FeatureBank, as_evaluated, as_read
from vlmlab.features.decoding import Cropped, prepared, workers_for
from vlmlab.learning.evaluate import predict
from vlmlab.learning.fit import fit
from vlmlab.randomness import LocalRandom

SIZES = [(32, 32), (40, 33), (70, 90), (33, 50), (32, 32), (48, 48), (32, 32), (32, 32), (90, 31)]


@pytest.fixture
def photographs(tmp_path) -> ImageSet:
    """Nine JPEG files of many sizes and three colours."""
    rng, files = np.random.default_rng(0), []
    for i, size in enumerate(SIZES):
        pixels = rng.integers(0, 90, (*size, 3), dtype=np.uint8)
        pixels[..., i % 3] += 150
        files.append(tmp_path / f"{i}.jpg")
        Image.fromarray(pixels).save(files[-1])
    return ImageSet(FilePictures(files), [i % 3 for i in range(len(files))], [file.name for file in files])


@pytest.fixture
def worker(monkeypatch):
    """One worker is started for as few as two images; the list tells how often."""
    started, real = [], decoding._by_workers
    monkeypatch.setattr(decoding, "WORTHWHILE", 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1}, raising=False)

    def by_workers(chunks, workers):
        started.append(workers)
        return real(chunks, workers)

    monkeypatch.setattr(decoding, "_by_workers", by_workers)
    return started


@pytest.mark.slow
def test_a_worker_gives_the_same_bits_in_the_same_order(backbone, photographs, worker):
    shown, crop = as_evaluated(backbone), Cropped(32, 5, 1)
    whole = backbone.preprocess([Image.fromarray(photographs.images(i)) for i in (8, 0, 4)]).numpy()
    assert np.array_equal(next(prepared(photographs, [([8, 0, 4], shown)])), whole), "open_clip's own transform"
    work = [([8, 0, 4], shown), ([6, 7], shown), ([1, 2], crop), ([6, 0], crop), ([3], shown)]
    here = [
        array for one in work for array in prepared(photographs, [one])
    ]  # chunk by chunk, which is not worth a worker
    assert worker == [] and [array.dtype == np.uint8 for array in here] == [False, True, True, True, False]
    photographs.files()[5].write_bytes(b"no image")
    with LocalRandom(1):
        expected = torch.rand(1)
    with LocalRandom(1):
        there = prepared(photographs, [*work, ([4, 5], shown)])
        for array in here:
            found = next(there)
            assert found.dtype == array.dtype and np.array_equal(found, array)
        with pytest.raises(VlmlabError, match=r"cannot read the image .*5\.jpg") as told:
            next(there)
        assert torch.equal(torch.rand(1), expected), "nobody's random numbers were used"
    assert worker == [1] and "\n" not in str(told.value)
    assert not multiprocessing.active_children(), "the worker has ended"


def test_images_of_any_size_come_from_a_worker_as_they_are(photographs, worker):
    found = list(as_read(photographs, 4, "reading"))
    assert worker == [1] and [list(positions) for positions, _ in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    for positions, images in found:
        for i, image in zip(positions, images, strict=True):
            assert image.shape[:2] == SIZES[i] and np.array_equal(image, photographs.images(i))


def test_what_learns_from_files_learns_the_same_with_a_worker(backbone, photographs, worker, monkeypatch):
    def learned() -> torch.Tensor:
        method, task = Probe(backbone), ToyTask(photographs, photographs)
        fit(method, task, views=2)
        return predict(method, photographs, FeatureBank(backbone, disk=False), seed=3)

    monkeypatch.setattr(Probe, "eats", "images")
    with_worker, often = learned(), len(worker)
    monkeypatch.setattr(decoding, "WORTHWHILE", 10**6)
    assert torch.equal(learned(), with_worker) and often == len(worker) == 1


def die(names, images):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_told_in_one_line(photographs, worker):
    with pytest.raises(VlmlabError, match="a process that decodes images was killed") as told:
        list(prepared(photographs, [([0, 1], die), ([2], die)]))
    assert "\n" not in str(told.value)


def test_workers_are_started_where_they_are_worth_it_and_may_be(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(4)), raising=False)
    assert [workers_for(images, chunks) for images, chunks in ((511, 9), (512, 9), (512, 2), (512, 1))] == [0, 3, 2, 0]
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    assert workers_for(10**6, 10**4) == decoding.MOST_WORKERS
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0}, raising=False)
    assert workers_for(10**6, 10**4) == 0, "one core has enough to do"
    monkeypatch.undo()
    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True))
    assert workers_for(10**6, 10**4) == 0, "a daemonic process may have no children"


SCRIPT = """
import os, sys
from pathlib import Path
os.sched_getaffinity = lambda process: {0, 1}
from vlmlab.datasets.image_set import FilePictures, ImageSet
from vlmlab.features import decoding
decoding.WORTHWHILE = 2
files = sorted(Path(sys.argv[1]).glob("*.jpg"))
images = ImageSet(FilePictures(files), [0] * len(files), [file.name for file in files])
crop = decoding.Cropped(32, 0, 0)
print("begin")
print(sum(len(array) for array in decoding.prepared(images, [([0, 1], crop), ([2, 3], crop)])))
"""


@pytest.mark.slow
def test_a_plain_script_has_workers(photographs, tmp_path):
    """Without `if __name__ == "__main__":`, which Python's "spawn" otherwise asks for."""
    (tmp_path / "plain.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, tmp_path / "plain.py", tmp_path], capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, "begin\n4\n"), done.stderr
