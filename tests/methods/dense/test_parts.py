"""The parts of detectors: box arithmetic, suppression, fusion, distances, heads."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import batched_nms, box_iou, roi_align
from torchvision.transforms.v2 import CenterCrop, Compose, InterpolationMode, Resize

from tests.golden.tiny_clip import tiny_backbone
from vlmlab.errors import VlmlabError
from vlmlab.methods.dense.boxes import class_nms, from_deltas, iou, to_deltas
from vlmlab.methods.dense.crops import crop_embeddings, grown
from vlmlab.methods.dense.distillation import l1, relation
from vlmlab.methods.dense.fusion import geometric
from vlmlab.methods.dense.roi_head import RegionHead, TextClassifier
from vlmlab.methods.dense.text_bank import text_bank

GOLDEN = Path(__file__).parents[2] / "golden"


def some_boxes(*shape: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    corner = 40 * torch.rand(*shape, 2, generator=random)
    return torch.cat([corner, corner + 3 + 20 * torch.rand(*shape, 2, generator=random)], -1)


def test_overlaps_are_torchvision_s():
    a, b = some_boxes(3, 5), some_boxes(3, 4, seed=1)
    torch.testing.assert_close(iou(a, b), torch.stack([box_iou(x, y) for x, y in zip(a, b, strict=True)]))
    assert iou(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


def test_deltas_move_a_box_onto_its_target():
    a, b = some_boxes(6), some_boxes(6, seed=1)
    torch.testing.assert_close(from_deltas(a, to_deltas(a, b), 64.0), b, atol=1e-3, rtol=1e-4)
    assert to_deltas(a, a).abs().max() == 0


@pytest.mark.parametrize("threshold", [0.3, 0.5])
def test_suppression_is_torchvision_s_in_every_class(threshold):
    boxes = some_boxes(4, 12)
    scores = torch.rand(4, 12, 3, generator=torch.Generator().manual_seed(2))
    kept = class_nms(boxes, scores, threshold)
    for own, points, found in zip(boxes, scores, kept, strict=True):
        flat = own[:, None].expand(-1, 3, -1).reshape(-1, 4)
        classes = torch.arange(3).repeat(12)
        expected = torch.zeros(36, dtype=torch.bool)
        expected[batched_nms(flat, points.flatten(), classes, threshold)] = True
        assert torch.equal(found.flatten(), expected)
    assert not kept.all()


def test_fusion_is_the_release_s():
    golden = np.load(GOLDEN / "vild_fusion.npz")
    p = torch.from_numpy(golden["p_logits"]).softmax(-1)[:, :-1]
    q = torch.from_numpy(golden["q_logits"]).softmax(-1)
    is_new = torch.arange(p.shape[1]) >= int(golden["base"])
    found = geometric(p, q, is_new)
    torch.testing.assert_close(found.log(), torch.from_numpy(golden["log_scores"]), rtol=1e-4, atol=1e-5)
    assert torch.equal(geometric(p, q, is_new, 0.0, 0.0), p) and torch.equal(geometric(p, q, is_new, 1.0, 1.0), q)


def test_the_distance_is_summed_over_the_width_and_averaged_over_the_regions():
    student = torch.tensor([[3.0, 4.0], [1.0, 0.0], [5.0, 5.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, 2.0], [1.0, 0.0], [0.0, 1.0]])
    there = torch.tensor([True, True, False])
    loss = l1(student, teacher, there)
    assert loss.item() == pytest.approx((0.6 + 0.2 + 0.0) / 2)
    loss.backward()
    assert student.grad[0].abs().max() > 0 and student.grad[2].abs().max() == 0
    assert l1(student, teacher, torch.zeros(3, dtype=torch.bool)).item() == 0


def test_relations_are_equal_where_angles_are():
    unit = F.normalize(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    turn, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))
    assert relation(unit @ turn, unit).item() == pytest.approx(0, abs=1e-6)
    assert relation(unit, unit.flip(0)).item() > 1e-3


def test_square_crops_distort_nothing_and_stay_in_the_image():
    boxes = torch.tensor([[10.0, 10, 30, 20], [0, 0, 10, 40]])
    wide, high = grown(boxes, 1.2, "square", 64.0)
    torch.testing.assert_close(wide, torch.tensor([8.0, 3, 32, 27]))
    assert high.min() >= 0
    torch.testing.assert_close(grown(boxes, 1.0, "stretched", 64.0), boxes)


def test_centred_crops_are_what_clip_s_preprocessing_leaves_of_a_box():
    """The box is enlarged and cut at the image first; of what is left the shorter side fills the square."""
    boxes = torch.tensor([[10.0, 10, 30, 20], [0, 10, 10, 40]])
    torch.testing.assert_close(grown(boxes, 1.0, "centred", 64.0), torch.tensor([[15.0, 10, 25, 20], [0, 20, 10, 30]]))
    wide, high = grown(boxes, 1.5, "centred", 64.0)
    torch.testing.assert_close(wide, torch.tensor([12.5, 7.5, 27.5, 22.5]))
    torch.testing.assert_close(high, torch.tensor([0.0, 18.75, 12.5, 31.25]))  # cut at the left
    images = torch.zeros(1, 3, 8, 16)
    images[..., 4:12] = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = Compose([Resize(8, InterpolationMode.BILINEAR), CenterCrop(8)])(images)
    rows = torch.cat([torch.zeros(1, 1), grown(torch.tensor([[0.0, 0, 16, 8]]), 1.0, "centred", 16.0)], 1)
    torch.testing.assert_close(roi_align(images, rows, 8, 1.0, sampling_ratio=1, aligned=True), expected)


def test_a_crop_of_the_whole_image_is_the_image():
    backbone = tiny_backbone("vit")
    side = backbone.image_size
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    whole = torch.tensor([0.0, 0, side, side]).expand(2, 1, 4)
    found = crop_embeddings(backbone, images, whole, (1.0, 1.5), "stretched")[:, 0]
    torch.testing.assert_close(found, F.normalize(backbone.encode_image(images), dim=-1), rtol=1e-3, atol=1e-3)


def test_the_background_learns_and_the_words_do_not():
    text = F.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=-1).requires_grad_()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head, classifier = RegionHead(6, 8, 4), TextClassifier(8, 10.0)
    features = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    logits = classifier(head(features), text.detach())
    assert logits.shape == (5, 4)
    torch.testing.assert_close(logits[:, :3], 10 * F.cosine_similarity(head(features)[:, None], text, dim=-1))
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 3, 3])).backward()
    assert text.grad is None and classifier.background.grad.abs().max() > 0
    assert all(p.grad.abs().max() > 0 for p in head.parameters())


def test_no_words_are_refused():
    with pytest.raises(VlmlabError, match="at least one"):
        text_bank(tiny_backbone("vit"), [], ["{}"])
