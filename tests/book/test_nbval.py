"""nbval, as `make test` calls it, notices a fact that changed, and nothing else that differs from run to run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parents[2]


def nbval_line():
    """The environment and the arguments of pytest in the line of the Makefile."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")  # continued lines are one
    (line,) = [line for line in makefile.splitlines() if "--nbval-lax" in line]
    words = shlex.split(line.strip())
    environment = dict(word.split("=", 1) for word in words if re.fullmatch(r"VLMLAB_\w+=.*", word))
    arguments = words[words.index("pytest") + 1 :]
    return environment, arguments


def test_the_makefile_runs_every_chapter_with_still_panels_and_no_report():
    environment, arguments = nbval_line()
    assert environment == {"VLMLAB_STATIC": "1", "VLMLAB_STRICT": "1"}
    assert "notebooks" in arguments and "--ignore=notebooks/reports" in arguments


def chapter(said):
    """A chapter in small: a cell whose output is another in every run, a panel, and the facts cell."""
    cells = [
        new_code_cell(
            "import os; os.getpid()", execution_count=1, outputs=[new_output("execute_result", {"text/plain": "1"})]
        ),
        new_code_cell(
            "# NBVAL_CHECK_OUTPUT\nfrom vlmlab.book import facts, near\n"
            "facts({'accuracy, %': near(51.2, 5), 'it gains': True})",
            execution_count=2,
            outputs=[new_output("execute_result", {"text/plain": said}, metadata={"vlmlab": {"margins": {}}})],
        ),
    ]
    return new_notebook(cells=cells)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("accuracy, %: about 50 (to 5)\nit gains: yes", 0),
        ("accuracy, %: about 55 (to 5)\nit gains: yes", 1),
        ("accuracy, %: about 50 (to 5)\nit gains: no", 1),
    ],
)
def test_a_changed_fact_is_caught(tmp_path, said, code):
    environment, arguments = nbval_line()
    nbformat.write(chapter(said), tmp_path / "chapter.ipynb")
    options = [argument for argument in arguments if argument.startswith("--nbval")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, "chapter.ipynb"],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    if code:
        assert "1 failed, 1 passed" in done.stdout and "accuracy, %" in done.stdout
