"""A report: a notebook template run with other parameters, kept as .ipynb and .html (papermill, nbconvert).

A template lives in notebooks/reports/. Its cell tagged `parameters` holds literals only (papermill injects the new
values after that cell, so anything derived there would keep the defaults); the literals are the schema against which
`report` checks what it is given, because papermill itself only warns about a misspelt name and takes any type.
"""

from __future__ import annotations

import ast
import contextlib
import csv
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from html import escape as html_escape
from pathlib import Path
from typing import Any

from vlmlab.backbones.catalog import BACKBONES
from vlmlab.datasets.catalog import BY_NAME, canonical, is_path, warn_of_namesake
from vlmlab.errors import KINDS, VlmlabError, unknown
from vlmlab.files import expanded, is_one_path, shipped, write_atomically
from vlmlab.registry import registry, unknown_system

TEMPLATES = shipped("notebooks") / "reports"
PAGE = "main { max-width: 1040px; margin: 0 auto; padding: 0 16px 48px } img { max-width: 100% }"
"""CSS of the web page: a column that one can read."""


def templates() -> dict[str, Path]:
    """The report templates by name."""
    return {path.stem: path for path in sorted(TEMPLATES.glob("*.ipynb"))}


def template_named(name: str) -> Path:
    """The notebook of a template; raises `VlmlabError` if there is none of that name."""
    if name not in templates():
        raise unknown("report", name, templates())
    return templates()[name]


