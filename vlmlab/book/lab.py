"""The book in JupyterLab, and where a reader's own copy of it lies.

In a checkout the chapters are read and executed where they are, in `notebooks/`. A wheel carries them inside the package,
which belongs to the environment and may be read-only; there every reader works on a copy.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from vlmlab.errors import VlmlabError
from vlmlab.files import expanded, installed, must_be_writable, shipped

COPY = "vlmlab-book"  # name of the folder that a reader's copy gets
FIRST = "00_start_here.ipynb"
OPTIONS = ("--ServerApp.tornado_settings={'websocket_max_message_size': 104857600}",)
"""JupyterLab's own limit of 10 MB per message is less than an uploaded photograph may take."""


def chapters_folder(folder: Path | None = None) -> Path:
    """The folder of chapters that one may read and write: `folder`, or `notebooks/` of a checkout, or ./vlmlab-book.

    Chapters that a folder lacks are copied into it; those that are there stay as they are, with what was written in
    them. Raises `VlmlabError` if there are no chapters to copy, or the folder cannot be written.
    """
    origin = shipped("notebooks")
    if folder is None and not installed():
        return origin
    folder = expanded(folder or COPY)
    if folder.resolve() == origin.resolve():
        return origin
    sources = sorted(origin.glob("*.ipynb"))
    if not sources:
        raise VlmlabError(f"there are no chapters in {origin}; install vlmlab again")
    must_be_writable(folder)
    for path in sources:
        if not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    return folder


def lab(folder: Path) -> int:
    """Run JupyterLab on the first chapter in `folder` until the user ends it; returns its exit code."""
    command = [sys.executable, "-m", "jupyterlab", *OPTIONS, str(folder / FIRST)]
    try:
        return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:  # JupyterLab has heard it as well, and ends by itself
        return 0
