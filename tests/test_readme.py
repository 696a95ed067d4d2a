from pathlib import Path

from vlmlab.registry import as_markdown

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_taxonomy_in_the_readme_is_the_one_that_the_code_prints():
    text = README.read_text(encoding="utf-8")
    shown = text.split("as_markdown() -->\n", 1)[1].split("\n<!-- end of systems", 1)[0]
    assert shown == as_markdown()
