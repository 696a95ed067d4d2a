"""What `pip install vlmlab` gives: declared dependencies are those imported, and a wheel works without the checkout."""

import ast
import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import nbformat
import pytest

from vlmlab import __version__
from vlmlab.book.lab import chapters_folder
from vlmlab.cli import EXTRAS
from vlmlab.errors import VlmlabError

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

IMPORTED_AS = {"open_clip": "open-clip-torch", "PIL": "pillow", "sklearn": "scikit-learn", "skimage": "scikit-image"}
"""Modules that are called otherwise than their package, in which a dash, a dot and an underscore are the same."""

NOT_IMPORTED = {
    "jupyterlab": "run as a program by `vlmlab lab`",
    "ipykernel": "the kernel in which chapters and reports run",
}
WITH_BOOK = ("book", "widgets")  # folders of the package that need the extra [book]
OPTIONAL = {"playwright": "looked for by `vlmlab doctor`, which does without"}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    found = (re.match(r"[\w.-]+", line).group() for line in requirements)
    return {plain(name) for name in found if name != "vlmlab"}


CORE = names(PROJECT["project"]["dependencies"])
BOOK = names(PROJECT["project"]["optional-dependencies"]["book"])
SWEEP = names(PROJECT["project"]["optional-dependencies"]["sweep"])


