import dataclasses
import subprocess
import sys

import pytest

from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Method
from vlmlab.registry import SETUPS, load_system, register, registry, settings_of

FACTS = {
    "title": "Mine: A System of My Own",
    "paper": "arXiv:0000.00000",
    "year": 2024,
    "section": "6.3.2",
    "family": "adapter",
    "setup": "few-shot",
    "learns": "a vector",
}


@pytest.fixture
def own():
    """A user's system, taken out of the table again afterwards."""
    from vlmlab import registry as module

    @register("mine", **FACTS)
    class Mine(Method):
        pass

    yield Mine
    del module._registered["mine"]


@pytest.mark.parametrize("key", sorted(registry()))
def test_what_is_written_is_what_is_imported(key):
    info, system = registry()[key], load_system(key)
    assert system.info == info and issubclass(system, Method)
    assert info.setup in SETUPS and info.family in info.module.split(".")
    assert system.eats in ("features", "images", "views", "regions")


def test_the_table_is_in_the_survey_s_order():
    rows = list(registry().values())
    sections = [tuple(int(number) for number in row.section.split(".")) for row in rows]
    assert sections == sorted(sections) and len(rows) >= 7


def test_listing_imports_no_system():
    code = (
        "import sys; from vlmlab.registry import registry; assert registry();"
        "sys.exit(any(name.startswith('vlmlab.methods') or name == 'torch' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_user_s_own_system_joins_the_table(own):
    assert load_system("mine") is own
    row = registry()["mine"].row()
    assert row["name"] == "Mine" and row["status"] == "complete" and row["tasks"] == ["classification"]
    assert "module" not in row
    assert list(registry())[-1] == "mine"


def test_an_unknown_key_gives_the_closest():
    with pytest.raises(VlmlabError, match=r"unknown system 'tip-adaptor'; did you mean tip_adapter"):
        load_system("tip-adaptor")


@pytest.mark.parametrize("wrong", [{"setup": "one-shot"}, {"status": "done"}])
def test_a_setup_or_status_outside_of_the_survey_is_a_defect(wrong):
    with pytest.raises(ValueError, match="must be one of"):
        register("mine", **(FACTS | wrong))


def test_a_short_name_leads_to_the_key_and_says_which_system_it_is():
    with pytest.raises(
        VlmlabError, match=r"did you mean variational_prompt_tuning, which is VPT \(variational, not vis"
    ):
        load_system("vpt")
    with pytest.raises(VlmlabError, match=r"unknown system 'coup'; did you mean .*coop"):
        load_system("coup")


def test_settings_are_read_from_the_sources_as_the_classes_have_them():
    for key in registry():
        assert settings_of(key) == [field.name for field in dataclasses.fields(load_system(key).Config)], key
