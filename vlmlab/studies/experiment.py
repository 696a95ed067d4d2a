"""One question to the workbench, written down so that its answer can be found again.

An `Experiment` names everything that decides the numbers, and nothing else. Its key is a hash of that content: two
machines that ask the same question write the same file name, and a sweep that begins again knows what is done. However the
question is spelled (lr as 0.01, "1e-2" or "0.010"; Objects_V2 or objects-v2), it is one experiment with one key.

Under some protocols a system starts otherwise than usual, because its paper does (`by_protocol` in its file). That is part of the
question: it stands among the experiment's settings, as if it had been asked for, unless the user set it otherwise.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence

from vlmlab.datasets.catalog import canonical, is_path
from vlmlab.errors import VlmlabError, unknown
from vlmlab.files import expanded
from vlmlab.registry import load_system, protocol_settings
from vlmlab.studies.splits import SPLITS

YOUNGER = ("targets", "noise", "test_pictures", "validation")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A system, on a dataset, with a backbone.

    Attributes:
        dataset: a name of `vlmlab datasets`, kept as that lists it, or the path of a folder of images, kept as an absolute one.
        shots: training images per class.
        seed: of the choice of those images and of training.
        split: "all" classes; "base": learn and report on the base half; "new": learn on base, report on the other half;
            "shift": learn on all classes, report also on the same classes in other styles (objects has four);
            "hierarchy": learn on all classes, report also how well answers at the levels of the class tree agree.
        backbone: as for `load_backbone`; the path in ARCH@FILE is kept as an absolute one.
        config: settings of the system that differ from its defaults, as (name, value) pairs in order of name; a value is
            kept as the type that the system's Config gives it. Those of the protocol are among them.
        views: random crops per training image, 0 for none (see `learning.fit`).
        root: folder of the standard datasets, where one is used.
        skip_broken: leave out images of a folder that cannot be read.
        targets: datasets to report on as well, with their own class names and nothing learned from them (CoCoOp's
            cross-dataset protocol, arXiv 2203.05557); paths are kept as absolute ones.
        noise: share of the training labels that are wrong, 0 to 1, drawn by the seed.
        test_pictures: measure on about so many test images, equally many of every class and the same for every seed,
            where there are more; 0 for all of them.
        validation: measure on the dataset's validation images in place of its test images, to choose settings by them.
    """

    system: str
    dataset: str
    backbone: str = "micro-vit"
    shots: int = 16
    seed: int = 0
    split: str = "all"
    config: tuple[tuple[str, bool | int | float | str | None], ...] = ()
    views: int = 0
    root: str | None = None
    skip_broken: bool = False
    targets: tuple[str, ...] = ()
    noise: float = 0.0
    test_pictures: int = 0
    validation: bool = False

    def __post_init__(self) -> None:
        """Bring names, paths and settings into one form; raises `VlmlabError` for a value that cannot be meant.

        A setting that the system does not take stays as it is: `adapt` refuses it.
        """
        if self.split not in SPLITS:
            raise unknown("split", self.split, SPLITS)
        for name in ("shots", "seed", "views", "test_pictures"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise VlmlabError(f"{name} must be a whole number of 0 or more, not {value!r}")
        if self.seed >= 2**31:
            raise VlmlabError(f"seed must be below {2**31}, not {self.seed}")
        settings = self.config.items() if isinstance(self.config, Mapping) else self.config
        asked = tuple(sorted((str(name), value) for name, value in settings))
        typed = _typed(self.system, asked)
        start = protocol_settings(self.system, self.protocol, dict(typed))
        of_protocol = {name: value for name, value in start.items() if name not in dict(asked)}
        # Not a field: an older vlmlab called the experiment by what was asked, letter by letter.
        asked = tuple(sorted((*asked, *of_protocol.items())))
        object.__setattr__(self, "_asked", {"config": asked, "dataset": self.dataset, "backbone": self.backbone})
        object.__setattr__(self, "config", tuple(sorted((*typed, *of_protocol.items()))))
        if not 0 <= self.noise <= 1:
            raise VlmlabError(f"noise is a share of the labels, 0 to 1, not {self.noise!r}")
        object.__setattr__(self, "noise", float(self.noise))
        object.__setattr__(self, "targets", tuple(absolute_dataset(name) for name in self.targets))
        object.__setattr__(self, "dataset", absolute_dataset(self.dataset))
        object.__setattr__(self, "backbone", absolute_backbone(self.backbone))
        if self.root is not None:
            object.__setattr__(self, "root", os.path.realpath(expanded(self.root)))

    @property
    def protocol(self) -> str:
        """The one of `datasets.PROTOCOLS` whose settings the system has: that of the split, or cross-dataset with targets."""
        own = SPLITS[self.split].protocol
        return "cross-dataset" if self.targets and own == "few-shot" else own

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that stand for the content."""
        return _hash(self.as_json())

    @property
    def older_keys(self) -> list[str]:
        """Other keys under which an older vlmlab may have kept the result: it took names and values as they were spelled.

        Tried are the spelling of this question, and settings as the command line handed them over, which was text.
        """
        content, asked = self.as_json(), vars(self)["_asked"]
        texts = {name: value if isinstance(value, str) else _as_text(value) for name, value in self.config}
        whole = {n: int(v) if isinstance(v, float) and v.is_integer() else v for n, v in self.config}
        configs = [dict(asked["config"]), texts, whole, {n: _as_text(v) for n, v in whole.items()}, content["config"]]
        keys = [
            _hash(content | {"config": config, "dataset": dataset, "backbone": backbone})
            for dataset in dict.fromkeys((self.dataset, _resolved(asked["dataset"])))
            for backbone in dict.fromkeys((self.backbone, asked["backbone"]))
            for config in configs
        ]
        return [key for key in dict.fromkeys(keys) if key != self.key]

    def as_json(self) -> dict:
        """The content as JSON knows it; `Experiment(**content)` gives it back.

        Fields of a younger vlmlab are left out at their defaults, so that older results keep their names.
        """
        content = dataclasses.asdict(self) | {"config": {name: value for name, value in self.config}}
        content["targets"] = list(self.targets)
        return {name: value for name, value in content.items() if value or name not in YOUNGER}

    def __str__(self) -> str:
        settings = "".join(f" {name}={value}" for name, value in self.config)
        settings += f", targets {', '.join(self.targets)}" if self.targets else ""
        settings += f", {self.noise:.0%} of the labels wrong" if self.noise else ""
        settings += f", {self.test_pictures} test images" if self.test_pictures else ""
        settings += ", on validation images" if self.validation else ""
        return (
            f"{self.system} on {self.dataset} with {self.backbone}, {self.shots} shot{'s' * (self.shots != 1)}, seed {self.seed}, "
            f"split {self.split}{settings}"
        )


def absolute_dataset(dataset: str) -> str:
    """The name as it is listed, or the absolute path of a folder."""
    return canonical(_resolved(dataset))


def absolute_backbone(backbone: str) -> str:
    """The name as it is, or with the absolute path of the checkpoint in ARCH@FILE."""
    arch, at, file = backbone.partition("@")
    return f"{arch}{at}{os.path.realpath(expanded(file))}" if file else backbone


def _resolved(dataset: str) -> str:
    return os.path.realpath(expanded(dataset)) if is_path(dataset) else dataset


def _typed(system: str, settings: tuple[tuple[str, object], ...]) -> tuple[tuple[str, object], ...]:
    """The settings with values of the types that the system's Config says; as they are where that cannot be."""
    if not settings:
        return ()
    try:
        read = load_system(system).read_setting
    except VlmlabError:  # `adapt` says that there is no such system
        return settings
    typed = []
    for name, value in settings:
        try:
            typed.append((name, read(name, value)))
        except VlmlabError:  # `adapt` says what is wrong with it
            typed.append((name, value))
    return tuple(typed)


def _hash(content: dict) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _as_text(value: object) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def read_settings(pairs: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """["coop.lr=0.1"] -> (("coop.lr", "0.1"),); the system's Config knows the types. Raises `VlmlabError` for another form."""
    split = [pair.partition("=") for pair in pairs]
    for pair, (name, equals, _) in zip(pairs, split, strict=True):
        if not equals or not name.strip():
            raise VlmlabError(f"a setting is written KEY=VALUE, such as lr=0.01, not '{pair}'")
    return tuple((name.strip(), value.strip()) for name, _, value in split)


def settings_for(system: str, settings: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Those that mean `system`: "coop.lr" is a setting of coop alone, "lr" one of every system."""
    chosen = {name: value for name, value in settings if "." not in name}
    return chosen | {name.partition(".")[2]: value for name, value in settings if name.startswith(f"{system}.")}


def grid(
    systems: Iterable[str],
    datasets: Iterable[str],
    backbones: Iterable[str] = ("micro-vit",),
    shots: Iterable[int] = (16,),
    seeds: Iterable[int] = (0,),
    **same,
) -> list[Experiment]:
    """Every combination, those that share a backbone and a dataset side by side; `same` are other fields."""
    return [
        Experiment(system=system, dataset=dataset, backbone=backbone, shots=k, seed=seed, **same)
        for backbone, dataset, system, k, seed in itertools.product(
            list(backbones), list(datasets), list(systems), list(shots), list(seeds)
        )
    ]