def parameters_of(template: Path) -> dict[str, Any]:
    """Name -> default of every parameter of a template, in its order.

    Raises `VlmlabError` if the template has no cell tagged `parameters`, or if that cell computes something.
    """
    notebook = json.loads(template.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", ())]
    if len(cells) != 1:
        raise VlmlabError(f"{template.name} has {len(cells)} cells tagged 'parameters'; a report needs exactly one")
    defaults = {}
    for statement in ast.parse("".join(cells[0]["source"])).body:
        try:
            (target,) = statement.targets
            defaults[target.id] = ast.literal_eval(statement.value)
        except (AttributeError, ValueError) as error:
            raise VlmlabError(
                f"{template.name}: line {statement.lineno} of the parameters cell is no 'name = literal'; move it below"
            ) from error
    return defaults


def checked(given: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """`defaults` overridden by `given`, after each name and type was found right.

    A list holds elements of the type of the default's first element. Raises `VlmlabError` otherwise, in one line.
    """
    for name, value in given.items():
        if name not in defaults:
            raise unknown("report parameter", name, defaults)
        default = defaults[name]
        wanted = type(default)
        if not _is(value, wanted):
            raise VlmlabError(f"report parameter '{name}' must be {KINDS[wanted]} such as {default!r}, not {value!r}")
        if wanted is list:
            inner = type(default[0]) if default else str
            wrong = [item for item in value if not _is(item, inner)]
            if wrong:
                raise VlmlabError(
                    f"each item of the report parameter '{name}' must be {KINDS[inner]}, which {wrong[0]!r} is not"
                )
    return defaults | given


def from_text(name: str, text: str, defaults: dict[str, Any]) -> Any:
    """The value that `text`, from the command line, stands for: of the type of the default, lists separated by commas.

    Raises `VlmlabError` for an unknown name; a text that is no such value comes back as it is, for `checked` to refuse.
    """
    if name not in defaults:
        raise unknown("report parameter", name, defaults)
    default = defaults[name]
    if isinstance(default, str):
        return text
    if isinstance(default, list):
        items = [text] if is_one_path(text) else next(csv.reader([text], skipinitialspace=True), [])
        items = [item.strip() for item in items if item.strip()]
        return items if not default or isinstance(default[0], str) else [_literal(item) for item in items]
    return _literal(text)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.capitalize() if text in ("true", "false") else text)
    except (ValueError, SyntaxError):
        return text


def check_names(values: dict[str, Any]) -> None:
    """Refuse systems, datasets and backbones that are not known, before a kernel is started for them.

    Every template uses these parameters' names for the same things. Raises `VlmlabError` in one line.
    """
    for key in [*values.get("systems", ()), *values.get("base_new", ())]:
        if key != "all" and key not in registry():
            raise unknown_system(key)
    for name in [*values.get("datasets", ()), *filter(None, [values.get("folder")])]:
        if is_path(name):
            if not os.path.isdir(os.path.expanduser(name)):
                raise VlmlabError(f"there is no folder {name}; give the path of a folder of images")
            continue
        warn_of_namesake(name)
        if canonical(name) not in BY_NAME:
            raise unknown("dataset", name, BY_NAME)
    offline = [info.name for info in BACKBONES if info.offline]
    for name in filter(None, (values.get("backbone"), values.get("photo_backbone"))):
        if name not in offline and "/" not in name and "@" not in name:
            raise unknown("backbone", name, [info.name for info in BACKBONES])
    for name in ("systems", "datasets", "shots", "seeds", "words"):
        if values.get(name) == []:
            raise VlmlabError(f"report parameter '{name}' is an empty list; give at least one")
    for name, least in (("shots", 1), ("seeds", 0)):
        if min(values.get(name, [least])) < least:
            raise VlmlabError(f"report parameter '{name}' must be {least} or more, not {min(values[name])}")


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is kind


def with_texts(page: str, notebook: Path) -> str:
    """`page` with the text that every image of the notebook has for readers who do not see it.

    nbconvert's page takes images over without it, in the order of the outputs.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})]
    missing = 'alt="No description has been provided for this image"'
    for output in outputs:
        text = output.get("metadata", {}).get("image/png", {}).get("alt", "figure")
        page = page.replace(missing, f'alt="{html_escape(text)}"', 1)
    return page


@contextlib.contextmanager
def _running(out: Path, parameters: str) -> Iterator[Path]:
    """The folder in which the report of these parameters runs.

    With what was measured in it, it stays if the user stops the report, if its process is killed or the disk is full.
    """
    from nbclient.exceptions import DeadKernelError

    folder = out / f".running-{hashlib.sha256(parameters.encode()).hexdigest()[:8]}"
    there = out.exists()
    try:
        write_atomically(folder / "parameters.json", parameters)
        yield folder
    except Exception as error:
        # The error itself, or what `write_atomically` or this module made one line of.
        cause = error.__cause__ or error
        if isinstance(cause, (OSError, DeadKernelError)) and any((folder / "results").glob("*.json")):
            raise
        shutil.rmtree(folder, ignore_errors=True)
        if not there and out.exists() and not any(out.iterdir()):
            out.rmdir()
        raise
    shutil.rmtree(folder)


def report(parameters: dict[str, Any], out: Path | str, template: str = "adaptation", echo=print) -> dict[str, Path]:
    """Run `template` with `parameters` and write it to the folder `out`; `echo` is told what is happening.

    The notebook runs in a hidden folder inside `out` and is moved into place when it is complete, so that `out` holds
    either the old report or the new one. What a stopped or killed run had measured stays in that folder, and the same
    report goes on from there. Returns the paths {"notebook", "html", "record"}.
    Raises `VlmlabError` for an unknown template or parameter, a parameter of the wrong type, a folder that cannot be
    written, or a cell that failed for a reason that the user can mend (the cell's own one-line message).
    """
    source = template_named(template)
    values = checked(parameters, parameters_of(source))
    check_names(values)
    out = expanded(out)
    from nbclient.exceptions import DeadKernelError
    from nbconvert import HTMLExporter
    from papermill import execute_notebook
    from papermill.exceptions import PapermillExecutionError

    from vlmlab.studies.kernel import OwnKernel

    logging.getLogger("papermill").setLevel(logging.ERROR)
    logging.getLogger("traitlets").setLevel(logging.ERROR)
    written = json.dumps(values, indent=1, ensure_ascii=False)
    with _running(out, written) as running:
        notebook = running / "report.ipynb"
        values["out"] = str(running)
        echo(f"running {template} ...")
        try:
            execute_notebook(
                str(source),
                str(notebook),
                parameters=values,
                kernel_name="python3",
                kernel_manager_class=OwnKernel,
                extra_arguments=["--IPKernelApp.log_level=ERROR"],
                progress_bar=os.isatty(2),
                cwd=str(Path.cwd()),
            )
        except PapermillExecutionError as error:
            if error.ename == "VlmlabError":
                raise VlmlabError(str(error.evalue)) from error
            failed = out / "failed.ipynb"
            shutil.copy(notebook, failed)
            raise VlmlabError(
                f"cell {error.exec_count} of the report failed with {error.ename}: {error.evalue}; see {failed}"
            ) from error
        except DeadKernelError as error:
            raise VlmlabError(
                "the process that ran the report was killed, most likely for want of memory; ask for fewer systems, datasets "
                "or workers, or run the same report again: it goes on where this one was"
            ) from error
        except OSError as error:
            raise VlmlabError(
                f"cannot write the report to {out}: {error.strerror or error}; choose a folder with room"
            ) from error
        # For readers: the code stays in the notebook.
        exporter = HTMLExporter(
            exclude_input=True, exclude_input_prompt=True, exclude_output_prompt=True, embed_images=True
        )
        html, _ = exporter.from_filename(str(notebook), {"metadata": {"name": f"vlmlab: {template}"}})
        html = with_texts(html, notebook).replace("</head>", f"<style>{PAGE}</style></head>", 1)
        files = {"notebook": out / "report.ipynb", "html": out / "report.html", "record": out / "record.json"}
        write_atomically(out / "parameters.json", written)
        write_atomically(files["record"], (running / "record.json").read_text(encoding="utf-8"))
        write_atomically(files["notebook"], notebook.read_bytes())
        write_atomically(files["html"], html)
    return files
