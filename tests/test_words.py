"""Prose says the field's words: docstrings, comments, messages, chapters and the documents beside them (a glossary as a test)."""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

INSTEAD = {
    r"pictures?": "image",
    r"anew": "again",
    r"learned numbers|numbers learned|numbers? that (?:it|they|the system) learns?": "parameters",
    r"pass(?:es)? (?:over|through) the (?:images|data|set|training)": "epoch",
    r"(?:\d+|as many|more|fewer|rate and|the|for|three|four) passes|passes over|batch of a pass": "epochs",
    r"kept in (?:the user's cache|memory)|kept features|features (?:of \w+ )?are kept|encoded once and kept": "cached",
    r"(?:unknown|another) figure|(?:any|same|name of a) figure (?:of|on|in)|the figure (?:of|on) (?:each|every)": "metric",
}
"""What prose does not say -> what it says."""

ALLOWED = (
    r"`[^`]*`",  # code
    r"\b(?:an?|the) (?:\w+ )?picture of",  # prompt templates of the field
    r"^ +pictures?(?:, \w+)*: ",  # an argument of that name, in a docstring
    r"\w*_pictures?\b|\bpictures?[_.(\[]\w*|--test-pictures?",  # names of the package
)


SPEAKERS = {"option", "Option", "Argument", "say", "warn", "_warn"}
"""What is called with a text that a user reads: settings, the command line, messages and warnings."""


def _speaks(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    return (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")) in SPEAKERS


def sentences(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of the comments and docstrings of a file, of the messages of its errors, and of what `SPEAKERS` say."""
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value
        elif (isinstance(node, ast.Raise) and node.exc is not None) or _speaks(node):
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.lineno, part.value


def texts(path: Path) -> Iterator[tuple[int, str]]:
    if path.suffix == ".py":
        yield from sentences(path)
    elif path.suffix == ".ipynb":
        for i, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
            if cell["cell_type"] == "markdown":
                yield i, re.sub(r"\(data:[^)]*\)|```.*?```", "", "".join(cell["source"]), flags=re.S)
    else:
        yield 0, re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)


def unwanted(text: str) -> list[str]:
    """The words in a text that prose does not say, each with what it says."""
    for allowed in ALLOWED:
        text = re.sub(allowed, "", text, flags=re.I | re.M)
    return [
        f"'{found}': say {word}"
        for pattern, word in INSTEAD.items()
        for found in re.findall(rf"(?<![\w-])(?:{pattern})\b", text, flags=re.I)
    ]


def files() -> list[Path]:
    code = sorted((ROOT / "vlmlab").rglob("*.py"))
    return [
        *code,
        *sorted((ROOT / "notebooks").rglob("*.ipynb")),
        *sorted(ROOT.glob("*.md")),
        *sorted((ROOT / "notebooks").glob("*.md")),
    ]


@pytest.mark.parametrize("part", sorted({path.relative_to(ROOT).parts[:2] for path in files()}), ids="/".join)
def test_prose_says_the_fields_words(part):
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {word}"
        for path in files()
        if path.relative_to(ROOT).parts[:2] == part
        for line, text in texts(path)
        for word in unwanted(text)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The picture is read anew.", 2),
        ("2,048 numbers learned", 1),
        ("a picture of a {}", 0),
        ("`pictures` is an ImageSet of images", 0),
        ("--test-pictures", 0),
        ("20 passes over the training images", 2),
        ("one forward pass through the tower, and what is kept of it", 0),
        ("the features are kept in memory", 1),
        ("an unknown figure", 1),
        ("a figure with one line per system", 0),
    ],
)
def test_the_glossary_finds_what_it_is_for(text, found):
    assert len(unwanted(text)) == found
