"""The survey's taxonomy, written once: above each system's class, in its `@register(...)`.

`registry()` lists every system without importing one (a listing must not wait for torch): it reads the literal
arguments of the decorators from the source files. `load_system(key)` then imports the one file that is needed.
Notebooks, notebooks/SYSTEMS.md and the command line all print this table; nobody types it twice. A class that is registered in a
notebook or in a user's own module joins the table the moment its decorator runs.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmlab.errors import VlmlabError, unknown

SETUPS = (
    "zero-shot",
    "few-shot",
    "supervised",
    "semi-supervised",
    "unsupervised",
    "training-free",
    "test-time",
    "transductive",
    "text-only",
    "open-vocabulary",
    "weakly supervised",
)
WITHOUT_SHOTS = (
    "zero-shot",
    "test-time",
    "unsupervised",
    "transductive",
    "text-only",
    "open-vocabulary",
    "weakly supervised",
)
"""Setups that learn from no labelled image: what they do does not depend on the shots, unless a setting changes that, as
`labelled` of TransCLIP does."""
STATUSES = ("complete", "extra", "planned")


@dataclasses.dataclass(frozen=True)
class SystemInfo:
    """One row of the taxonomy.

    `section` is the survey's, `family` the folder under methods/, `setup` one of SETUPS, `tasks` what it solves,
    `learns` what has a gradient (in words), `needs` what its backbone must offer, `status` one of STATUSES
    ("extra" marks a system that the survey does not name).
    """

    key: str
    title: str
    paper: str
    year: int
    section: str
    family: str
    setup: str
    learns: str
    tasks: tuple[str, ...] = ("classification",)
    needs: tuple[str, ...] = ()
    status: str = "complete"
    module: str = dataclasses.field(default="", compare=False)

    @property
    def name(self) -> str:
        """The title's short form, before a colon."""
        return self.title.split(":")[0]

    @property
    def takes_shots(self) -> bool:
        """Whether its figures depend on the shots: without them it needs one run per dataset and seed.

        What needs no training and does not classify, as MaskCLIP, has no labelled images either.
        """
        trains = self.setup != "training-free" or "classification" in self.tasks
        return trains and self.setup not in WITHOUT_SHOTS

    def row(self) -> dict:
        """The row as `vlmlab systems --json` prints it."""
        fields = dataclasses.asdict(self) | {
            "name": self.name,
            "tasks": list(self.tasks),
            "needs": list(self.needs),
        }
        del fields["module"]
        return fields


_registered: dict[str, type[Any]] = {}


def register(key: str, **facts):
    """Class decorator that gives a system its row in the taxonomy; `facts` are the fields of `SystemInfo`, as literals.

    The literals are read from the source by `registry()`, so they must not be computed.
    Raises `ValueError` for a setup or status that the survey does not know.
    """
    info = _checked(SystemInfo(key=key, **facts))

    def decorate(cls: type[Any]) -> type[Any]:
        cls.info = dataclasses.replace(info, module=cls.__module__)
        _registered[key] = cls
        return cls

    return decorate


def _checked(info: SystemInfo) -> SystemInfo:
    if info.setup not in SETUPS or info.status not in STATUSES:
        raise ValueError(f"{info.key}: setup must be one of {SETUPS} and status one of {STATUSES}")
    return info


@functools.lru_cache(maxsize=1)
def _written() -> dict[str, SystemInfo]:
    """The rows that stand in the source files of vlmlab/methods, in the survey's order."""
    root = Path(__file__).parent
    rows = []
    for path in sorted(root.glob("methods/**/*.py")):
        module = ".".join(["vlmlab", *path.relative_to(root).with_suffix("").parts])
        source = path.read_text(encoding="utf-8")
        for node in ast.parse(source).body if "@register(" in source else ():
            for call in getattr(node, "decorator_list", []):
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "register":
                    facts = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
                    rows.append(_checked(SystemInfo(key=ast.literal_eval(call.args[0]), module=module, **facts)))
    rows.sort(key=lambda row: ([int(n) for n in row.section.split(".")], row.year, row.key))
    return {row.key: row for row in rows}


def registry() -> dict[str, SystemInfo]:
    """Every system by key: those of the package in the survey's order, then those registered by the user."""
    return _written() | {key: cls.info for key, cls in own_systems().items()}


def own_systems() -> dict[str, type[Any]]:
    """The classes that the user registered: those that are not of the package."""
    return {key: cls for key, cls in _registered.items() if key not in _written()}


def system_label(key: str) -> str:
    """The name under which a system appears in legends; the key itself if the taxonomy does not know it."""
    info = registry().get(key)
    return info.name if info else key


