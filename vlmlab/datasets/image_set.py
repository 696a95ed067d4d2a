"""A set of labelled images: what every dataset, split and support set of vlmlab is.

Letters: N images, C classes, H height, W width, n objects in one image.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch import LongTensor, Tensor

from vlmlab.datasets.truth import Truth
from vlmlab.errors import VlmlabError
from vlmlab.files import files_identity

Pixels = NDArray[np.uint8]
"""An image [H, W, 3], red, green, blue."""

BROKEN_PICTURE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
"""What Pillow raises for files that are no image, truncated, corrupt, or of absurd size."""

TURNS = dict(zip(range(2, 9), (
    Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270, Image.Transpose.TRANSVERSE, Image.Transpose.ROTATE_90,
), strict=True))  # fmt: skip
"""EXIF orientation -> what brings an image upright."""


class Pictures(Protocol):
    """Where pixels come from: an array in memory, a drawing program, or files."""

    def identity(self) -> str:
        """A text that changes whenever any pixel could have changed; part of cache keys."""

    def read(self, positions: Sequence[int]) -> list[Pixels]:
        """The images at these positions."""


class ArrayPictures:
    """Images [N, S, S, 3] that are all there at once, or are made at the first look.

    `make` is called at most once, when a pixel is first asked for.
    """

    def __init__(self, make: Callable[[], Pixels], identity: str) -> None:
        self._make = make
        self._identity = identity
        self._pixels: Pixels | None = None

    def identity(self) -> str:
        return self._identity

    def read(self, positions: Sequence[int]) -> list[Pixels]:
        if self._pixels is None:
            self._pixels = self._make()
        return [self._pixels[p] for p in positions]


class FilePictures:
    """Image files, decoded whenever they are asked for; only the paths are in memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._identity: str | None = None

    def identity(self) -> str:
        """Hash of every file's path, size and time of change, and of how transparent images are read."""
        if self._identity is None:
            files = files_identity(self.paths)
            self._identity = hashlib.sha256(f"{files}\ntransparent on white".encode()).hexdigest()[:32]
        return self._identity

    def read(self, positions: Sequence[int]) -> list[Pixels]:
        return [read_picture(self.paths[p]) for p in positions]


def read_picture(source: Path | BinaryIO, longest: int | None = None) -> Pixels:
    """Decode one image as it was meant to be seen: [H, W, 3], upright by its EXIF tag, what is transparent on white.

    Folders and uploads are read by this function alone, so an image looks the same wherever it comes from.

    Args:
        source: a file, or a stream with its bytes.
        longest: the most pixels that the longer side may have; a larger image is made smaller.

    Raises:
        VlmlabError: that names the file if it cannot be decoded.
    """
    try:
        with Image.open(source) as file:
            picture = on_white(upright(decoded(file)))
            if longest is not None:
                picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
            return np.array(picture)  # a copy that may be written, as PyTorch wants it
    except BROKEN_PICTURE as error:
        name = source if isinstance(source, Path) else getattr(source, "name", "")
        raise VlmlabError(
            f"cannot read the image {name} ({reason_of(error)}); replace or remove it, or skip broken images "
            "(skip_broken)"
        ) from error


def on_white(picture: Image.Image) -> Image.Image:
    """`picture` in red, green and blue; what is transparent in it lies on white, as on a page."""
    if picture.mode.startswith("I"):
        # 16-bit grey, which Pillow would clip at 255; the upper byte is what the eye sees.
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layers = picture.convert("RGBA")
    page = Image.new("RGBA", layers.size, "white")
    return Image.alpha_composite(page, layers).convert("RGB")


def decoded(picture: Image.Image) -> Image.Image:
    """`picture`, with every byte of it read.

    Raises one of `BROKEN_PICTURE` if it cannot be decoded, or if nobody knows which of its values is white.
    """
    if picture.mode == "F" or (picture.mode == "I" and picture.format != "PPM"):  # Pillow spreads a PPM's over 16 bits
        raise ValueError("its grey values have no known range: save it with 8 or 16 bits")
    picture.load()
    return picture


def upright(picture: Image.Image) -> Image.Image:
    """`picture` turned as its EXIF tag says.

    Pillow's own exif_transpose writes all other tags again as well, and fails at one of a wrong type.
    """
    turn = TURNS.get(picture.getexif().get(ExifTags.Base.Orientation))
    return picture if turn is None else picture.transpose(turn)


