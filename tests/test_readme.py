"""What the README says is what the code does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import typer

from vlmlab import registry
from vlmlab.cli import app
from vlmlab.registry import as_markdown
from vlmlab.studies.table import as_markdown as measured_as_markdown
from vlmlab.studies.table import read_table
from vlmlab.testing import contract as contracts
from vlmlab.testing import toys

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SYSTEMS = (ROOT / "notebooks" / "SYSTEMS.md").read_text(encoding="utf-8")


def test_the_taxonomy_of_the_book_is_the_one_that_the_code_prints():
    shown = SYSTEMS.split("python -m vlmlab.registry -->\n", 1)[1].split("\n<!-- end of systems", 1)[0]
    assert shown == as_markdown()


def test_the_measured_table_of_the_book_is_what_the_committed_results_say():
    shown = SYSTEMS.split("python -m vlmlab.studies.table -->\n", 1)[1].split("\n<!-- end of measured", 1)[0]
    assert shown == measured_as_markdown(read_table())


def test_the_readme_counts_right_and_its_links_and_images_are_there():
    count = len([info for info in registry.registry().values()])
    chapters = len(list((ROOT / "notebooks").glob("[0-9]*.ipynb")))
    assert f"{count} systems" in README and f"{chapters} chapters" in README
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("http") or (ROOT / target).is_file(), target
    assert (ROOT / "data" / "moving.gif").stat().st_size < 2 * 2**20


@pytest.fixture
def own():
    """The README's new system, taken out of the table again afterwards."""
    code = README.split("## A new system in one file", 1)[1].split("```python\n", 1)[1].split("```", 1)[0]
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    yield "nearest_mean"
    del registry._registered["nearest_mean"]


def test_the_new_system_of_the_readme_is_one(own, tmp_path):
    contracts.check_one_finite_score_per_class(own)
    contracts.check_gradients_reach_what_it_learns_and_nothing_else(own)
    contracts.check_from_base_to_new_and_back(own)
    contracts.check_the_shots_matter_where_the_taxonomy_says_so(own)
    method, images = toys.once(own)[0], toys.task_for(own).support
    with torch.no_grad():
        right = method.logits(toys.batch_of(method, images)).argmax(1) == images.labels
    assert right.float().mean() > 0.5, "the mean of two images is near to both"


def commands() -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```", README, re.M | re.S)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(vlmlab [a-z][^`]+)`", README + SYSTEMS)
    return sorted({" ".join(line.split()) for line in lines if line.startswith("vlmlab ")})


@pytest.mark.parametrize("command", commands())
def test_the_commands_of_the_readme_are_understood(command):
    group = typer.main.get_command(app)
    name, *arguments = shlex.split(command.replace("\n", " "))[1:]
    assert name in group.commands
    group.commands[name].make_context(name, arguments)


def test_there_are_commands_in_the_readme():
    assert len(commands()) > 8
