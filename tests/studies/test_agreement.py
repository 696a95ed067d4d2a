"""Published orders beside measured ones: which names are meant, that protocols do not mix, and the statistics by hand."""

import numpy as np
import pytest
from scipy import stats

from vlmlab.cli.entry import main
from vlmlab.errors import VlmlabError
from vlmlab.studies.agreement import agreement, chance, interval, key_of, side_by_side, spearman
from vlmlab.studies.table import read_table


def test_names():
    assert key_of("CLIP") == "zero_shot" and key_of("Tip-Adapter-F") == "tip_adapter_f" and key_of("MaPLe") == "maple"
    assert key_of("CoOp (KgCoOp authors)") is None  # a re-run is no second figure of the system
    assert key_of("VPT") is None  # of the two systems of this name, a table does not say which


def test_protocols_do_not_mix():
    with pytest.raises(VlmlabError, match="follow different protocols; name one"):
        side_by_side(read_table())
    with pytest.raises(VlmlabError, match="OV-COCO"):
        side_by_side(read_table(), "OV-COCO")
    found = side_by_side(read_table(), "base-to-new")
    assert set(found["protocol"]) == {"base-to-new"} and set(found["figure"]) == {"base", "new", "harmonic mean"}


def test_a_mean_is_over_the_datasets_that_all_compared_systems_have():
    measured = read_table()
    lines = side_by_side(measured, "base-to-new").set_index(["figure", "system"])
    keys = [key for figure, key in lines.index if figure == "new"]
    rows = measured[(measured.split == "base") & measured.system.isin(keys) & measured.new.notna()]
    met = rows.groupby("dataset").system.nunique()
    shared = list(met.index[met == len(keys)])
    by_hand = rows[(rows.system == "coop") & rows.dataset.isin(shared)].new.mean()
    assert lines.loc[("new", "coop"), "measured"] == pytest.approx(by_hand, abs=0.006)
    assert lines.loc[("new", "coop"), "published"] == 63.22 and lines.loc[("new", "coop"), "datasets"] == len(shared)


def test_rank_correlation_is_that_of_scipy():
    generator = np.random.default_rng(3)
    a, b = generator.normal(size=9).round(0), generator.normal(size=9)  # the first has equal values
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    low, high = interval(a, b)
    assert -1 <= low < spearman(a, b) < high <= 1


def test_chance_counts_every_order_of_few_systems():
    order = np.arange(4.0)
    assert chance(order, order) == pytest.approx(2 / 24)  # itself, and its reverse
    assert chance(np.arange(9.0), np.arange(9.0)) < 0.001


@pytest.mark.slow
def test_agreement_has_a_line_per_protocol_and_an_interval_only_where_one_can_be_had():
    found = agreement(read_table()).set_index(["protocol", "figure", "published on"])
    assert {"few-shot all classes", "base-to-new", "domain shift"} == set(found.index.get_level_values(0))
    new = side_by_side(read_table(), "base-to-new").query("figure == 'new'")
    line = found.loc[("base-to-new", "new", "ViT-B/16")]
    assert line.systems == len(new) >= 8
    assert line.spearman == pytest.approx(stats.spearmanr(new.published, new.measured).statistic, abs=0.006)
    assert found.low.isna().eq(found.systems < 6).all()
    assert (found.low.dropna() <= found.spearman[found.low.notna()]).all()


@pytest.mark.slow
def test_from_the_command_line(capsys, tmp_path):
    assert main(["table", "--against", "published"]) == 2
    assert "follow different protocols" in capsys.readouterr().err
    assert main(["table", "--against", "published", "--protocol", "domain shift"]) == 0
    assert "promptsrc" in capsys.readouterr().out
    assert main(["table", "--agreement", "--out", str(tmp_path / "orders.csv")]) == 0
    assert (tmp_path / "orders.csv").read_text().startswith("protocol,figure,")
    assert main(["table", "--against", "measured"]) == 2 and main(["table"]) == 2
    assert main(["table", "--protocol", "base-to-new"]) == 2
    assert main(["table", "--against", "published", "--agreement"]) == 2
