"""Where results live: a folder with one JSON file per experiment.

A file's name is its experiment's key (in older stores, one of its `older_keys`). It is written to a temporary name and
renamed, so that it holds all of a result or does not exist; no index has to agree with it, so any number of processes
and machines may share the folder. A failure has a file of its own (`KEY.failed.json`), which can never take the place
of a result.

A result that was made from a folder of images, a standard dataset, a checkpoint or a file of descriptions is one from
what lay there: once images, lists or annotations were added, removed or hold something else, behind links and outside of
the folder too, it is not known any more, and `changes` says what is other. What is gone leaves its results known.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from vlmlab.datasets.catalog import is_path
from vlmlab.datasets.listing import is_picture
from vlmlab.datasets.sources import PLACES, WHOLE, contents_of, difference, files_of_folder, files_of_standard
from vlmlab.errors import VlmlabError
from vlmlab.files import cache_path, expanded, must_be_writable, remove_leftovers, sha256, write_atomically
from vlmlab.studies.experiment import Experiment

CONTENT = "content "  # before the hash of everything that a folder holds
PART = " > "  # between a folder and a part of its content
ROOM = 65536  # bytes that must be free for work to begin; a result has some 2,000


class ResultStore:
    """Results by experiment, in `folder`, which is made when the first one is kept."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = expanded(folder)
        self._contents: dict[str, dict[str, str]] = {}

    def prepare(self) -> None:
        """Before any work: raise `VlmlabError` if the folder cannot be written, and tidy up after killed writers."""
        must_be_writable(self.folder, ROOM)
        for folder in (self.folder, self.folder / "unfinished"):
            remove_leftovers(folder)

    def __contains__(self, experiment: Experiment) -> bool:
        return self.get(experiment) is not None

    def __len__(self) -> int:
        return len(self._keys())

    def add(self, experiment: Experiment, result: dict, made_from: dict[str, str] | None = None) -> None:
        """Keep a result, and forget that the experiment failed before.

        `made_from` is what `look` gave where the result was measured; by default it is looked at here.
        """
        made_from = self.look(experiment) if made_from is None else made_from
        content = {"experiment": experiment.as_json(), "result": result, "made_from": made_from}
        write_atomically(self._path(experiment), json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
        self._failure_path(experiment).unlink(missing_ok=True)
        for key in experiment.older_keys:  # a result that is not known any more; two would count twice
            (self.folder / f"{key}.json").unlink(missing_ok=True)

    def add_failure(self, experiment: Experiment, reason: str) -> None:
        """Keep why an experiment failed; it will be tried again by the next sweep."""
        content = {"experiment": experiment.as_json(), "failure": reason}
        write_atomically(self._failure_path(experiment), json.dumps(content, indent=1, ensure_ascii=False))

    def get(self, experiment: Experiment) -> dict | None:
        """The result (as `vlmlab run --json` prints it), or None if there is none yet."""
        content = self._content(experiment)
        return None if content is None or self._changed(experiment, content) else content["result"]

    def changes(self, experiment: Experiment) -> str | None:
        """Why there is a result that `get` does not give, in one line: "/data/pets has changed: images 10 -> 12"; or None."""
        content = self._content(experiment)
        changed = self._changed(experiment, content) if content else []
        if content is None or not changed:
            return None
        then, now = content["made_from"], self.look(experiment)
        settings = {os.path.expanduser(value): name for name, value in experiment.config if isinstance(value, str)}
        told = []
        for source in changed:
            if source in settings:
                told.append(f"the file {source} (setting {settings[source]}) has changed")
            elif source == experiment.backbone.partition("@")[2]:
                told.append(f"the checkpoint {source} has changed")
            else:
                told.append(f"{source} has changed: {difference(_parts(then, source), _parts(now, source))}")
        return "; ".join(told)

    def _content(self, experiment: Experiment) -> dict | None:
        """What the file of an experiment's result holds, under whichever of its keys; None if there is no file."""
        paths = (self.folder / f"{key}.json" for key in (experiment.key, *experiment.older_keys))
        path = next((path for path in paths if path.is_file()), None)
        return None if path is None else _read(path, "result")

    def _changed(self, experiment: Experiment, content: dict) -> list[str]:
        """The sources of a result that hold something else now."""
        now, changed = self.look(experiment), []
        for source, then in content.get("made_from", {}).items():
            found = now.get(source, then)
            if found.startswith(CONTENT) and not then.startswith(CONTENT):
                found = _listing(Path(source))  # kept by an older vlmlab, which looked at names and sizes
            if found != then and PART not in source:
                changed.append(source)
        return changed

    def failure(self, experiment: Experiment) -> str | None:
        """The one-line reason why an experiment has failed and has no result yet, or None."""
        path = self._failure_path(experiment)
        if experiment in self or not path.is_file():
            return None
        return _read(path, "failure")["failure"]

    def results(self, defaults: bool = False) -> list[dict]:
        """Every result, in the order of their keys; with `defaults` only of experiments that set nothing otherwise than the
        system's own settings, which are those of the protocol where it has some."""
        found = (_read(self.folder / f"{key}.json", "result") for key in self._keys())
        return [one["result"] for one in found if not defaults or _of_defaults(one["experiment"])]

    def checkpoint(self, experiment: Experiment) -> Path:
        """Where an experiment that is under way may keep its checkpoint."""
        return self.folder / "unfinished" / f"{experiment.key}.pt"

    def forget_checkpoint(self, experiment: Experiment) -> None:
        """Remove the checkpoint, and its folder if it was the last one."""
        path = self.checkpoint(experiment)
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or never made
            path.parent.rmdir()

    def look(self, experiment: Experiment) -> dict[str, str]:
        """What lies in the folders and files that an experiment names: source -> hash, and "folder > part" -> hash.

        Each is looked at once per store. Who is about to measure looks before: a change meanwhile was not measured.
        """
        found: dict[str, str] = {}
        for name in (experiment.dataset, *experiment.targets):
            standard = not is_path(name) and name in PLACES
            if not standard and not (is_path(name) and os.path.isdir(name)):
                continue
            root = Path(experiment.root) if experiment.root else cache_path("standard")
            source = f"{name} in {root}" if standard else name
            if source not in self._contents:
                files = files_of_standard(name, root) if standard else files_of_folder(Path(name))
                self._contents[source] = contents_of(files) if files else {}
            for part, content in self._contents[source].items():
                found[source if part == WHOLE else f"{source}{PART}{part}"] = (
                    CONTENT if part == WHOLE else ""
                ) + content
        settings = [value for _, value in experiment.config if isinstance(value, str)]
        for file in (experiment.backbone.partition("@")[2], *settings):
            source = os.path.expanduser(file)
            if file and os.path.isfile(source):
                if source not in self._contents:
                    self._contents[source] = {WHOLE: _digest(source)}
                found[source] = self._contents[source][WHOLE]
        return found

    def _keys(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.json") if "." not in path.stem)

    def _path(self, experiment: Experiment) -> Path:
        return self.folder / f"{experiment.key}.json"

    def _failure_path(self, experiment: Experiment) -> Path:
        return self.folder / f"{experiment.key}.failed.json"


def _of_defaults(content: Mapping) -> bool:
    """Whether an experiment, as a file of the store has it, is what one without any settings is now."""
    return dict(Experiment(**{**content, "config": ()}).config) == content.get("config", {})


def _parts(made_from: Mapping[str, str], source: str) -> dict[str, str]:
    """What `look` said of one source, by part."""
    parts = {
        name.removeprefix(source + PART): value for name, value in made_from.items() if name.startswith(source + PART)
    }
    return {WHOLE: made_from[source]} | parts


def _listing(folder: Path) -> str:
    """Hash over names and sizes of the images in a folder, and its tables, as it stands in results of an older vlmlab."""
    files = sorted(path for path in folder.rglob("*") if is_picture(path) or path.suffix.lower() in {".csv", ".txt"})
    files = [path for path in files if path.is_file()]  # no links to nothing
    digest = hashlib.sha256()
    for path in files:
        line = f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\n"
        digest.update(line.encode(errors="surrogateescape"))
        if not is_picture(path):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _digest(file: str) -> str:
    """Hash over a file's bytes, read once per process and version: a checkpoint may be large."""
    stat = os.stat(file)
    return _digest_of(file, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _digest_of(file: str, size: int, changed: int) -> str:
    return sha256(file)[:16]


def _read(path: Path, key: str) -> dict:
    """A file of the store, which must be an object that has `key`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VlmlabError(f"{path} is not a result that vlmlab wrote; remove it and run the sweep again") from error
    return content
