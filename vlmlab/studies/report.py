"""A report: a notebook template run with other parameters, kept as .ipynb and .html (papermill, nbconvert)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from html import escape as html_escape
from pathlib import Path
from typing import Any

from vlmlab.errors import VlmlabError
from vlmlab.files import expanded, write_atomically
from vlmlab.studies.templates import check_names, checked, parameters_of, template_named

PAGE = "main { max-width: 1040px; margin: 0 auto; padding: 0 16px 48px } img { max-width: 100% }"
"""CSS of the web page: a column that one can read."""


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


EVERY = 5.0  # seconds between two lines of progress


@contextlib.contextmanager
def _progress(results: Path, echo: Callable[[str], None]) -> Iterator[None]:
    """Tells how many experiments are measured while the notebook runs, whenever there are more."""
    ended, began = threading.Event(), time.monotonic()

    def tell() -> None:
        told = 0
        while not ended.wait(EVERY):
            count = sum(not path.name.endswith(".failed.json") for path in results.glob("[!.]*.json"))
            if count > told:
                told = count
                echo(f"{count} experiment{'s' * (count > 1)} measured, {time.monotonic() - began:.0f} s")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


def offline(page: str) -> str:
    """`page` without the scripts that nbconvert has it load from elsewhere; what a report shows needs none of them."""
    return re.sub(
        r"<script\b[^>]*>.*?</script>",
        lambda script: "" if "https://" in script.group() or "x-mathjax-config" in script.group() else script.group(),
        page,
        flags=re.S,
    )


def report(parameters: dict[str, Any], out: Path | str, template: str = "adaptation", echo=print) -> dict[str, Path]:
    """Run `template` with `parameters` and write it to the folder `out`; `echo` is told what is happening.

    The notebook runs in a hidden folder inside `out`. When all is made, the files are moved into place, each whole, the page
    last. What a stopped or killed run had measured stays in that folder, and the same report goes on from there; also one
    that was killed between two of these moves, when `out` may hold files of the old report beside files of the new one.

    Returns the paths {"notebook", "html", "record"}.
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
            with _progress(running / "results", echo):
                execute_notebook(
                    str(source),
                    str(notebook),
                    parameters=values,
                    kernel_name="python3",
                    kernel_manager_class=OwnKernel,
                    extra_arguments=["--IPKernelApp.log_level=ERROR"],
                    progress_bar=False,
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
        html = offline(with_texts(html, notebook)).replace("</head>", f"<style>{PAGE}</style></head>", 1)
        files = {"notebook": out / "report.ipynb", "html": out / "report.html", "record": out / "record.json"}
        record = (running / "record.json").read_bytes()
        _moved(
            {
                out / "parameters.json": written.encode(),
                files["record"]: record,
                files["notebook"]: notebook.read_bytes(),
                files["html"]: html.encode(),
            },
            running / "whole",
        )
    return files


def _moved(contents: dict[Path, bytes], through: Path) -> None:
    """Write files to a folder on the same disk, then move them into place in this order: a kill finds the time for little between
    renames, and what it leaves lies in that folder."""
    for path, content in contents.items():
        write_atomically(through / path.name, content)
    for path in contents:
        try:
            os.replace(through / path.name, path)
        except OSError as error:
            raise VlmlabError(f"cannot write {path}: {error.strerror}; move away what is there") from error
