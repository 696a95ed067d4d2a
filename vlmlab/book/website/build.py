"""Lay the book out in a folder, run Sphinx on it, and hold the result to its links."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vlmlab.book.lab import chapters_folder
from vlmlab.book.website import pages
from vlmlab.book.website.chapters import chapters, page
from vlmlab.book.website.links import faults
from vlmlab.errors import VlmlabError

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parents[1]
TOOLS = ("sphinx", "myst_nb", "pydata_sphinx_theme", "autodoc2", "sphinxcontrib.katex", "sphinx_copybutton")


def build(out: Path, reference: bool = False, echo=print) -> dict[str, float]:
    """Build the site into the folder `out`, replacing what it held; gives its pages, megabytes and the seconds that it took.

    Args:
        reference: with the pages of the package's docstrings, some minutes of the processor more.

    Raises:
        VlmlabError: the tools of the extra `[site]` are not installed, Sphinx warned of something, or a link is dead.
    """
    missing = [name for name in TOOLS if not _installed(name)]
    if missing:
        raise VlmlabError(f"the website needs {', '.join(missing)}; install with: pip install 'vlmlab[site]'")
    if out.exists() and not (out / "objects.inv").is_file() and any(out.iterdir()):
        raise VlmlabError(f"{out} is there and holds no website; name a folder that may be replaced")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        source, made = Path(name) / "source", Path(name) / "site"
        lay_out(source, reference)
        echo("running Sphinx")
        _sphinx(source, made, reference)
        # myst-nb leaves a second copy of every figure beside the site.
        shutil.rmtree(made.parent / "jupyter_execute", ignore_errors=True)
        if dead := list(faults(made)):
            told = "\n  ".join(dead[:20])
            raise VlmlabError(f"the site has {len(dead)} faults in its links:\n  {told}")
        if out.exists():
            shutil.rmtree(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, out)
    found = {
        "pages": len(list(out.rglob("*.html"))),
        "mb": round(sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20, 1),
        "seconds": round(time.monotonic() - began),
    }
    echo(
        f"{out}: {found['pages']} pages, {found['mb']} MB, {found['seconds']} s; read it with python -m http.server -d {out}"
    )
    return found


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package that should hold it
        return False


def lay_out(source: Path, reference: bool = True) -> None:
    """Everything that Sphinx reads, in a new folder `source`."""
    (source / "notebooks").mkdir(parents=True)
    book = chapters(chapters_folder())
    glossary = (HERE / "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^([^\s:`#].*)\n {2}\S", glossary, re.M)
    for chapter in book:
        notebook = json.loads(chapter.path.read_text(encoding="utf-8"))
        shown = page(notebook, chapter.path.name, terms)
        (source / "notebooks" / chapter.path.name).write_text(json.dumps(shown), encoding="utf-8")
    written = {"glossary.md": glossary, "syllabus.md": (HERE / "syllabus.md").read_text(encoding="utf-8")}
    for name, text in (written | pages.pages(book, reference)).items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    if reference:
        (source / "vlmlab").symlink_to(PACKAGE)


def _sphinx(source: Path, made: Path, reference: bool) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", str(HERE), str(source), str(made)]
    if not reference:
        command += ["-D", "extensions=myst_nb,sphinxcontrib.katex,sphinx_copybutton"]
    path = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise VlmlabError("Sphinx is not content with the book:\n  " + "\n  ".join(said[-20:]))
