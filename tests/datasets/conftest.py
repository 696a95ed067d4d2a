"""Folders of tiny images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    """A cache of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("VLMLAB_CACHE", str(folder))
    return folder


def save_picture(path: Path, shade: int = 100, size: tuple[int, int] = (12, 10)) -> Path:
    """A noisy image of (width, height), whose format follows from the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(shade).integers(0, 40, (size[1], size[0], 3))
    Image.fromarray((noise + shade).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def picture_folder(tmp_path) -> Callable[..., Path]:
    """Make a folder: picture_folder({"cat": 5, "dog": 5}) has cat/0.jpg to cat/4.jpg, and so on."""

    def make(counts: dict[str, int], name: str = "pets") -> Path:
        for k, (label, count) in enumerate(counts.items()):
            (tmp_path / name / label).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                save_picture(tmp_path / name / label / f"{i}.jpg", 20 * k + i)
        return tmp_path / name

    return make
