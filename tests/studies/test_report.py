import json
import os
import pathlib
import re
import shutil
import time

import nbformat
import pytest
from nbclient.exceptions import DeadKernelError

from vlmlab.errors import VlmlabError
from vlmlab.studies import templates as module
from vlmlab.studies.report import report
from vlmlab.studies.templates import checked, parameters_of, templates

DEFAULTS = {"shots": [1, 4], "backbone": "micro-vit", "workers": 2, "words": ["cat"], "rate": 0.5}


@pytest.fixture
def template(tmp_path, monkeypatch):
    """A folder with one template `tiny` whose second cell is given by the test."""

    def write(parameters: str, body: str):
        first = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
        notebook = nbformat.v4.new_notebook(cells=[first, nbformat.v4.new_code_cell(body)])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        folder = tmp_path / "templates"
        folder.mkdir(exist_ok=True)
        nbformat.write(notebook, folder / "tiny.ipynb")
        monkeypatch.setattr(module, "TEMPLATES", folder)
        return folder / "tiny.ipynb"

    return write


def test_given_values_replace_defaults():
    assert checked({"shots": [16], "rate": 1}, DEFAULTS) == DEFAULTS | {"shots": [16], "rate": 1}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"shot": [1]}, "shots"),
        ({"workers": "two"}, "a whole number"),
        ({"workers": True}, "a whole number"),
        ({"shots": 4}, "a list"),
        ({"shots": ["four"]}, "each item .* must be a whole number, which 'four' is not"),
        ({"backbone": 3}, "text"),
    ],
)
def test_a_wrong_parameter_is_one_line(given, said):
    with pytest.raises(VlmlabError, match=said) as error:
        checked(given, DEFAULTS)
    assert "\n" not in str(error.value)


def test_every_template_has_literal_parameters():
    assert "adaptation" in templates()
    for path in templates().values():
        assert "out" in parameters_of(path)


def test_a_computed_parameter_is_refused(template):
    with pytest.raises(VlmlabError, match="line 2"):
        parameters_of(template("shots = 4\ndouble = shots * 2", ""))


def test_a_report_runs_with_its_parameters(template, tmp_path):
    template(
        "number = 1\nout = ''",
        "import json, pathlib\n"
        "pathlib.Path(out, 'record.json').write_text(json.dumps({'twice': 2 * number}))\n"
        "from vlmlab.views.charts import learning_curve\ndisplay(learning_curve([2.0, 1.0]).described('falls'))\nprint('twice', 2 * number)",
    )
    out = tmp_path / "out"
    files = report({"number": 21}, out, "tiny", echo=lambda _: None)
    assert json.loads(files["record"].read_text()) == {"twice": 42}
    page = files["html"].read_text()
    assert "twice 42" in page and "import json" not in page
    assert "data:image/png;base64," in page and 'alt="falls"' in page
    assert nbformat.read(files["notebook"], 4).cells[-1].outputs[-1].text == "twice 42\n"
    assert not [p for p in out.iterdir() if p.name.startswith(".")]
    assert not re.search(r"""(src|href)=["']?https?:|import .{0,80}https?:""", page), "nothing is loaded from elsewhere"


def test_progress_says_how_many_experiments_are_measured(template, tmp_path, monkeypatch):
    """A line when there are more, and only then."""
    template("number = 1\nout = ''", "pass")
    said = []

    def run(source, target, parameters, **how):
        store = pathlib.Path(parameters["out"], "results")
        store.mkdir(exist_ok=True)
        for n, name in enumerate(("first.json", "second.failed.json", "third.json"), 1):
            (store / name).touch()
            while n != 2 and len(said) < 1 + (n + 1) // 2:
                time.sleep(0.01)
        pathlib.Path(parameters["out"], "record.json").write_text("{}")
        shutil.copy(source, target)

    monkeypatch.setattr("vlmlab.studies.report.EVERY", 0.01)
    monkeypatch.setattr("papermill.execute_notebook", run)
    report({}, tmp_path / "out", "tiny", echo=said.append)
    assert said[0] == "running tiny ..."
    assert [line.split(",")[0] for line in said[1:]] == ["1 experiment measured", "2 experiments measured"]