def settings_of(key: str) -> list[str]:
    """Names of the settings of a system of the package, read from the source files as `registry()` is: nothing is imported.

    Raises `KeyError` for a system that is not of the package.
    """
    info = _written()[key]
    for node in _parsed(info.module).body:
        for call in getattr(node, "decorator_list", []):
            if isinstance(node, ast.ClassDef) and isinstance(call, ast.Call) and ast.literal_eval(call.args[0]) == key:
                return list(dict.fromkeys(_settings_in(info.module, node)))
    raise KeyError(key)


def protocol_settings(key: str, protocol: str, asked: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a system sets otherwise than usual under a protocol (a key of `datasets.PROTOCOLS`): its `by_protocol`.

    `asked` are the settings of the user, of the types of the Config: those that say something else than the `start_implies` of
    the system are another start, and nothing of the protocol's is set. Read from the source files as `settings_of` does, unless
    the user registered the system; empty for a system that is unknown.
    """
    own = own_systems()
    if key in own:
        found = {name: getattr(own[key], name, {}) for name in ("by_protocol", "start_implies")}
    else:
        found = _declared(key)
    implied = found.get("start_implies", {})
    if any(asked[name] != implied[name] for name in implied.keys() & (asked or {}).keys()):  # type: ignore[index]
        return {}
    return dict(found.get("by_protocol", {}).get(protocol, {}))


@functools.lru_cache(maxsize=256)
def _declared(key: str) -> dict[str, dict[str, Any]]:
    """The literals `by_protocol` and `start_implies` of a system of the package, where its class declares them itself."""
    info, found = _written().get(key), {}
    for node in _parsed(info.module).body if info else ():
        for call in getattr(node, "decorator_list", []):
            if isinstance(node, ast.ClassDef) and isinstance(call, ast.Call) and ast.literal_eval(call.args[0]) == key:
                for line in node.body:
                    if isinstance(line, ast.AnnAssign) and line.value is not None:
                        name = ast.unparse(line.target)
                        if name in ("by_protocol", "start_implies"):
                            found[name] = ast.literal_eval(line.value)
    return found


def _settings_in(module: str, system: ast.ClassDef) -> list[str]:
    """The fields of a system's Config: its own, or that of the first base that has one."""
    own = next((n for n in system.body if isinstance(n, ast.ClassDef) and n.name == "Config"), None)
    if own is not None:
        return _fields_in(module, own)
    found = (_settings_in(*_class_named(module, base.id)) for base in system.bases if isinstance(base, ast.Name))
    return next(filter(None, found), [])


def _fields_in(module: str, config: ast.ClassDef) -> list[str]:
    """The fields of a dataclass after those of its bases, which are written Recipe or ViLD.Config."""
    names = []
    for base in config.bases:
        if isinstance(base, ast.Attribute) and isinstance(base.value, ast.Name):
            names += _settings_in(*_class_named(module, base.value.id))
        elif isinstance(base, ast.Name):
            names += _fields_in(*_class_named(module, base.id))
    return names + [
        n.target.id
        for n in config.body
        if isinstance(n, ast.AnnAssign)
        and isinstance(n.target, ast.Name)
        and "ClassVar" not in ast.unparse(n.annotation)
    ]


def _class_named(module: str, name: str) -> tuple[str, ast.ClassDef]:
    """The module that a class of this name in `module` is written in, and the class; an empty one if it is not of vlmlab."""
    for node in _parsed(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vlmlab."):
            for one in node.names:
                if (one.asname or one.name) == name:
                    return _class_named(str(node.module), one.name)
    return module, ast.ClassDef(name, [], [], [], [])


@functools.lru_cache(maxsize=64)
def _parsed(module: str) -> ast.Module:
    place = Path(__file__).parent.joinpath(*module.split(".")[1:])
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def load_system(key: str) -> type[Any]:
    """The class of a system, imported now if it was not before.

    Raises `VlmlabError` for an unknown key, with the closest ones.
    """
    if key not in _registered:
        table = registry()
        if key not in table:
            raise unknown_system(key)
        importlib.import_module(table[key].module)
    if key not in _registered:
        raise VlmlabError(f"system '{key}' is listed but its file does not register it; reinstall vlmlab")
    return _registered[key]


def unknown_system(key: str) -> VlmlabError:
    """The error for a key that no system has: the system of that short name if there is one, else the closest keys."""
    for row in registry().values():
        if row.name.split(" (")[0].lower() == key.lower():
            return VlmlabError(f"unknown system '{key}'; did you mean {row.key}, which is {row.name}?")
    return unknown("system", key, registry())


def as_markdown() -> str:
    """The taxonomy as the table that notebooks/SYSTEMS.md shows."""
    lines = ["| key | system | year | survey | setup | learns | paper |", "|---|---|---|---|---|---|---|"]
    for row in registry().values():
        name = row.title + (" (extra)" if row.status == "extra" else "")
        lines.append(
            f"| `{row.key}` | {name} | {row.year} | {row.section} | {row.setup} | {row.learns} | {row.paper} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(as_markdown())
