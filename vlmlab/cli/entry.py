"""The application with its commands, and `main`, which runs them and turns errors into one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from vlmlab import __version__
from vlmlab.cli import chapters, checks, experiments, listings, predict, tables
from vlmlab.errors import VlmlabError

# typer hands on click's errors (from click, or from a copy of its own, depending on its version).
UsageError = typer.BadParameter.__base__


app = typer.Typer(
    name="vlmlab",
    help="Vision-language models for vision tasks: an executable survey (arXiv 2304.00685). "
    "Every system of the survey, one backbone interface, on a laptop or a GPU.",
    epilog="Start with: vlmlab systems, then vlmlab run coop --dataset digits, then vlmlab report.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


for command in (
    listings.systems,
    listings.backbones,
    listings.datasets,
    experiments.run,
    experiments.sweep,
    tables.table,
    experiments.tune,
    predict.predict,
    chapters.report,
    chapters.book,
    chapters.lab,
    chapters.grade,
    checks.verify,
    checks.check,
    checks.bench,
    checks.doctor,
    checks.build,
):
    app.command()(command)


@app.callback(invoke_without_command=True)
def _top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        print(f"vlmlab {__version__}")
        raise typer.Exit()
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


TROUBLE = (
    errno.EACCES, errno.EPERM, errno.EIO, errno.EISDIR, errno.ELOOP, errno.EMFILE, errno.EINVAL, errno.ENAMETOOLONG, errno.ENOENT,
    errno.ENOTDIR, errno.ENXIO,
)  # fmt: skip
"""What a path or a file system may be at fault with, wherever it is met."""


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EPIPE)


EXTRAS = {
    **dict.fromkeys(
        (
            "IPython",
            "anywidget",
            "ipywidgets",
            "jupyter_client",
            "jupyterlab",
            "nbclient",
            "nbconvert",
            "nbformat",
            "papermill",
            "traitlets",
        ),
        "book",
    ),
    "distributed": "sweep",
}
"""Packages that are only there with an extra of the installation, and its name."""


STOPPED = 130
"""Exit code of a command that the user ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal cannot spell must not lose the answer
            stream.reconfigure(errors="backslashreplace")
    try:
        code = typer.main.get_command(app).main(args=arguments, prog_name="vlmlab", standalone_mode=False)
        if sys.stdout:  # none if it was closed
            sys.stdout.flush()
        if code == STOPPED:  # typer's own answer to Ctrl-C
            return _refused("stopped", code=STOPPED)
    except VlmlabError as error:
        return _refused(str(error))
    except UsageError as error:
        return _refused(f"{error.format_message()} (see vlmlab {_command_of(error)}--help)")
    except (typer.Abort, KeyboardInterrupt):
        return _refused("stopped", code=STOPPED)
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        return _refused(f"this needs the package {error.name}; install it with: pip install 'vlmlab[{extra}]'")
    except OSError as error:
        if error.errno in TROUBLE:
            where = os.fsdecode(error.filename) if error.filename is not None else "a file"
            return _refused(f"cannot use {where} ({error.strerror}); name another one, or see to its rights and room")
        if error.errno not in NO_ROOM:
            raise
        # Python would try to write what is left of the answer once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if error.errno == errno.EPIPE:  # whoever read the answer has read enough
            return 1
        where = error.filename or "the answer"
        return _refused(f"cannot write {where}: {error.strerror}; choose a place with room that you may write to")
    return code if isinstance(code, int) else 0


def _refused(message: str, code: int = 2) -> int:
    print("vlmlab: " + " ".join(message.split()), file=sys.stderr)
    return code


def _command_of(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path.split()[1:] if context else []
    return "".join(part + " " for part in path)
