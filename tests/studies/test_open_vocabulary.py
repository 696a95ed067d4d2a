"""The reports on boxes and on pixels: what they refuse, what they say, and one of each with few images."""

import json
import re

import pytest
import torch

from vlmlab.errors import VlmlabError
from vlmlab.studies import open_vocabulary as study
from vlmlab.studies.comparable import must_share_protocol
from vlmlab.studies.open_vocabulary.pixels import _balance, _named_as_a_whole, _shifted
from vlmlab.studies.report import report


def row(system, new, seed=1, **more):
    return {
        "system": system, "dataset": "tableau", "backbone": "micro-vit", "shots": 0, "seed": seed, "split": "all",
        "metrics": {"ap50": 50.0, "ap50_base": 60.0, "ap50_new": new, "harmonic_mean": 55.0},
    } | more  # fmt: skip


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"dataset": "tableau-paired"}, "measured on tableau, and ViLD, measured on tableau-paired"),
        ({"test_pictures": 20}, "on all test images, and ViLD, on 20 test images"),
        ({"metrics": {"miou": 3.0}}, "measured by AP50, and ViLD, measured by mIoU"),
        ({"validation": True}, "on validation images"),
    ],
)
def test_results_of_two_protocols_are_refused_and_the_difference_is_told(more, said):
    must_share_protocol([row("region_clip", 40.0), row("vild", 50.0)])
    with pytest.raises(VlmlabError, match=said):
        must_share_protocol([row("region_clip", 40.0), row("vild", 50.0, **more)])


def plan(tmp_path, task, *systems, **more):
    return study.Plan(task, systems, more.pop("dataset", "tableau"), "micro-vit", [1, 2], tmp_path, **more)


def test_a_plan_refuses_what_cannot_stand_side_by_side(tmp_path):
    for task, systems, more, said in (
        ("segmentation", ("zegclip", "clims"), {}, "which learns from masks|which learns from boxes or masks"),
        ("detection", ("vild", "coop"), {}, "coop does classification, not detection"),
        ("detection", ("vild",), {"dataset": "digits"}, "digits has no ground truth for detection"),
    ):
        with pytest.raises(VlmlabError, match=said):
            plan(tmp_path, task, *systems, **more)
    seeds = [(e.system, e.seed) for e in plan(tmp_path, "detection", "region_clip", "vild").experiments()]
    assert seeds == [("region_clip", 1), ("vild", 1), ("vild", 2)], "no seed changes what learns nothing"


def test_losses_are_told_beside_gains():
    rows = [row("region_clip", 40.0), row("vild", 30.0), row("vild", 34.0, seed=2), row("baron", 45.0)]
    said = study.summary(study.Results("detection", rows, ["oadp: too dark"]))
    assert "on new classes, the best here is BARON, 45.0 %" in said
    assert "Below RegionCLIP (zero-shot), which learns nothing (40.0 %): ViLD (-8.0 points)." in said
    assert "not run: oadp: too dark" in said


def test_a_true_mask_gets_the_name_that_its_pixels_score_highest():
    scores = torch.tensor([[3.0, 0, 0, 5], [1, 2, 2, 1]])  # [C, P]
    truth = torch.tensor([0, 0, 1, 1])
    assert _named_as_a_whole(scores, truth).tolist() == [0, 0, 0, 0]
    scores[0, 3] = 0
    assert _named_as_a_whole(scores, truth).tolist() == [1 if m else 0 for m in (0, 0, 1, 1)]


def test_what_is_taken_from_base_classes_helps_new_ones_up_to_a_point():
    scores = torch.tensor(
        [[2.0, 2, 2, 3], [1, 1, 1.5, 0]]
    )  # class 1 is new, and is the last but one pixel and the first
    truth, base, new = torch.tensor([1, 0, 1, 0]), torch.tensor([0]), torch.tensor([1])
    counts = _shifted(scores, truth, base, new, torch.tensor([0.0, 0.6, 9.0]))
    assert counts[:, 1, 1].tolist() == [0, 1, 2] and counts[:, 0, 0].tolist() == [2, 2, 0]
    assert int(_balance(counts, [1]).argmax()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("template", "system", "choice"),
    [("detection", "region_clip", "f1"), ("segmentation", "maskclip", "harmonic_mean")],
)
def test_a_report_with_few_images_says_what_its_record_holds(template, system, choice, tmp_path):
    given = {"systems": [system], "seeds": [1], "test_pictures": 1, "absent": ["bell"]}
    files = report(given, tmp_path / "out", template, echo=lambda _: None)
    record = json.loads(files["record"].read_text())
    (one,) = record["rows"]
    inside, page = one["inside"], files["html"].read_text()
    assert one["images"] < 60 and inside["absent"]["words"] == ["bell"] and not inside["refused"]
    rules = inside["thresholds" if template == "detection" else "offsets"]
    assert rules["oracle"][choice] >= max(rules["fixed"][choice], rules["validation"][choice])
    worth = f"{one['metrics']['ap50_new' if template == 'detection' else 'miou_new']:.1f}"
    assert worth in page and "Names that compete" in page and "12 new ones" in page and "oracle" in page
    assert page.count('src="data:image/png;base64,') == 3, "bars, kinds of mistakes, examples"
    assert not re.search(r"""(src|href)=["']?https?:""", page), "nothing is loaded from elsewhere"
