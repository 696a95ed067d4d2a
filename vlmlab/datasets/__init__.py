"""Labelled pictures: MicroWorld's suite, the field's standard datasets, your own folder; splits and tasks."""

from vlmlab.datasets.dataset import Dataset, load_dataset
from vlmlab.datasets.image_set import Annotation, ImageSet
from vlmlab.datasets.splits import base_new, few_shot
from vlmlab.datasets.task import Task

__all__ = ["Annotation", "Dataset", "ImageSet", "Task", "base_new", "few_shot", "load_dataset"]
