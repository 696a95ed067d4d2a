"""What chapters are made with: facts, source, published figures."""

import pytest

from vlmlab.book import beside, facts, near, published, source
from vlmlab.errors import VlmlabError
from vlmlab.learning.evaluate import harmonic_mean


def test_facts_print_the_same_within_the_rounding():
    one = facts({"accuracy, %": near(51.2, 5), "it gains": True, "classes": 10, "first word": "cat"})
    assert repr(one) == "accuracy, %: about 50 (to 5)\nit gains: yes\nclasses: 10\nfirst word: cat"
    assert repr(one) == repr(facts({**one.lines, "accuracy, %": near(48.9, 5)}))
    data, metadata = one._repr_mimebundle_()
    assert data == {"text/plain": repr(one)}
    assert metadata == {"vlmlab": {"margins": {"accuracy, %": 0.26}}}


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [(0.123, 0.05, "0.10"), (-3.0, 2, "-2"), (7.49, 5, "5"), (1234, 100, "1200"), (0.26, 0.5, "0.5")],
)
def test_near_rounds_to_multiples(value, step, text):
    assert str(near(value, step)) == f"about {text} (to {step:g})"


def test_a_bare_float_is_no_fact():
    with pytest.raises(TypeError, match=r"near\(value, step\)"):
        facts({"accuracy": 51.2})


def test_source_shows_the_code_as_it_is_with_its_place():
    shown = source("tip_adapter", "vote", "logits")
    assert [place.split(",")[0] for place, _ in shown.pieces] == ["vlmlab/methods/adapter/tip_adapter.py"] * 2
    assert shown.pieces[0][1].startswith("def vote(self, f: Tensor, beta: float)")
    assert "```python\ndef vote" in shown._repr_mimebundle_()["text/markdown"]
    assert "class CoOp(Method):" in repr(source("coop"))
    assert "def epochs(self)" in repr(source("coop", "epochs")), "a property has a source, too"
    assert "return 2 * base * new" in repr(source(harmonic_mean))
    for line in source("coop", "loss").pieces[0][1].splitlines():
        assert "cross_entropy" in line or "def loss" in line or '"""' in line


@pytest.mark.parametrize(
    ("arguments", "message"), [(("cop",), "did you mean coop"), (("coop", "logit"), "did you mean logits")]
)
def test_source_of_what_is_not_there(arguments, message):
    with pytest.raises(VlmlabError, match=message):
        source(*arguments)


def test_published_figures_come_with_their_source():
    row = published("base_to_new", system="CoOp", dataset="Average-11", split="new")
    assert row["value"].tolist() == [63.22] and row["shots"].tolist() == ["16"]
    assert row["source"][0] and row["source_table"][0]


@pytest.mark.parametrize(
    ("table", "wanted", "message"),
    [
        ("base_to_nev", {}, "did you mean base_to_new"),
        ("base_to_new", {"sistem": "CoOp"}, "did you mean system"),
        ("base_to_new", {"system": "Koop"}, "no published figure"),
    ],
)
def test_published_figures_that_do_not_exist(table, wanted, message):
    with pytest.raises(VlmlabError, match=message):
        published(table, **wanted)


def test_no_published_figure_stands_bare():
    one = published(
        "transfer_fewshot", system="Tip-Adapter", dataset="ImageNet", shots=16, source="gaopengcuhk/Tip-Adapter"
    )
    same = {"backbone": "RN50", "dataset": "ImageNet", "shots": 16}
    table = beside(
        [
            ("here", one, [34.0, 36.0], {"backbone": "micro-vit", "dataset": "digits", "shots": 16}),
            ("alike", one, [62.3], same),
            ("unlike", one, [60.0], same),
            ("never", one, [], {}),
        ]
    )
    assert [line.status for line in table.lines] == ["scaled down", "matched", "not matched", "not run"]
    assert table.lines[0].differs == ["backbone: RN50, here micro-vit", "dataset: ImageNet, here digits"]
    shown = table._repr_mimebundle_()["text/markdown"].splitlines()
    assert shown[2].startswith("| here | 62.01 | 35.0 ± 1.4 | scaled down | backbone: RN50, here micro-vit; ")
    assert "gaopengcuhk/Tip-Adapter, exp.log" in shown[2]


def test_an_ambiguous_published_figure_is_refused():
    with pytest.raises(VlmlabError, match="name more columns"):
        beside([("several", published("base_to_new", system="CoOp"), [1.0], {})])


def test_every_name_of_the_book_is_there():
    import vlmlab.book

    for name in vlmlab.book.__all__:
        assert callable(getattr(vlmlab.book, name)), name
