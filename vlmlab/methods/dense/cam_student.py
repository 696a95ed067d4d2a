"""From maps of image labels to a segmenter: what systems share that learn from image labels alone.

It is known which things an image shows. A system makes a map for each; the strongest map above a threshold names a pixel, and an
ordinary segmentation network learns from these pseudo labels. It is what predicts, for nobody tells the classes of a test image.

    y(x) = argmax_c M_c(x), or ground where no map exceeds t                                     (1)
    L = mean over pixels of CE(student(x), y(x))                                                 (2)

Ground is not one class: it gets the stuff that the image's labels name (sky, grass, ...), and counts nothing if they name none,
or several.

Dimensions: B images of N, C classes, e joint width, n pairs of an image and a thing that it shows, S image side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vlmlab.datasets.truth import NOTHING
from vlmlab.methods.dense import cam
from vlmlab.methods.dense.pixels import TextPixels, halved, thirds, tokens
from vlmlab.methods.dense.segmenter import Segmenter
from vlmlab.methods.method import Batch
from vlmlab.methods.templates import choose, spoken


class CamStudent(Segmenter):
    """A segmenter that learns from maps. Its Config has `threshold` (None: chosen), `scale` and `templates` of the student.

    A system makes `label_maps`; it calls `prepare_student` and `keep_tokens` first, and `learn_labels` once it has maps.
    """

    fixed_threshold: ClassVar[float] = 0.5  # where there are no validation images to choose one on

    def set_classes(self, classes: Sequence[str], templates: Sequence[str]) -> None:
        """Other words for the student's classifier; the maps belong to the classes that it learned on."""
        super().set_classes(classes, templates)
        sentences = choose(self.config.templates, templates)
        self.classifier = self.backbone.class_embeddings(spoken(classes), sentences)  # [C, e]

    def prepare_student(self) -> None:
        """The student, which is not taught yet."""
        tower = self.backbone.image
        self.after = thirds(tower.depth)
        self.student = TextPixels(len(self.after) * tower.width, self.backbone.embed_dim).to(self.backbone.device)

    def background_words(self, text: str) -> list[str]:
        """The words that stand in `text`, with commas, each once and without those that are things here."""
        things = {name for c, name in enumerate(spoken(self.classes)) if c not in self.grounds}
        words = [word.strip() for word in text.split(",")]
        return [word for word in dict.fromkeys(words) if word and word not in things]

    def read(self, images: Tensor) -> Tensor:
        """Frozen tokens [B, D, h, w] of normalised images, in half precision, as they are kept."""
        return tokens(self.backbone.image, images, self.after).half()

    def keep_tokens(self, train) -> None:
        """The frozen tokens [N, D, h, w] of all training images."""
        self.tokens = torch.cat([self.read(images) for _, images, _ in self.framed_in_turn(train)])

    # --- from maps to labels -----------------------------------------------------------------------------------------

    def label_maps(self, images: Tensor, shown: Tensor, refined: bool = True) -> tuple[Tensor, Tensor]:
        """(pairs [n, 2] of an image and a thing that it shows, sorted by image; their maps [n, h, w], 0 to 1).

        images [B, 3, S, S] normalised, shown [B, C] true for the classes of each. `refined` False gives the maps that the system
        starts from.
        """
        raise NotImplementedError(f"{type(self).__name__}.label_maps")

    def scored(self, pictures, refined: bool = True) -> tuple[Tensor, Tensor]:
        """(score [N, S, S] and class [N, S, S] of the strongest map at every pixel) of the images of a labelled set;
        `refined` as in `label_maps`."""
        found = []
        for at, images, _ in self.framed_in_turn(pictures):
            shown = pictures.labels[at.start : at.stop].to(images.device) > 0
            pairs, maps = self.label_maps(images, shown, refined)
            maps = F.interpolate(maps[:, None], size=images.shape[-2:], mode="bilinear")[:, 0] if len(maps) else maps
            scores, names = cam.strongest(maps.view(-1, *images.shape[-2:]), pairs, len(images))
            found.append((scores.cpu(), names.to(torch.int16).cpu()))
        scores, names = (torch.cat(parts) for parts in zip(*found, strict=True))
        return scores, names.long()

    def truth_of(self, pictures) -> Tensor:
        """[N, S, S] class of every pixel in the network's input: things, C for any stuff, negative where nothing is known."""
        rows = []
        for i in range(len(pictures)):
            _, (frame,) = self.framed([pictures.images(i)])
            rows.append(frame.truth(pictures.truth(i)).semantic.long())
        truth = torch.stack(rows)
        return torch.where(torch.isin(truth, torch.tensor(self.grounds)), len(self.classes), truth)

    def chosen_threshold(self, val) -> float:
        """t of (1): as set, else the best on these images with masks, else `fixed_threshold`."""
        if self.config.threshold is not None:
            return self.config.threshold
        if not len(val) or not val.dense:
            return self.fixed_threshold
        return cam.best_threshold(*self.scored(val), self.truth_of(val), len(self.classes))

    def learn_labels(self, train) -> None:
        """The pseudo labels (1) of every training image, at half size."""
        scores, names = self.scored(train)
        labels = train.labels > 0
        stuff = labels[:, self.grounds]
        first = torch.tensor([*self.grounds, NOTHING])[stuff.int().argmax(1) if stuff.shape[1] else 0]
        ground = torch.where(stuff.sum(1) == 1, first, NOTHING)
        self.pseudo = halved(torch.where(scores > self.threshold, names, ground[:, None, None])).to(
            self.backbone.device
        )

    # --- the student -------------------------------------------------------------------------------------------------

    def logits(self, batch: Batch) -> Tensor:
        """[B, C, S, S], the student's scores, enlarged."""
        scores = self.scores(batch.images, self.read(batch.images))
        return F.interpolate(scores, size=batch.images.shape[-2:], mode="bilinear")

    def student_loss(self, batch: Batch) -> Tensor:
        """(2), over the pixels whose label is known."""
        index = batch.index.to(self.pseudo.device)
        scores = self.scores(batch.images, self.tokens[index])  # [B, C, S/2, S/2]
        target = self.pseudo[index]
        counted = (target != NOTHING).sum().clamp_min(1)
        return F.cross_entropy(scores, target, ignore_index=NOTHING, reduction="sum") / counted

    def scores(self, images: Tensor, places: Tensor) -> Tensor:
        """[B, C, S/2, S/2], the scaled cosines of the student's pixels with the words."""
        features = self.student(images, places)
        return self.config.scale * torch.einsum("behw,ce->bchw", F.normalize(features, dim=1), self.classifier)


def cam_miou(method: CamStudent, choose_on, pictures, refined: bool = True) -> dict[str, float]:
    """Mean IoU in percent of the maps of `pictures`, whose image labels are given; things and ground, stuff being ground.

    {"validation": at the threshold that is best on the images `choose_on`, "threshold": which, "fixed": at the method's own,
    "oracle": at the best on `pictures` themselves}. `refined` as in `label_maps`.
    """
    classes = len(method.classes)
    choice = cam.best_threshold(*method.scored(choose_on, refined), method.truth_of(choose_on), classes)
    scores, names = method.scored(pictures, refined)
    truth = method.truth_of(pictures)
    oracle = cam.best_threshold(scores, names, truth, classes)
    at = {"validation": choice, "fixed": method.fixed_threshold, "oracle": oracle}
    found = {name: cam.cam_iou(scores, names, truth, threshold, classes) for name, threshold in at.items()}
    return found | {"threshold": choice}