def reason_of(error: Exception) -> str:
    """What an error says, in one line."""
    return getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__


class ImageSet:
    """Images with labels, in a fixed order, each with a name that stays the same wherever the files lie.

    Attributes:
        labels: LongTensor [N], or [N, C] of zeros and ones where an image shows several classes.
        ids: N distinct names: a file's path inside its dataset, or the key that a drawing was made from.
    """

    def __init__(
        self,
        pictures: Pictures,
        labels: Tensor | Sequence[int],
        ids: Sequence[str],
        annotate: Callable[[int], Truth] | None = None,
        positions: NDArray[np.int64] | None = None,
        caption: Callable[[int], str] | None = None,
    ) -> None:
        """Images `pictures.read(positions)` (all, in order, by default); `annotate(position)` gives dense ground truth,
        `caption(position)` a sentence about the image."""
        self._pictures = pictures
        self._labels = torch.as_tensor(labels, dtype=torch.long)
        self._hidden = False
        self.ids = list(ids)
        self._annotate = annotate
        self._caption = caption
        self._positions = np.arange(len(self.ids)) if positions is None else positions
        if not len(self._labels) == len(self.ids) == len(self._positions):
            raise ValueError("an ImageSet needs as many labels as names and positions")

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"ImageSet({len(self)} images{', labels hidden' if self._hidden else ''})"

    @property
    def labels(self) -> LongTensor:
        """[N] or [N, C]; raises `VlmlabError` where a protocol hides them."""
        if self._hidden:
            raise VlmlabError(
                "the labels of these images are hidden in this protocol; only evaluate may compare with them"
            )
        return self._labels

    @property
    def multi_label(self) -> bool:
        """Whether an image may show several classes, so that labels are [N, C]."""
        return self._labels.ndim == 2

    def images(self, indices: int | slice | Sequence[int] | Tensor = slice(None)) -> Pixels | list[Pixels]:
        """Pixels: [n, H, W, 3] uint8 if the images are of one size, else a list of [H, W, 3]; one image for an int.

        Files are decoded at each call: ask for large sets in batches.
        Raises `VlmlabError` that names a file which cannot be decoded.
        """
        if isinstance(indices, int | np.integer):
            return self._pictures.read([int(self._positions[indices])])[0]
        pictures = self._pictures.read([int(p) for p in self._positions[_index(indices)]])
        if len({picture.shape for picture in pictures}) == 1:
            return np.stack(pictures)
        return pictures

    def files(self) -> list[Path] | None:
        """The file of every image, or None where their pixels come from elsewhere."""
        paths = getattr(self._pictures, "paths", None)
        return paths and [paths[p] for p in self._positions]

    def subset(self, indices: slice | Sequence[int] | Tensor) -> ImageSet:
        """The images at these indices, in that order; labels keep their numbers."""
        chosen = np.arange(len(self))[_index(indices)]
        return self._with(self._labels[chosen], [self.ids[i] for i in chosen], self._positions[chosen])

    def of_classes(self, classes: Sequence[int]) -> ImageSet:
        """Only these classes, renumbered 0, 1, ... in the given order.

        Of a multi-label set all images stay, and the columns of `labels` are chosen.
        """
        classes = list(classes)
        if self.multi_label:
            annotate = self._annotate and _renumbered(self._annotate, classes)
            return self._with(self._labels[:, classes], self.ids, self._positions, annotate)
        place = {label: new for new, label in enumerate(classes)}
        kept = [i for i, label in enumerate(self._labels.tolist()) if label in place]
        labels = torch.tensor([place[int(self._labels[i])] for i in kept], dtype=torch.long)
        annotate = self._annotate and _renumbered(self._annotate, classes)
        return self._with(labels, [self.ids[i] for i in kept], self._positions[kept], annotate)

    def relabelled(self, labels: Tensor) -> ImageSet:
        """The same images with other labels, [N] or [N, C]; labels that were hidden stay unknown, these can be read."""
        new = self._with(labels, self.ids, self._positions)
        new._hidden = False
        return new

    def unlabelled(self) -> ImageSet:
        """The same images with their labels out of reach."""
        hidden = self._with(self._labels, self.ids, self._positions)
        hidden._annotate = None
        hidden._hidden = True
        return hidden

    @property
    def dense(self) -> bool:
        """Whether boxes or masks are known."""
        return self._annotate is not None

    def truth(self, i: int) -> Truth:
        """Boxes, instance masks and semantic mask of image `i`; `VlmlabError` if the set has none, or if they are hidden."""
        if self._annotate is None:
            raise VlmlabError("these images have no boxes or masks; choose tableau, which does")
        return self._annotate(int(self._positions[i]))

    def boxes(self, i: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(boxes [n, 4] as x0 y0 x1 y1 in pixels, class indices [n]) of image `i`."""
        truth = self.truth(i)
        return truth.boxes.numpy(), truth.labels.numpy()

    def masks(self, i: int) -> tuple[NDArray[np.bool_] | None, NDArray[np.int16] | None]:
        """(instance masks [n, H, W], semantic mask [H, W]) of image `i`; see `Truth`."""
        truth = self.truth(i)
        instances, semantic = truth.instances, truth.semantic
        return None if instances is None else instances.numpy(), None if semantic is None else semantic.numpy()

    @property
    def captioned(self) -> bool:
        """Whether there is a sentence about every image."""
        return self._caption is not None

    def captioned_by(self, sentences: Sequence[str]) -> ImageSet:
        """The same images with these captions, one of each, in place of what is said of them."""
        new = copy.copy(self)
        new._caption = dict(zip((int(position) for position in self._positions), sentences, strict=True)).__getitem__
        return new

    def caption(self, i: int) -> str:
        """A sentence about image `i`; `VlmlabError` if the set has none."""
        if self._caption is None:
            raise VlmlabError("these images have no captions; choose tableau, which does")
        return self._caption(int(self._positions[i]))

    def granting(self, classes: Sequence[int]) -> ImageSet:
        """The same images of which only these classes are known, in their old numbers: labels of others become -1 (unknown),
        their boxes are left out and their pixels become UNLABELLED."""
        labels = self._labels.clone()
        hidden = [c for c in range(labels.shape[1]) if c not in set(classes)] if self.multi_label else []
        if hidden:
            labels[:, hidden] = -1
        annotate = self._annotate
        return self._with(
            labels, self.ids, self._positions, annotate and (lambda position: annotate(position).only(classes))
        )

    def without_truth(self) -> ImageSet:
        """The same images with their labels alone: boxes and masks are out of reach."""
        bare = self._with(self._labels, self.ids, self._positions)
        bare._annotate = None
        return bare

    def fingerprint(self) -> str:
        """Hash of which images these are and what they hold: the key under which their features are cached."""
        text = "\n".join([self._pictures.identity(), *self.ids])
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def annotations_fingerprint(self) -> str:
        """Hash of the boxes, masks and captions that are known of these images; every one of them is read for it."""
        digest = hashlib.sha256()
        for i in range(len(self)):
            truth = self.truth(i) if self.dense else None
            parts = (truth.boxes, truth.labels, truth.instances, truth.semantic) if truth else ()
            for part in parts:
                digest.update(b"none" if part is None else f"{list(part.shape)}".encode() + part.numpy().tobytes())
            digest.update((self.caption(i) if self.captioned else "").encode() + b"\0")
        return digest.hexdigest()[:24]

    def _with(
        self,
        labels: Tensor,
        ids: Sequence[str],
        positions: NDArray[np.int64],
        annotate: Callable[[int], Truth] | None = None,
    ) -> ImageSet:
        new = ImageSet(self._pictures, labels, ids, annotate or self._annotate, positions, self._caption)
        new._hidden = self._hidden
        return new


def _index(indices: slice | Sequence[int] | Tensor) -> slice | NDArray[np.int64]:
    if isinstance(indices, slice):
        return indices
    if isinstance(indices, Tensor):
        indices = (indices.nonzero().flatten() if indices.dtype == torch.bool else indices).tolist()
    return np.asarray(list(indices), dtype=np.int64)


def _renumbered(annotate: Callable[[int], Truth], classes: list[int]) -> Callable[[int], Truth]:
    """Ground truth with only these classes, renumbered in this order."""
    return lambda position: annotate(position).of_classes(classes)
