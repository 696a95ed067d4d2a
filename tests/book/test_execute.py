"""`vlmlab book`: what it runs, what it writes, and what it leaves alone."""

import base64
import io
import json

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from vlmlab.book import execute
from vlmlab.book.normalise import SMALL_PNG, normalise, smaller
from vlmlab.cli import main


def saved(folder, name, *sources):
    cells = [new_markdown_cell("# T"), *(new_code_cell(source) for source in sources)]
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "NOTEBOOKS", tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_chapter_is_executed_still_strict_and_written_back(folder, capsys):
    path = saved(
        folder,
        "01_one",
        "import os, ipywidgets\n[os.environ[n] for n in ('VLMLAB_STATIC', 'VLMLAB_STRICT')]",
        "from IPython.display import display\ndisplay(ipywidgets.IntSlider())",
        "from vlmlab.book import facts, near\nfacts({'x': near(2.49, 5)})",
        "object()",
    )
    assert main(["book", "01", "--json"]) == 1, "it breaks the recipe in many ways"
    out, err = capsys.readouterr()
    (row,) = json.loads(out)
    promised = {"chapter", "cells", "seconds", "cpu_seconds", "peak_mb", "kb", "failure", "faults", "close", "ok"}
    assert promised <= row.keys() and row["chapter"] == "01_one" and row["cells"] == 4
    assert row["seconds"] > 0 and row["cpu_seconds"] > 0 and row["peak_mb"] > 20 and not row["failure"]
    assert row["faults"] and row["close"] == ["the fact 'x' is 0% of a step from another value; choose another step"]
    assert "01_one: the first cell does not say the survey section" in err
    first = path.read_text(encoding="utf-8")
    outputs = [cell.outputs for cell in nbformat.reads(first, 4).cells[1:]]
    assert outputs[0][0].data["text/plain"] == "['1', '1']"
    assert outputs[1] == [] and "widget" not in first.replace("ipywidgets", "")
    assert outputs[3][0].data["text/plain"] == "<object>"
    assert main(["book", "01_one"]) == 1
    assert path.read_text(encoding="utf-8") == first, "executing again changes nothing"


@pytest.mark.slow
def test_a_failed_chapter_stays_as_it_was_and_the_others_run(folder, capsys):
    bad, good = saved(folder, "01_bad", "1 / 0"), saved(folder, "02_good", "1")
    before = bad.read_bytes()
    assert main(["book"]) == 1
    out, err = capsys.readouterr()
    assert "01_bad: cell 2 raised ZeroDivisionError: division by zero" in err
    assert out.splitlines()[0].split() == "chapter cells seconds cpu seconds peak mb kb ok".split()
    assert bad.read_bytes() == before and '"execution_count": 1' in good.read_text(encoding="utf-8")


@pytest.mark.slow
def test_workers_run_chapters_at_once_with_one_thread_each(folder, capsys):
    """Each of two chapters waits for a file that the other one writes; the third is left for whoever is done first."""
    meet = "import os, pathlib, time\npathlib.Path('{}').touch()\nend = time.monotonic() + 60"
    wait = "while not pathlib.Path('{}').exists():\n    assert time.monotonic() < end\nos.environ['OMP_NUM_THREADS']"
    first = saved(folder, "01_first", meet.format("one"), wait.format("two"))
    second = saved(folder, "02_second", meet.format("two"), wait.format("one"))
    third = saved(folder, "03_third", "1 / 0")
    assert main(["book", "--workers", "2", "--json"]) == 1, "they break the recipe, and the third fails"
    rows = json.loads(capsys.readouterr().out)
    assert [row["chapter"] for row in rows] == ["01_first", "02_second", "03_third"]
    assert [bool(row["failure"]) for row in rows] == [False, False, True]
    for path in (first, second):
        assert nbformat.read(path, 4).cells[2].outputs[0].data["text/plain"] == "'1'"
    assert nbformat.read(third, 4).cells[1].outputs == []


def test_the_beginning_of_a_name_means_all_parts_of_a_chapter(folder):
    for name in ("06_1_text", "06_1a_classes", "06_1d_labels", "06_4_adapters"):
        saved(folder, name, "1")
    assert list(execute.chosen(["06_1"])) == ["06_1_text", "06_1a_classes", "06_1d_labels"]
    assert list(execute.chosen(["06_1_text"])) == ["06_1_text"] and list(execute.chosen(["06_1d"])) == ["06_1d_labels"]


def test_an_unknown_chapter_is_one_line(folder, capsys):
    saved(folder, "06_1_text", "1")
    assert main(["book", "06_2_text"]) == 2
    assert main(["book", "06.1"]) == main(["book", ""]) == main(["book", "."]) == 2
    assert "unknown chapter '06_2_text'; did you mean 06_1_text?" in capsys.readouterr().err
    assert list(execute.chosen(["06"])) == list(execute.chosen(["notebooks/06_1_text.ipynb"])) == ["06_1_text"]


def test_a_copy_without_notebooks_is_one_line(folder, capsys):
    assert main(["book"]) == 2
    assert "there are no chapters" in capsys.readouterr().err


def noise(size):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_normalising_takes_off_what_changes_and_does_it_once():
    outputs = [
        new_output("stream", name="stdout", text="a\n"),
        new_output("stream", name="stdout", text="b\n"),
        new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "IntSlider()"}),
        new_output(
            "execute_result",
            {"image/png": base64.b64encode(noise(200)).decode(), "text/plain": "<X at 0x7f01>"},
            execution_count=9,
            metadata={"image/png": {"alt": "noise"}},
        ),
    ]
    cell = new_code_cell("x", outputs=outputs, execution_count=9, metadata={"tags": ["scratch"], "collapsed": False})
    twin = new_code_cell("x", id=cell.id, execution_count=12)
    book = new_notebook(
        cells=[cell, twin], metadata={"widgets": {}, "kernelspec": {"name": "env", "display_name": "My own"}, "toc": 1}
    )
    done = normalise(book)
    assert set(done.metadata) == {"kernelspec", "language_info"} and done.metadata.kernelspec.name == "python3"
    assert done.cells[0].id != done.cells[1].id
    assert [c.execution_count for c in done.cells] == [1, 2]
    assert done.cells[0].metadata == {"tags": ["scratch"]}
    stream, shown = done.cells[0].outputs
    assert stream.text == "a\nb\n"
    assert shown.execution_count == 1 and shown.data["text/plain"] == "<X>"
    assert "image/png" not in shown.data and shown.metadata["image/jpeg"] == {"alt": "noise"}
    text = nbformat.writes(done)
    assert nbformat.writes(normalise(nbformat.reads(text, 4))) == text


def test_small_pictures_stay_and_charts_keep_their_edges():
    small = noise(20)
    assert smaller(small) == ("image/png", small)
    chart = np.full((900, 1200, 3), 255, np.uint8)
    chart[:, ::2] = (0, 114, 178)
    # Lines on white that PNG does not compress below the limit on its own.
    chart[np.random.default_rng(0).random((900, 1200)) < 0.03] = (213, 94, 0)
    buffer = io.BytesIO()
    Image.fromarray(chart).save(buffer, "PNG")
    kind, content = smaller(buffer.getvalue())
    assert len(buffer.getvalue()) > SMALL_PNG and kind == "image/png" and len(content) < len(buffer.getvalue())
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), chart)
    assert smaller(content) == (kind, content), "what was made smaller stays"
    kind, content = smaller(noise(300))
    assert kind == "image/jpeg" and np.asarray(Image.open(io.BytesIO(content))).shape == (300, 300, 3)