def test_a_mistake_in_a_cell_keeps_the_old_report_and_its_one_line(template, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.html").write_text("old")
    template("out = ''", "from vlmlab.errors import VlmlabError\nraise VlmlabError('too many shots; use 4')")
    with pytest.raises(VlmlabError, match=r"^too many shots; use 4$"):
        report({}, out, "tiny", echo=lambda _: None)
    assert [path.name for path in out.iterdir()] == ["report.html"] and (out / "report.html").read_text() == "old"
    with pytest.raises(VlmlabError, match="too many shots"):
        report({}, tmp_path / "new", "tiny", echo=lambda _: None)
    assert not (tmp_path / "new").exists()


def test_a_report_that_is_stopped_goes_on_where_it_was(template, tmp_path, monkeypatch):
    template("number = 1\nout = ''", "pass")
    out, seen = tmp_path / "out", []

    def run(source, target, parameters, **how):
        store = pathlib.Path(parameters["out"], "results")
        store.mkdir(exist_ok=True)
        seen.append(sorted(path.name for path in store.iterdir()))
        (store / "first.json").touch()
        if len(seen) == 1:
            raise KeyboardInterrupt
        pathlib.Path(parameters["out"], "record.json").write_text("{}")
        shutil.copy(source, target)

    monkeypatch.setattr("papermill.execute_notebook", run)
    with pytest.raises(KeyboardInterrupt):
        report({"number": 2}, out, "tiny", echo=lambda _: None)
    assert not [path for path in out.iterdir() if not path.name.startswith(".")], "nothing is half written"
    report({"number": 2}, out, "tiny", echo=lambda _: None)
    report({"number": 3}, out, "tiny", echo=lambda _: None)
    assert seen == [[], ["first.json"], []]
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    assert json.loads((out / "parameters.json").read_text())["number"] == 3


@pytest.mark.parametrize("moves", range(4))
def test_a_report_that_ends_between_two_moves_is_made_whole_by_the_next(template, tmp_path, monkeypatch, moves):
    """As if it were killed: its files come one after the other, the page last."""
    template("out = ''", "pass")
    out, real, done = tmp_path / "out", os.replace, []

    def run(source, target, parameters, **how):
        pathlib.Path(parameters["out"], "record.json").write_text("{}")
        shutil.copy(source, target)

    def replace(source, target):
        if pathlib.Path(source).parent.name == "whole" and not pathlib.Path(source).name.startswith("."):
            if len(done) == moves:
                raise KeyboardInterrupt
            done.append(pathlib.Path(target).name)
        real(source, target)

    monkeypatch.setattr("papermill.execute_notebook", run)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("vlmlab.studies.report.os.replace", replace)
        report({}, out, "tiny", echo=lambda _: None)
    seen = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    assert seen == sorted(done) and done == ["parameters.json", "record.json", "report.ipynb", "report.html"][:moves]
    report({}, out, "tiny", echo=lambda _: None)
    assert len(list(out.iterdir())) == 4 and (out / "report.html").read_text().rstrip().endswith("</html>")


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize(
    ("error", "said"),
    [(OSError(28, "No space left on device"), "No space left on device"), (DeadKernelError(), "memory")],
)
def test_a_full_disk_or_a_killed_kernel_is_one_line(template, tmp_path, monkeypatch, error, said, measured):
    template("out = ''", "pass")
    out, seen = tmp_path / "out", []

    def run(source, target, parameters, **how):
        store = pathlib.Path(parameters["out"], "results")
        store.mkdir(exist_ok=True)
        seen.append(len(list(store.iterdir())))
        if measured:
            (store / "first.json").touch()
        raise error

    monkeypatch.setattr("papermill.execute_notebook", run)
    for _ in range(2):
        with pytest.raises(VlmlabError, match=said) as told:
            report({}, out, "tiny", echo=lambda _: None)
        assert "\n" not in str(told.value) and out.exists() == measured
    assert seen == [0, int(measured)], "what was measured is not measured again"


def test_an_unknown_template_offers_the_closest(tmp_path):
    with pytest.raises(VlmlabError, match="adaptation"):
        report({}, tmp_path, "adaption")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"systems": ["coop", "mapel"]}, "unknown system 'mapel'; did you mean maple"),
        ({"datasets": ["digts"]}, "unknown dataset 'digts'; did you mean digits"),
        ({"folder": "./nowhere"}, "there is no folder ./nowhere"),
        ({"backbone": "micro-vitt"}, "unknown backbone 'micro-vitt'; did you mean micro-vit"),
        ({"photo_backbone": "foto"}, "unknown backbone 'foto'; did you mean photo"),
        ({"shots": []}, "'shots' is an empty list"),
        ({"shots": [0, 4]}, "'shots' must be 1 or more, not 0"),
        ({"seeds": [-1]}, "'seeds' must be 0 or more, not -1"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_written(given, said, tmp_path):
    with pytest.raises(VlmlabError, match=said):
        report(given, tmp_path / "out", echo=lambda _: None)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("shots", "1, 2", [1, 2]),
        ("words", "cat,cup of tea", ["cat", "cup of tea"]),
        ("backbone", "3", "3"),
        ("workers", "1", 1),
        ("workers", "two", "two"),
        ("rate", "0.1", 0.1),
    ],
)
def test_a_parameter_from_the_command_line_gets_the_type_of_its_default(name, text, value):
    assert module.from_text(name, text, DEFAULTS) == value


def test_an_unknown_parameter_from_the_command_line_is_one_line():
    with pytest.raises(VlmlabError, match="did you mean workers"):
        module.from_text("worker", "2", DEFAULTS)
