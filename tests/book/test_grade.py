"""`vlmlab grade`: what it says of submissions, and what it leaves alone."""

import csv
import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from vlmlab.book import grade
from vlmlab.book.exercise import exercises, given
from vlmlab.cli import main

KEYS = list(exercises("06_4"))


def submitted(folder, name, *sources):
    path = folder / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[new_code_cell(source) for source in sources]), path)
    return path


def checking(key, answer):
    return f"from vlmlab.book import check\nfound = check({key!r}, {answer})"


@pytest.mark.slow
def test_a_class_is_marked_and_its_notebooks_are_left_alone(tmp_path, capsys):
    """The answers are checked again, not read from saved outputs; a failing cell costs only itself."""
    first, second, *others = KEYS
    solution = f"from vlmlab.book.exercise import exercises\nanswer = exercises('06_4')[{first!r}].solution"
    good = submitted(
        tmp_path,
        "class/one/chapter",
        "1 / 0",
        solution,
        checking(first, "answer"),
        "this is no Python",
        checking(second, "..."),
    )
    better_later = submitted(tmp_path, "class/two/chapter", checking(first, "3"), solution, checking(first, "answer"))
    submitted(tmp_path, "class/two/.ipynb_checkpoints/chapter", "1 / 0")
    before = [path.read_bytes() for path in (good, better_later)]
    table = tmp_path / "marks.csv"
    assert main(["grade", str(tmp_path / "class"), "--workers", "2", "--json", "--out", str(table)]) == 0
    one, two = json.loads(capsys.readouterr().out)
    assert [one["submission"], two["submission"]] == [str(good), str(better_later)]
    assert (one["right"], one["of"], one["failed_cells"]) == (1, len(KEYS), 2)
    assert one["not_started"] == second and one["missing"].split() == others and not one["wrong"]
    assert two["right"] == 1 and two["failed_cells"] == 0 and two["missing"].split() == KEYS[1:]
    assert [path.read_bytes() for path in (good, better_later)] == before
    with table.open(encoding="utf-8") as file:
        assert [row["right"] for row in csv.DictReader(file)] == ["1", "1"]


@pytest.mark.slow
def test_an_answer_that_never_ends_and_a_kernel_that_dies_do_not_hold_up_the_class(tmp_path, monkeypatch):
    monkeypatch.setattr(grade, "CELL_LIMIT", 20)  # seconds: enough for the first cell beside other work
    first, *others = KEYS
    endless = submitted(tmp_path, "endless", "import vlmlab.book.exercise", "while True: pass", checking(first, "3"))
    dead = submitted(tmp_path, "dead", checking(first, "3"), "import os\nos._exit(1)")
    slow, gone = grade.grade([endless, dead])
    assert slow.failed_cells == 1 and slow.states == {first: "wrong"} | dict.fromkeys(others, "missing")
    assert gone.failure == "its kernel died"
    assert gone.states == {first: "wrong"} | dict.fromkeys(others, "missing"), "what was checked before stands"


@pytest.mark.slow
def test_a_notebook_that_breaks_printing_does_not_end_the_marking(tmp_path):
    first, *_ = KEYS
    mute = submitted(tmp_path, "mute", checking(first, "3"), "print = 5")
    fine = submitted(tmp_path, "fine", "import vlmlab.book.exercise", checking(first, "3"))
    broken, marked = grade.grade([mute, fine])
    assert "unusable" in broken.failure and not marked.failure and marked.states[first] == "wrong"


def test_what_cannot_be_marked_is_told_and_the_others_are_not_lost(tmp_path, capsys):
    (tmp_path / "broken.ipynb").write_text("{", encoding="utf-8")
    submitted(tmp_path, "strange", "print('hello')")
    assert main(["grade", str(tmp_path), "--json"]) == 1
    broken, strange = json.loads(capsys.readouterr().out)
    assert broken["failure"].startswith("is no notebook") and strange["failure"] == "checks no exercise of the book"


@pytest.mark.parametrize(("path", "message"), [("nowhere", "there is no nowhere"), (".", "there is no notebook")])
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, path, message):
    monkeypatch.chdir(tmp_path)
    assert main(["grade", path]) == 2
    assert message in capsys.readouterr().err


def test_the_last_answer_counts():
    key = KEYS[0]
    from vlmlab.book import check

    assert check(key, 3).state == given()[key] == "wrong"
    assert check(key, exercises()[key].solution).state == given()[key] == "right"


def test_what_a_mac_leaves_behind_is_no_submission_and_each_counts_once(tmp_path):
    one = submitted(tmp_path, "class/one", "1")
    other = submitted(tmp_path, "class/two/other", "1")
    other.rename(other.with_suffix(".IPYNB"))
    for left in ("class/._one.ipynb", "class/__MACOSX/._one.ipynb", "class/.ipynb_checkpoints/one.ipynb"):
        (tmp_path / left).parent.mkdir(exist_ok=True)
        (tmp_path / left).write_bytes(b"\0\5\26\7")
    (tmp_path / "class" / "linked").symlink_to(tmp_path / "class" / "two")
    found = grade.submissions([tmp_path / "class", one, tmp_path / "class" / ".." / "class" / "one.ipynb"])
    assert [path.resolve() for path in found] == [(tmp_path / "class/two/other.IPYNB").resolve(), one.resolve()] or [
        path.resolve() for path in found
    ] == [one.resolve(), (tmp_path / "class/two/other.IPYNB").resolve()]


def test_an_empty_path_is_not_the_current_folder(tmp_path, monkeypatch, capsys):
    submitted(tmp_path, "mine", "raise SystemExit")
    monkeypatch.chdir(tmp_path)
    assert main(["grade", ""]) == 2
    assert "empty" in capsys.readouterr().err


@pytest.mark.slow
def test_the_kernel_is_the_python_that_runs_vlmlab_whatever_jupyter_finds(tmp_path, monkeypatch):
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    content = {"argv": ["/bin/false", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(content))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    (one,) = grade.grade([submitted(tmp_path, "one", checking(KEYS[0], "3"))])
    assert not one.failure and one.states[KEYS[0]] == "wrong"


def test_a_kernel_that_does_not_start_costs_one_mark(tmp_path, monkeypatch):
    from vlmlab.studies import kernel

    first, second = (submitted(tmp_path, name, checking(KEYS[0], "3")) for name in ("first", "second"))
    monkeypatch.setattr(kernel.sys, "executable", "/bin/false")
    one, two = grade.grade([first, second])
    assert one.failure.startswith("its kernel did not start") and two.failure and "\n" not in one.failure
