"""Images as the encoder wants them, decoded by worker processes while it works.

Decoding and resizing a photograph takes some ten milliseconds of one core, which is longer than a GPU takes to encode it.
PyTorch's DataLoader does that in processes of its own, ahead of the encoder. Order and bits are those of decoding here: a
worker runs the same `Recipe` on the same chunk of images, with one thread.

Workers are started ("spawn") where they are worth their start of some seconds, which is from about `WORTHWHILE` image files
on, and never within a daemonic process, which may have no children (a worker of dask). What they hand back are NumPy arrays:
they travel through a pipe, while tensors would need shared memory, of which containers have little.

Dimensions: n images of a chunk, S image side, H, W an image's height and width.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from vlmlab.datasets.image_set import ImageSet, Pixels, read_picture
from vlmlab.errors import VlmlabError
from vlmlab.files import without_main_module
from vlmlab.randomness import LocalRandom

WORTHWHILE = 512  # image files from which on workers are started
MOST_WORKERS = 8  # a worker takes some 300 MB
AHEAD = 2  # chunks that each worker prepares ahead
CROP_AREA = (0.08, 1.0)  # share of the image that a training view shows, as in CoOp's official configuration


class Recipe(Protocol):
    """What is done to the images of a chunk, in a worker or here; to be pickled."""

    def __call__(self, names: Sequence[str], images: Sequence[Pixels]) -> NDArray | list[Pixels]:
        """uint8 [n, S, S, 3], to be normalised on the encoder's device, or float32 [n, 3, S, S], which is normalised, or a list
        of images of any size."""


@dataclass(frozen=True)
class AsRead:
    """As they are: for a system that frames or augments them itself."""

    def __call__(self, names: Sequence[str], images: Sequence[Pixels]) -> list[Pixels]:
        return list(images)


@dataclass(frozen=True)
class Evaluated:
    """As evaluation sees images: resized and cropped by the `steps` of open_clip's own transform."""

    side: int
    steps: tuple[Callable[[Any], Any], ...]

    def __call__(self, names: Sequence[str], images: Sequence[Pixels]) -> NDArray:
        if all(image.shape[:2] == (self.side, self.side) for image in images):
            return np.stack(images)
        # One by one, so that no image's feature depends on its neighbours' sizes.
        return torch.stack([self._made(Image.fromarray(image)) for image in images]).numpy()

    def _made(self, image: Any) -> Any:
        for step in self.steps:
            image = step(image)
        return image


@dataclass(frozen=True)
class Cropped:
    """As the field trains on images: a random crop, resized to S by S, and a random flip.

    What is cropped depends on the image's name, `seed` and `view` only, not on the order of the images.
    """

    side: int
    seed: int
    view: int

    def __call__(self, names: Sequence[str], images: Sequence[Pixels]) -> NDArray:
        bicubic = v2.InterpolationMode.BICUBIC
        crop = v2.Compose(
            [
                v2.RandomResizedCrop(self.side, scale=CROP_AREA, interpolation=bicubic, antialias=True),
                v2.RandomHorizontalFlip(),
            ]
        )
        ready = []
        for name, image in zip(names, images, strict=True):
            with LocalRandom(name_seed(name, self.seed, self.view)):
                ready.append(crop(torch.as_tensor(image).permute(2, 0, 1)).permute(1, 2, 0))
        return torch.stack(ready).numpy()


def name_seed(name: str, *numbers: int) -> int:
    """A seed below 2^63 that depends on an image's name and some numbers, the same on every machine."""
    text = "\0".join([name, *map(str, numbers)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


Chunk = tuple[Sequence[int], Recipe]
"""Positions in an ImageSet, and what is done to the images there."""


def prepared(pictures: ImageSet, chunks: Sequence[Chunk]) -> Generator[Any]:
    """What the recipes give, chunk by chunk, in the order of the chunks; to be closed by who does not read to the end.

    Raises `VlmlabError` that names an image which cannot be decoded, when its chunk is asked for.
    """
    files = pictures.files()
    workers = 0 if files is None else workers_for(sum(len(positions) for positions, _ in chunks), len(chunks))
    if files is None or not workers:
        for positions, recipe in chunks:
            yield recipe([pictures.ids[i] for i in positions], pictures.images(list(positions)))
        return
    with closing(_by_workers(_Chunks(files, pictures.ids, chunks), workers)) as found:
        yield from found


def workers_for(images: int, chunks: int) -> int:
    """How many processes decode so many image files in so many chunks; 0 where this one does it alone."""
    if images < WORTHWHILE or chunks < 2 or multiprocessing.current_process().daemon:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_WORKERS, cores - 1, chunks)


class _Chunks(Dataset):
    """The work by number: what a worker has of an ImageSet."""

    def __init__(self, files: Sequence[Path], names: Sequence[str], chunks: Sequence[Chunk]) -> None:
        self.files, self.names, self.chunks = files, names, chunks

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> NDArray | list[Pixels] | VlmlabError:
        positions, recipe = self.chunks[number]
        try:
            return recipe([self.names[i] for i in positions], [read_picture(self.files[i]) for i in positions])
        except (
            VlmlabError
        ) as error:  # a value: raised in a worker, it would come with the worker's traceback as its text
            return error


def _by_workers(chunks: _Chunks, workers: int) -> Generator[Any]:
    loader = DataLoader(
        chunks,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_begin,
        multiprocessing_context="spawn",
        prefetch_factor=AHEAD,
        generator=torch.Generator(),  # it draws a seed for its workers, which must not come from anybody's generator
    )
    with without_main_module():
        found = iter(loader)
    try:
        while True:
            try:
                array = next(found)
            except StopIteration:
                return
            except RuntimeError as error:
                if "DataLoader worker (pid" not in str(error):
                    raise
                raise VlmlabError(
                    "a process that decodes images was killed, most likely for want of memory; end other programs and run it again"
                ) from error
            if isinstance(array, VlmlabError):
                raise array
            yield array
    finally:
        del found  # ends the workers, also where the traceback of an error holds this frame


def _as_it_is(made: Any) -> Any:
    return made


def _begin(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started the workers