def imports(path: Path, top: bool) -> set[str]:
    """Packages that a file imports, outside of functions only if `top`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = [node for node in tree.body] if top else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return {
        plain(IMPORTED_AS.get(name, name)) for name in found if name not in sys.stdlib_module_names and name != "vlmlab"
    }


def test_what_is_imported_is_declared_and_the_other_way_round():
    every = set().union(*(imports(path, top=False) for path in (ROOT / "vlmlab").rglob("*.py"))) - set(OPTIONAL)
    assert every | set(NOT_IMPORTED) == CORE | BOOK | SWEEP


def test_the_core_imports_no_extra_before_it_is_needed():
    files = [p for p in (ROOT / "vlmlab").rglob("*.py") if p.relative_to(ROOT).parts[1] not in WITH_BOOK]
    for path in files:
        extra = imports(path, top=True) & ((BOOK | SWEEP) - CORE)
        # A sweep is what `distributed` is for, and a report makes one; the command line says which extra is missing.
        assert not extra or path.name in ("sweep.py", "kernel.py"), f"{path} imports {extra}"
    assert set(EXTRAS.values()) == {"book", "sweep"}
    assert {plain(name) for name in EXTRAS} >= (BOOK | SWEEP) - {"ipykernel"}


def test_only_who_measures_waits_for_torchmetrics():
    """It takes two seconds to import, which every process would pay for."""
    files = sorted((ROOT / "vlmlab").rglob("*.py"))
    assert [path.name for path in files if "torchmetrics" in imports(path, top=True)] == []
    assert [path.name for path in files if "torchmetrics" in imports(path, top=False)] == [
        "dense.py",
        "evaluate.py",
        "panoptic.py",
    ]


def test_a_missing_extra_is_one_line(tmp_path):
    """Packages of the extras are made invisible in a process of its own."""
    hidden = sorted(EXTRAS)
    code = f"import sys; sys.modules.update(dict.fromkeys({hidden})); from vlmlab.cli import main; sys.exit(main())"
    for arguments, extra in ((["sweep", "--store", str(tmp_path)], "sweep"), (["book", "06_4"], "book")):
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert f"pip install 'vlmlab[{extra}]'" in done.stderr.strip().split("\n")[-1]


def test_the_version_is_said_once():
    assert "version" in PROJECT["project"]["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)


def test_a_copy_of_the_chapters_keeps_what_was_written_in_it(tmp_path):
    folder = chapters_folder(tmp_path / "book")
    copied = {path.name for path in folder.iterdir()}
    assert copied == {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
    (folder / "00_start_here.ipynb").write_text("mine")
    (folder / "06_5_other_methods.ipynb").unlink()
    assert chapters_folder(folder) == folder
    assert (folder / "00_start_here.ipynb").read_text() == "mine"
    assert (folder / "06_5_other_methods.ipynb").exists()
    assert chapters_folder() == ROOT / "notebooks" == chapters_folder(ROOT / "notebooks")


def test_chapters_are_not_copied_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VlmlabError, match="cannot write"):
        chapters_folder(tmp_path / "file" / "book")


def state(folder: Path) -> dict[str, str]:
    """The files below a folder with the hash of their bytes; compiled code is left out."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A folder into which the wheel was installed: built from the source archive, as the registry would have it."""
    pytest.importorskip("hatchling", reason="the build backend is not installed: pip install hatchling")
    folder = tmp_path_factory.mktemp("wheel")

    def build(target: str, source: Path) -> Path:
        command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
        subprocess.run(command, cwd=source, check=True, capture_output=True)
        (made,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
        return made

    with tarfile.open(build("sdist", ROOT)) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    made = build("wheel", source)
    site = folder / "site"
    # The dependencies are those of this environment; nothing is downloaded.
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(made),
    ]
    subprocess.run(install, check=True, capture_output=True)
    return site


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs the installed `vlmlab` in a folder far from the checkout; gives its standard output, parsed if it is JSON."""
    away = tmp_path_factory.mktemp("away")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("VLMLAB_")}
    variables |= {"PYTHONPATH": str(wheel), "VLMLAB_CACHE": str(away / "cache"), "OMP_NUM_THREADS": "1"}
    variables |= {"PYTHONDONTWRITEBYTECODE": "1"}
    started = wheel / "bin" / "vlmlab"

    def run(*arguments: str):
        command = [sys.executable, str(started), *arguments]
        done = subprocess.run(command, cwd=away, env=variables, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout.strip()

    run.away, run.variables = away, variables
    return run


@pytest.mark.slow
def test_a_wheel_works_without_the_checkout(wheel, installed):
    before = state(wheel)
    command = [sys.executable, "-c", "import vlmlab; print(vlmlab.__file__)"]
    said = subprocess.run(command, cwd=installed.away, env=installed.variables, capture_output=True, text=True)
    assert Path(said.stdout.strip()).is_relative_to(wheel), "the checkout was imported"

    assert installed("--version") == f"vlmlab {__version__}"
    findings = installed("doctor", "--json")
    assert all(finding["ok"] for finding in findings.values()), findings
    assert {"torch", "psutil", "scipy"} <= set(findings)

    result = installed("run", "tip_adapter", "--dataset", "digits", "--shots", "1", "--json")
    assert result["metrics"]["accuracy"] > 10
    assert result["versions"]["vlmlab"] == __version__

    few = ("--systems", "tip_adapter", "--datasets", "digits", "--shots", "1", "--seeds", "0", "--words", "cat")
    files = installed("report", *few, "--set", "workers=0", "--set", "base_new=", "--out", "report", "--json")
    assert "<img" in Path(installed.away, files["html"]).read_text(encoding="utf-8")

    # The reader's copy of the chapter that takes least is executed and written; the environment is left as it was.
    (chapter,) = installed("book", "06_6", "--json")
    assert chapter["ok"], chapter
    written = nbformat.read(installed.away / "vlmlab-book" / "06_6_discussion.ipynb", 4)
    assert any(cell.get("outputs") for cell in written.cells)
    assert installed("lab", "--copy-only", "--folder", "mine") == "mine"
    assert (installed.away / "mine" / "00_start_here.ipynb").exists()
    assert state(wheel) == before


@pytest.mark.slow
def test_the_metadata_of_a_wheel(wheel):
    (folder,) = wheel.glob("vlmlab-*.dist-info")
    found = importlib.metadata.Distribution.at(folder)
    assert found.version == __version__ and found.metadata["Requires-Python"] == ">=3.11"
    versions = {line.rpartition(" ")[2] for line in found.metadata.get_all("Classifier") if "Python :: 3." in line}
    assert versions == {"3.11", "3.12", "3.13"}
    assert set(found.metadata.get_all("Provides-Extra")) == {"book", "site", "sweep", "test"}
    kept = set(state(wheel))
    assert {
        "vlmlab/py.typed",
        "vlmlab/data/backbones/manifest.json",
        "vlmlab/notebooks/reports/adaptation.ipynb",
        "vlmlab/notebooks/reports/detection.ipynb",
        "vlmlab/notebooks/reports/segmentation.ipynb",
    } <= kept
    assert not [name for name in kept if name.startswith(("tests/", "data/", "notebooks/"))]
