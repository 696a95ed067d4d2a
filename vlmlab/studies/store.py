"""Where results live: a folder with one JSON file per experiment.

A file's name is its experiment's key. It is written to a temporary name and renamed, so that it holds all of a result
or does not exist; no index has to agree with it, so any number of processes and machines may share the folder. A
failure has a file of its own (`KEY.failed.json`), which can never take the place of a result.

A result on a folder of pictures is one on what lay there: once files were added, removed or changed in size, it is not
known any more. A folder that is gone leaves its results known.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from vlmlab.errors import VlmlabError
from vlmlab.files import must_be_writable, remove_leftovers, write_atomically
from vlmlab.studies.experiment import Experiment, is_path

ROOM = 65536  # bytes that must be free for work to begin; a result has some 2,000


class ResultStore:
    """Results by experiment, in `folder`, which is made when the first one is kept."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._contents: dict[str, str] = {}

    def prepare(self) -> None:
        """Before any work: raise `VlmlabError` if the folder cannot be written, and tidy up after killed writers."""
        must_be_writable(self.folder, ROOM)
        for folder in (self.folder, self.folder / "unfinished"):
            remove_leftovers(folder)

    def __contains__(self, experiment: Experiment) -> bool:
        return self.get(experiment) is not None

    def __len__(self) -> int:
        return len(self._keys())

    def add(self, experiment: Experiment, result: dict) -> None:
        """Keep a result, and forget that the experiment failed before."""
        content = {"experiment": experiment.as_json(), "result": result, "folders": self._folders(experiment)}
        write_atomically(self._path(experiment), json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
        self._failure_path(experiment).unlink(missing_ok=True)

    def add_failure(self, experiment: Experiment, reason: str) -> None:
        """Keep why an experiment failed; it will be tried again by the next sweep."""
        content = {"experiment": experiment.as_json(), "failure": reason}
        write_atomically(self._failure_path(experiment), json.dumps(content, indent=1, ensure_ascii=False))

    def get(self, experiment: Experiment) -> dict | None:
        """The result (as `vlmlab run --json` prints it), or None if there is none yet."""
        path = self._path(experiment)
        if not path.is_file():
            return None
        content, now = _read(path, "result"), self._folders(experiment)
        changed = any(now.get(folder, then) != then for folder, then in content.get("folders", {}).items())
        return None if changed else content["result"]

    def failure(self, experiment: Experiment) -> str | None:
        """The one-line reason why an experiment has failed and has no result yet, or None."""
        path = self._failure_path(experiment)
        if experiment in self or not path.is_file():
            return None
        return _read(path, "failure")["failure"]

    def results(self) -> list[dict]:
        """Every result, in the order of their keys."""
        return [_read(self.folder / f"{key}.json", "result")["result"] for key in self._keys()]

    def checkpoint(self, experiment: Experiment) -> Path:
        """Where an experiment that is under way may keep its checkpoint."""
        return self.folder / "unfinished" / f"{experiment.key}.pt"

    def forget_checkpoint(self, experiment: Experiment) -> None:
        """Remove the checkpoint, and its folder if it was the last one."""
        path = self.checkpoint(experiment)
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or never made
            path.parent.rmdir()

    def _folders(self, experiment: Experiment) -> dict[str, str]:
        """What lies in the folders of pictures that an experiment names, looked at once per store."""
        folders = [name for name in (experiment.dataset, *experiment.targets) if is_path(name) and Path(name).is_dir()]
        for folder in folders:
            if folder not in self._contents:
                self._contents[folder] = _contents(Path(folder))
        return {folder: self._contents[folder] for folder in folders}

    def _keys(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.json") if "." not in path.stem)

    def _path(self, experiment: Experiment) -> Path:
        return self.folder / f"{experiment.key}.json"

    def _failure_path(self, experiment: Experiment) -> Path:
        return self.folder / f"{experiment.key}.failed.json"


def _contents(folder: Path) -> str:
    """Hash over names and sizes of the pictures in a folder, and its tables; times would change with every copy."""
    from vlmlab.datasets.folder import is_picture  # not above: it imports torch, which only the workers need

    files = sorted(path for path in folder.rglob("*") if is_picture(path) or path.suffix.lower() in {".csv", ".txt"})
    digest = hashlib.sha256()
    for path in files:
        line = f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\n"
        digest.update(line.encode(errors="surrogateescape"))
        if not is_picture(path):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _read(path: Path, key: str) -> dict:
    """A file of the store, which must be an object that has `key`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VlmlabError(f"{path} is not a result that vlmlab wrote; remove it and run the sweep again") from error
    return content
