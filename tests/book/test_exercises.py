import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vlmlab.book.exercise import Exercise, check, exercises
from vlmlab.book.exercises import (
    better_prompts,
    beyond_one_label,
    detection,
    discussion,
    distillation_discussion,
    distillation_figures,
    feature_adapters,
    feature_distillation,
    future_distillation,
    future_pretraining,
    future_transfer,
    masks_first,
    motivation,
    new_classes,
    one_stage,
    other_methods,
    pretraining_scale,
    pseudo_boxes,
    region_prompts,
    segmentation,
    start_here,
    text_prompts,
    text_visual_prompts,
    transfer_figures,
    visual_prompts,
    weak_supervision,
    why_distil,
    without_labels,
)
from vlmlab.errors import VlmlabError

EVERY = exercises()


@pytest.mark.parametrize("key", EVERY)
def test_the_solution_passes_its_own_check(key):
    feedback = check(key, EVERY[key].solution)
    assert feedback.passed, feedback.message


@pytest.mark.parametrize("key", EVERY)
def test_a_stub_is_not_started_and_offers_help(key):
    one = EVERY[key]
    stub = (lambda *arguments: None) if callable(one.solution) else ...
    feedback = check(key, stub)
    assert feedback.state == "open" and not feedback.passed
    shown = feedback._repr_mimebundle_()["text/markdown"]
    for part in ("Hint 1", "Hint 2", "Solution", *one.hints, one.solution_text()):
        assert part in shown
    assert one.seen not in shown, "what one should notice is told to who has solved it"


@pytest.mark.parametrize("key", EVERY)
def test_hints_are_two_and_say_more_each(key):
    one = EVERY[key]
    assert len(one.hints) == 2 and len(set(one.hints)) == 2 and all(len(hint) > 30 for hint in one.hints)
    assert len(one.seen) > 40


@pytest.mark.parametrize("key", EVERY)
def test_an_answer_of_another_kind_is_told_and_not_raised(key):
    for wrong in ("text", -1, [], object(), lambda *arguments: "text", lambda *arguments: 1 / 0):
        feedback = check(key, wrong)
        assert feedback.state == "wrong" and "\n" not in feedback.message, feedback


def test_the_solution_bears_the_name_of_the_stub():
    def difference_of(ours, theirs): ...

    shown = check("06_1a.paired", difference_of)._repr_mimebundle_()["text/markdown"]
    assert "def difference_of(ours, theirs):" in shown and "def paired" not in shown
    assert "def paired" in check("06_1a.paired", lambda ours, theirs: None)._repr_mimebundle_()["text/markdown"]


def test_a_right_answer_may_be_a_python_number_or_of_another_precision():
    assert check("06_1b.distance", lambda w, w0: float(new_classes.distance(w, w0))).passed
    assert check("06_1b.averaged", lambda logits: new_classes.averaged(logits.double())).passed
    assert check("06_1.loss", lambda *arguments: text_prompts.coop_loss(*arguments).item()).state == "wrong"


def test_an_exercise_that_does_not_exist():
    with pytest.raises(VlmlabError, match=r"did you mean 06_4.vote"):
        check("06_4.vot", 1)


def no_shape(*arguments):
    return torch.zeros(2, 2)


def units_mixed(h, v1, v2, ratio):
    a = F.relu(F.relu(h @ v1) @ v2)
    return F.normalize(ratio * F.normalize(a, dim=-1) + (1 - ratio) * F.normalize(h, dim=-1), dim=-1)


def not_at_most_one(p, y, a, b, c):
    there, absent = (1 - p) ** a * p.log(), (p - c) ** b * (1 - p + c).log()
    return -torch.where(y == 1, there, absent)[y != -1].sum()


def twice_the_gradient(loss):
    return 2 * loss - loss.detach()


def by_splitting(sentence, classes, stem):
    words, found = f" {' '.join(map(stem, sentence.lower().split()))} ", {}
    for name in sorted(classes, key=len, reverse=True):
        found[name] = int(f" {name} " in words)
        words = words.replace(f" {name} ", "  ", 1)
    return [found[name] for name in classes]


def by_region(scores, regions, reduce):
    """Scores [C, H, W] with those of every region replaced by what `reduce` makes of them [C, n] -> [C, 1]."""
    out = torch.empty_like(scores)
    for r in regions.unique():
        out[:, regions == r] = reduce(scores[:, regions == r])
    return out


def scaled_map(x):
    """A map shifted and scaled to 0 to 1."""
    return (x - x.min()) / (x.max() - x.min() + 1e-7)


def balanced(attention, rounds):
    """Attention after `rounds` of dividing columns, then rows, by their sums."""
    for _ in range(rounds):
        attention = attention / attention.sum(0, keepdim=True)
        attention = attention / attention.sum(1, keepdim=True)
    return attention


def clims_with(o, b, ground, area, weights):
    """CLIMS' loss with another ground term."""
    h0, h1, h2, h3 = weights
    return h0 * -o.log().mean() + h1 * -(1 - b).log().mean() + h2 * ground + h3 * area.mean()


MISTAKES = {
    "07_1c.cover": [
        (lambda m, b: pseudo_boxes.cover(m.clamp_min(0.5 * m.max()), b), "thresholded map"),
        (lambda m, b: torch.stack([m[y:Y, x:X].sum() / ((X - x) * (Y - y)) ** 0.5 for x, y, X, Y in b.tolist()]), "weak places"),
        (lambda m, b: pseudo_boxes.cover(m, b) / (b[:, 2:] - b[:, :2]).prod(1).sqrt(), "not by the area"),
        (lambda m, b: pseudo_boxes.cover(m, b) * (b[:, 2:] - b[:, :2]).prod(1).sqrt(), "is missing"),
    ],
    "07_1c.choose": [
        (lambda o, c, w, t: pseudo_boxes.choose(c, o, w, t), "that of objectness"),
        (lambda o, c, w, t: pseudo_boxes.choose(o, c, w, t)[0], "two tensors"),
        (lambda o, c, w, t: (pseudo_boxes.choose(o, c, w, t)[0], o > 0), "above the threshold"),
        (lambda o, c, w, t: (o * c, o > t), "weight * objectness"),
    ],
    "07_1c.quality": [
        (lambda n, t, o: pseudo_boxes.quality(n, t, o)[::-1], "precision comes first"),
        (lambda n, t, o: (torch.tensor(100.0), pseudo_boxes.quality(n, t, o)[1]), "the name must be right"),
        (lambda n, t, o: (pseudo_boxes.quality(n, t, o)[0], torch.tensor(60.0)), "the objects"),
        (lambda n, t, o: torch.tensor(50.0), "two numbers"),
    ],
    "07_1c.doubted": [
        (lambda z, s, e, m: F.binary_cross_entropy_with_logits(z, m), "noise is missing"),
        (lambda z, s, e, m: F.binary_cross_entropy_with_logits(z + e, m), "scaled by sigma"),
        (lambda z, s, e, m: pseudo_boxes.doubted(z, s, e, m) * 32, "mean over all places"),
        (lambda z, s, e, m: pseudo_boxes.doubted(2 * z, s, e, m), "cross-entropy of"),
    ],
    "07_1b.background": [
        (lambda z: -(z.softmax(-1) * z.log_softmax(-1)).sum(-1).mean(), "entropy"),
        (lambda z: 5 * region_prompts.background(z), "weight 1/C"),
        (lambda z: -region_prompts.background(z), "the sign"),
        (lambda z: region_prompts.background(2 * z), "-1/C"),
    ],
    "07_1b.groups": [
        (lambda o, e: region_prompts.groups(o, e) + 1, "the number 0"),
        (lambda o, e: region_prompts.groups(o - 1e-4, e), "lower edge is included"),
        (lambda o, e: region_prompts.groups(o, e).float(), "whole numbers"),
    ],
    "07_1b.ensemble": [
        (lambda w: F.normalize(w.sum(0), dim=-1), "would count more"),
        (lambda w: F.normalize(w, dim=-1).mean(0), "length one"),
        (lambda w: F.normalize(w[0], dim=-1), "over the groups"),
    ],
    "07_1b.web_box": [
        (lambda s, b: b[int(s.argmax())], "only the first 20"),
        (lambda s, b: b[0], "highest score"),
    ],
    "07_1a.relation": [
        (lambda s, v: (s @ s.T - v @ v.T).square().sum(), "not normalised"),
        (lambda s, v: (F.normalize(s @ s.T, dim=1) - F.normalize(v @ v.T, dim=1)).square().sum(), "sum of absolute values"),
        (lambda s, v: feature_distillation.relation(s, v).sqrt(), "squared Frobenius"),
        (lambda s, v: feature_distillation.relation(s, v) / 25, "squared Frobenius"),
        (lambda s, v: (s - v).abs().sum(), "rho"),
    ],
    "07_1a.bag": [
        (lambda b, g: feature_distillation.bag(b, -g), "negative gap"),
        (lambda b, g: feature_distillation.bag(b + 1, g), "in the middle"),
        (lambda b, g: feature_distillation.bag(b, g).reshape(3, 3, 4).transpose(0, 1).reshape(9, 4), "row by row"),
        (lambda b, g: feature_distillation.bag(b, g + 0.3), "times the width"),
    ],
    "07_1a.contrast": [
        (lambda u, y, s: F.cross_entropy(s * u @ y.T, torch.arange(len(u))), "one direction"),
        (lambda u, y, s: 2 * feature_distillation.infonce(u, y, s), "the sum of both"),
        (lambda u, y, s: feature_distillation.infonce(u, y, 1.0), "the scale is missing"),
        (lambda u, y, s: (u - y).square().sum(), "CE"),
    ],
    "07_1a.object_crop": [
        (lambda b, e, s: torch.cat([b[:2] - 5, b[2:] + 5]), "a square"),
        (lambda b, e, s: feature_distillation.object_crop(b, e, s) + 40, "leaves the image"),
        (lambda b, e, s: feature_distillation.object_crop(b, 2 * e, s), "the root of expand"),
    ],
    "07_1.ap50": [
        (lambda s, h, n: detection.ap50(torch.arange(len(s), 0, -1).float(), h, n), "not sorted"),
        (lambda s, h, n: detection.ap50(s, h, int(h.sum())), "not found at all"),
        (lambda s, h, n: detection.ap50(s, h, n) / 100, "percent"),
        (lambda s, h, n: 100 * float(h.mean()), "best precision"),
        (lambda s, h, n: detection.ap50(s, h, n) if n == 4 else 50.0, "AP50 is 100"),
    ],
    "07_1.two_scales": [
        (lambda b, s, f: F.normalize(f(b), dim=-1), "two crops of every box"),
        (lambda b, s, f: F.normalize(f(b) + f(torch.cat([b[:, :2] - 20, b[:, 2:] + 20], 1)), dim=-1), "leaves the image"),
        (lambda b, s, f: f(b) + f(b), "length one"),
        (lambda b, s, f: F.normalize(f(b) + f((1.5 * b).clamp(0, s)), dim=-1), "same centre"),
    ],
    "07_1.fusion": [
        (lambda p, q, new: detection.fusion(p, q, ~new), "trusted there"),
        (lambda p, q, new: torch.where(new, p / 3 + 2 * q / 3, 2 * p / 3 + q / 3), "arithmetic"),
        (lambda p, q, new: F.normalize(detection.fusion(p, q, new), p=1, dim=-1), "normalise"),
        (lambda p, q, new: (p * q).sqrt(), "base: p"),
    ],
    "07_1.distance": [
        (lambda z, v: detection.distance(z, v) / z.shape[1], "sums over them"),
        (lambda z, v: detection.distance(z, v) * len(z), "mean over the regions"),
        (lambda z, v: (z - v).abs().sum(-1).mean(), "length one first"),
        (lambda z, v: (F.normalize(z, dim=-1) - F.normalize(v, dim=-1)).norm(dim=-1).mean(), "L1"),
    ],
    "07_0.overlap": [
        (lambda a, b: why_distil.overlap(a, b) / (1 + why_distil.overlap(a, b)), "the common part counts once"),
        (lambda a, b: why_distil.overlap(a, b) - 1e-6, "do not meet"),
        (lambda a, b: why_distil.overlap(a, b).T, "the shape"),
        (lambda a, b: why_distil.overlap(a, b).square(), "common area over"),
    ],
    "07_0.best_shift": [
        (lambda s, d: why_distil.best_shift(-s, d), "likes least"),
        (lambda s, d: float(d[s.argmax(-1)].float().mean(0).norm()), "cancel"),
        (lambda s, d: why_distil.best_shift(s, d) * 2, "is not right"),
    ],
    "07_0.payback": [
        (lambda n, c, s, i, t: t / (i * n * c), "the difference is saved"),
        (lambda n, c, s, i, t: t / (n * c - s), "is not right"),
    ],
    "07_0.teacher": [
        (lambda v, t, y: why_distil.teacher_topone(v, t, y) / 100, "percent"),
        (lambda v, t, y: why_distil.teacher_topone(-v, t, y) + 1, "nearest text"),
    ],
    "09_1.caption_of": [
        (lambda scene, rng: "a photo", "not better yet"),
        (lambda scene, rng: "", "not empty"),
    ],
    "09_1.trust": [
        (lambda features, texts: torch.arange(len(texts)), "not better yet"),
        (lambda features, texts: features, "one score per pair"),
        (lambda features, texts: torch.full((len(texts),), float("nan")), "not finite"),
    ],
    "09_1.pool": [
        (lambda word, tokens: (tokens @ word).amax(-1), "not better yet"),
        (lambda word, tokens: tokens @ word, "one score per image"),
        (lambda word, tokens: torch.full((len(tokens),), float("nan")), "not finite"),
    ],
    "09_1.bilingual": [
        (lambda e, g, t, share: future_pretraining.bilingual(g, e, t, share), "other way round"),
        (lambda e, g, t, share: share * ((e - t) ** 2).mean() + (1 - share) * ((g - t) ** 2).mean(), "sum over the axis"),
        (lambda e, g, t, share: future_pretraining.bilingual(e, g, t, 1.0), "equation (1)"),
    ],
    "09_3.target": [
        (lambda features, words, scale: scale * features[0] @ words.T, "not better yet"),
        (lambda features, words, scale: features[0], "one row per image"),
    ],
    "09_3.metric": [
        (lambda features, who: torch.eye(features.shape[1]), "not better yet"),
        (lambda features, who: features, "a matrix"),
    ],
    "09_3.average_precision": [
        (lambda hits: hits.float().mean(), "their places count"),
        (lambda hits: (hits.float().cumsum(0) / torch.arange(1, len(hits) + 1)).mean(), "where there is a hit"),
        (lambda hits: future_distillation.average_precision(hits) * hits.sum() / len(hits), "number of hits"),
    ],
    "09_2.stream_rule": [
        (lambda f, w, s: s * f @ w.T, "not better yet"),
        (lambda f, w, s: s * f @ w.T - (s * f @ w.T).softmax(-1).mean(0).log(), "has not brought them yet"),
        (lambda f, w, s: (s * f @ w.T).argmax(-1), "one row per image"),
        (lambda f, w, s: s * f @ w.T / 0, "not finite"),
        (lambda f, w, s: torch.rand(len(f), len(w)), "gives different logits"),
    ],
    "09_2.pool_rule": [
        (lambda f, w, s: s * f @ w.T, "not better yet"),
        (lambda f, w, s: s * f @ w.T - (s * f @ w.T).softmax(-1).mean(0).log(), "not better yet"),
    ],
    "09_2.describe": [
        (lambda name, parts: [f"a photo of a {name}"], "not better yet"),
        (lambda name, parts: f"a photo of a {name}", "list of sentences"),
        (lambda name, parts: [" "], "empty sentence"),
    ],
    "09_2.mark": [
        (lambda pixels, box: pixels, "not better yet"),
        (lambda pixels, box: pixels[:32], "as it came"),
        (lambda pixels, box: future_transfer.marks.marked(pixels, box, "circle"), "not better yet"),
    ],
    "06_1c.asymmetric": [
        (lambda p, y, a, b, c: beyond_one_label.asymmetric(p, y.clamp(min=0), a, b, c), "leave them out"),
        (lambda p, y, a, b, c: beyond_one_label.asymmetric(p, y, 0, 0, c), "focusing factors"),
        (lambda p, y, a, b, c: beyond_one_label.asymmetric(p, y, a, b, 0.0), "the clip is missing"),
        (lambda p, y, a, b, c: beyond_one_label.asymmetric(p, y, a, b, c) / (y != -1).sum(), "it is a mean"),
        (lambda p, y, a, b, c: -beyond_one_label.asymmetric(p, y, a, b, c), "the sign"),
        (lambda p, y, a, b, c: beyond_one_label.asymmetric(p, y, b, a, c), "term by term"),
        (lambda p, y, a, b, c: not_at_most_one(p, y, a, b, c), "at most 1"),
        (lambda p, y, a, b, c: beyond_one_label._factors_that_learn(p, y, a, b, c), "the factors get a gradient"),
        (lambda p, y, a, b, c: beyond_one_label.asymmetric(p, y, a, b, c).item(), "nothing can learn from it"),
        (lambda p, y, a, b, c: beyond_one_label.asymmetric(p * 1.0, y, a, b, c).detach(), "nothing can learn from it"),
        (lambda p, y, a, b, c: twice_the_gradient(beyond_one_label.asymmetric(p, y, a, b, c)), "the number itself is right"),
    ],
    "06_1c.ranking": [
        (lambda z, y: beyond_one_label.ranking(-z, y), "punishes the right order"),
        (lambda z, y: beyond_one_label.ranking(z, y) * len(z), "mean over the batch"),
        (lambda z, y: (z * y).sum(), "every pair"),
    ],
    "06_1c.nouns": [
        (lambda s, c: [int(n in s.lower()) for n in c], "caterpillar is no cat"),
        (lambda s, c: [int(bool(re.search(rf"\b{n}s?\b", s))) for n in c], "lower case"),
        (lambda s, c: [int(bool(re.search(rf"\b{n}\b", s.lower()))) for n in c], "the plural"),
        (lambda s, c: [int(bool(re.search(rf"\b{n}s?\b", s.lower()))) for n in c], "takes its words"),
        (lambda s, c: by_splitting(s, c, lambda word: word.rstrip("s.,")), "no plural"),
        (lambda s, c: by_splitting(s, c, lambda word: word if word == "bus" else word.rstrip("s")), "ends a word"),
        (lambda s, c: [1], "one entry per class"),
    ],
    "06_1c.consistency": [
        (lambda leaf, nodes, below: float((leaf & nodes.all(1)).float().mean()), "elsewhere in the tree"),
        (lambda leaf, nodes, below: float((nodes | ~below).all(1).float().mean()), "the leaf is missing"),
        (lambda leaf, nodes, below: float(leaf.float().mean()), "leaf accuracy"),
        (lambda leaf, nodes, below: float((leaf & (nodes == below).all(1)).float().mean()), "elsewhere in the tree"),
        (lambda leaf, nodes, below: 0.123, "0.123 is not it"),
    ],
    "06_1d.confident": [
        (lambda logits, share: without_labels.confident(logits, 1.0)[-max(1, int(len(logits) * share)) :], "highest entropy"),
        (lambda logits, share: torch.arange(int(len(logits) * share)), "lower entropy"),
        (lambda logits, share: without_labels.confident(logits, 1.0), "with K = int"),
        (lambda x, share: x.softmax(-1).amax(-1).topk(max(1, int(10 * share))).indices, "largest single probability"),
        (lambda x, share: x.amax(-1).topk(max(1, int(10 * share))).indices, "lower entropy"),
    ],
    "06_1d.entropy": [
        (lambda x: -(x.softmax(-1) * x.log_softmax(-1)).sum(-1).mean(), "the mean of the entropies"),
        (lambda x: without_labels.entropy_of_mean(x.mean(0, keepdim=True)), "logits were averaged"),
        (lambda x: -without_labels.entropy_of_mean(x), "never negative"),
    ],
    "06_1d.top_k": [
        (lambda p, y, classes, k: p.argsort(descending=True)[: 3 * k], "of all classes together"),
        (lambda p, y, classes, k: (y == 0).nonzero()[:, 0], "at most K"),
        (lambda p, y, classes, k: without_labels.top_k(-p, y, classes, k), "surer"),
    ],
    "00.classifier": [
        (lambda b, names, t: b.encode_text([t.format(n) for n in names]), "length 1"),
        (lambda b, names, t: F.normalize(b.encode_text(names), dim=-1), "the template"),
        (lambda b, names, t: torch.zeros(16), "[C, e] = [3, 16], and it is [16]"),
    ],
    "00.zero_shot": [
        (lambda f, w, s: s * F.normalize(f, dim=-1) @ w.T, "sum to 1"),
        (lambda f, w, s: (s * f @ w.T).softmax(-1), "their own length"),
        (lambda f, w, s: (F.normalize(f, dim=-1) @ w.T).softmax(-1), "logit scale"),
        (lambda f, w, s: (s * F.normalize(f, dim=-1) @ w).softmax(-1), "raised RuntimeError"),
    ],
    "00.ensemble": [
        (lambda x: F.normalize(x.mean(1), dim=-1), "normalise first"),
        (lambda x: F.normalize(x, dim=-1).mean(1), "normalise after"),
        (lambda x: F.normalize(x.mean(0), dim=-1), "[C, e] = [3, 8], and it is [5, 8]"),
    ],
    "00.least": [(0.5, "ten probabilities sum to 1"), (10, "lies between 0 and 1")],
    "06_1.count": [((8192, 8192), "every one of the C classes"), ((16, 819200), "each of width d"), (8192, "two numbers")],
    "06_1.prompts": [
        (lambda s, c, r: torch.cat([c.expand(3, -1, -1), s.expand(3, -1, -1), r], 1), "begins with [SOS]"),
        (lambda s, c, r: torch.cat([s.expand(3, -1, -1), r, c.expand(3, -1, -1)], 1), "order along the sequence"),
        (lambda s, c, r: torch.cat([s, c]), "[C, 1 + M + S, d]"),
    ],
    "06_1.loss": [
        (lambda c, e, f, y, s: text_prompts.coop_loss(c.detach(), e, f, y, s), "no gradient"),
        (lambda c, e, f, y, s: F.cross_entropy(s * f @ F.normalize(e(c), dim=-1).T, y), "their own length"),
        (
            lambda c, e, f, y, s: F.cross_entropy(
                (s * F.normalize(f, dim=-1) @ F.normalize(e(c), dim=-1).T).softmax(-1), y
            ),
            "twice",
        ),
        (
            lambda c, e, f, y, s: (
                text_prompts.coop_loss(c.detach(), e, f, y, s) + 0 * c.sum()
            ),
            "gradient does not",
        ),
    ],
    "06_1.harmonic": [(lambda b, n: (b + n) / 2, "arithmetic"), (lambda b, n: 2 * b * n / (b + n), "ZeroDivisionError")],
    "06_1b.meta_net": [
        (lambda f, context, down, up: context + up(down(f))[:, None], "no ReLU"),
        (lambda f, context, down, up: up(down(f).relu())[:, None].expand(-1, 4, -1), "the shift alone"),
        (lambda f, context, down, up: context + up(down(f).relu()).mean(0), "[B, M, d] = [5, 4, 6], and it is [4, 6]"),
    ],
    "06_1b.distance": [
        (lambda w, w0: F.cosine_similarity(w, w0, dim=-1).mean(), "the mean cosine"),
        (lambda w, w0: 1 - (w * w0).sum(-1).mean(), "their own length"),
        (lambda w, w0: 2 * new_classes.distance(w, w0), "twice"),
        (lambda w, w0: 1 - (F.normalize(w, dim=-1) @ F.normalize(w0, dim=-1).T).mean(), "its own"),
        (lambda w, w0: 1 - F.cosine_similarity(w, w0, dim=-1), "one number"),
    ],
    "06_1b.text_to_text": [
        (lambda h, w, s: F.cross_entropy(s * h.flatten(0, 1) @ w.T, torch.arange(5).repeat_interleave(3)), "order"),
        (lambda h, w, s: new_classes.text_to_text(h, w, 1.0), "scale is missing"),
        (lambda h, w, s: 15 * new_classes.text_to_text(h, w, s), "their mean"),
    ],
    "06_1b.averaged": [
        (lambda z: z.mean(1).log_softmax(-1), "averages probabilities"),
        (lambda z: z.log_softmax(-1).mean(1), "logarithm of the mean"),
        (lambda z: z.softmax(-1).mean(1), "their logarithm is wanted"),
        (lambda z: z.log_softmax(-1).logsumexp(1), "divided out"),
        (lambda z: z.softmax(-1).mean(1).log(), "stay in logarithms"),
    ],
    "06_1b.texts": [((1000, 1000), "prompts of its own"), ((64_000, 64_000), "one per class is enough"), (64_000, "two numbers")],
    "06_2.count": [
        (lambda p, s: 12 * p * s, "counted twice"),
        (lambda p, s: 4 * p * (s - p), "three colours"),
        (lambda p, s: 3 * p * s, "draw the frame"),
    ],
    "06_2.grey": [
        (lambda x, std: x * std[:, None, None], "go up to 255"),
        (lambda x, std: 255 * x / std[:, None, None], "going back multiplies"),
        (lambda x, std: 255 * x, "undo it"),
    ],
    "06_2.votes": [
        (lambda k, y, c, b: (b * k @ k.T).softmax(-1) @ F.one_hot(y, c).float(), "found itself"),
        (lambda k, y, c, b: (b * (k @ k.T) * (1 - torch.eye(9))).softmax(-1) @ F.one_hot(y, c).float(), "still gets a weight"),
        (lambda k, y, c, b: k @ k.T @ F.one_hot(y, c).float(), "sum to 1"),
    ],
    "06_2.mixed": [
        (lambda x, v, share: share * v + (1 - share) * x, "do not add up"),
        (lambda x, v, share: (1 - share) * v + share * x.softmax(-1), "the other way round"),
        (lambda x, v, share: v + x.softmax(-1), "should sum to 1"),
    ],
    "06_3.numbers": [
        (lambda n, j, d, w: (j * n * (d + w), j * n * d + j * d * w), "have a bias"),
        (lambda n, j, d, w: (j * n * (d + w), j * n * (d + w) + j * (d * w + w)), "no visual tokens of their own"),
        (lambda n, j, d, w: (n * (d + w), j * n * d + j * (d * w + w)), "in both towers"),
        (lambda n, j, d, w: j * n * (d + w), "two numbers"),
    ],
    "06_3.replaced": [
        (lambda x, p: torch.cat([x, p.expand(len(x), -1, -1)], 1), "the sequence grew"),
        (lambda x, p: torch.cat([p.expand(len(x), -1, -1), x[:, 2:]], 1), "stand in front"),
        (lambda x, p: torch.cat([x[:, :-2], x[:, -2:] + p], 1), "added to the old ones"),
    ],
    "06_3.attended": [
        (lambda x, q, k, v: x @ v, "saw itself alone"),
        (lambda x, q, k, v: ((x @ q) @ (x @ k).T).softmax(-1) @ x @ v, "square root"),
        (lambda x, q, k, v: ((x @ q) @ (x @ k).T / 2).softmax(0) @ x @ v, "runs over the queries"),
    ],
    "06_3.recall": [
        (lambda x, y, r: 100 * text_visual_prompts.recall(x, y, r), "not percent"),
        (lambda x, y, r: float((x.topk(r, -1, largest=False).indices == y[:, None]).any(-1).float().mean()), "least likely"),
        (lambda x, y, r: float((x.argmax(-1) == y).float().mean()), "R = 3"),
    ],
    "06_1a.sinkhorn": [
        (lambda s, e, n: (-(1 - s) / e).exp(), "every prompt should get"),
        (lambda s, e, n: (-(1 - s) / e).softmax(0) / 4, "every place has"),
        (lambda s, e, n: better_prompts.sinkhorn(1 - s, e, n), "avoids what fits"),
        (lambda s, e, n: torch.full((6, 4), 1 / 24), "compare the kernel"),
        (lambda s, e, n: better_prompts.sinkhorn(s, e, 200), "as many as"),
        (lambda s, e, n: better_prompts.sinkhorn(s, e, n).T, "[P, N] = [6, 4], and it is [4, 6]"),
    ],
    "06_1a.aligned": [
        (lambda a, b: a, "has to go"),
        (lambda a, b: a - (a @ b) * b, "unit length"),
        (lambda a, b: a + (a @ b) / (b @ b) * b, "once more"),
        (lambda a, b: (a @ b) / (b @ b) * b, "opposing part itself"),
        (lambda a, b: a - (a @ b) / (b @ b) * b, "must stay as it is"),
        (
            lambda a, b: a - ((a * b).sum(-1) / (b * b).sum(-1)).clamp_max(0)[..., None] * b,
            "sum over all entries",
        ),
    ],
    "06_1a.subspace": [
        (lambda g, p, r: torch.linalg.svd(p - p.mean(0), full_matrices=False)[2][:r] @ g, "r coordinates"),
        (lambda g, p, r: better_prompts.inside(g, torch.cat([p, -p]), r), "not centred"),
        (lambda g, p, r: g - better_prompts.inside(g, p, r), "keep the part inside"),
        (lambda g, p, r: better_prompts.inside(g, p, r + 1), "r of them are kept"),
    ],
    "06_1a.paired": [
        (lambda a, b: better_prompts.paired(b, a), "other way round"),
        (lambda a, b: ((a - b).mean(), (a - b).std(ddof=1)), "smaller by"),
        (lambda a, b: ((a - b).mean(), (a - b).std() / 2), "ddof=1"),
        (lambda a, b: ((a - b).mean(), (a.var(ddof=1) / 4 + b.var(ddof=1) / 4) ** 0.5), "these are pairs"),
        (lambda a, b: (a - b).mean(), "two numbers"),
    ],
    "06_4.vote": [
        (lambda f, k, v, b: f @ k.T @ v, "sums of cosines"),
        (lambda f, k, v, b: (b * (1 - f @ k.T)).exp() @ v, "negative"),
        (lambda f, k, v, b: (b * f @ k.T).exp() @ v, "too large"),
        (lambda f, k, v, b: (-b * (1 - f @ k.T)).exp(), "[B, C] = [6, 4], and it is [6, 12]"),
    ],
    "06_4.nearest": [
        (lambda f, k, v: v[(f @ k.T).argmin(-1)], "another key"),
        (lambda f, k, v: f @ k.T @ v, "a single 1"),
    ],
    "06_4.flattery": [
        (lambda v, t: float(t.max() - v.max()), "both sides should be test"),
        (lambda v, t: float(t.flatten()[v.argmax()] - t.max()), "is negative"),
        (lambda v, t: float(t.max()), "find the setting on validation"),
    ],
    "06_4.megabytes": [(65_536_000, "1e+06 times"), (16.384, "0.25 times"), (62.5, "MiB")],
    "06_4.residual": [
        (lambda h, v1, v2, r: feature_adapters.residual(h, v1, v2, 1 - r), "wrong way round"),
        (units_mixed, "only the mixture is"),
        (lambda h, v1, v2, r: F.normalize(r * F.relu(h @ v1) @ v2 + (1 - r) * h, dim=-1), "second relu"),
        (lambda h, v1, v2, r: r * F.relu(F.relu(h @ v1) @ v2) + (1 - r) * h, "its own length"),
        (lambda h, v1, v2, r: F.relu(h @ v1), "[B, e] = [5, 8], and it is [5, 2]"),
    ],
    "06_4.confidence": [
        (lambda c: float(c.softmax(-1).max(-1).values.mean()), "one minus it"),
        (lambda c: 1 - float(c.max(-1).values.mean()), "no probability"),
        (lambda c: 1 - float(c.softmax(0).max(-1).values.mean()), "over the images"),
        (lambda c: 1 - float(c.softmax(-1).max()), "surest image"),
    ],
    "06_0.distance": [
        (lambda p, q: (p.mean(0) - q.mean(0)).square().sum(), "own length"),
        (lambda p, q: motivation.distance(p, q).sqrt(), "its square"),
        (
            lambda p, q: (F.normalize(p.mean(0), dim=0) - F.normalize(q.mean(0), dim=0)).square().sum(),
            "before the mean",
        ),
        (lambda p, q: (F.normalize(p, dim=-1).mean(0) - F.normalize(q, dim=-1).mean(0)).square(), "[] = [], and it is [8]"),
    ],
    "06_0.contrastive": [
        (lambda f, g, s: F.cross_entropy(s * f @ g.T, torch.arange(len(f))), "only the rows"),
        (lambda f, g, s: F.cross_entropy(s * g @ f.T, torch.arange(len(f))), "only the columns"),
        (lambda f, g, s: 2 * motivation.contrastive(f, g, s), "the sum of the two"),
        (lambda f, g, s: motivation.contrastive(f, g, 1.0), "scale s is missing"),
        (lambda f, g, s: motivation.contrastive(f, g, -s), "equation (3)"),
    ],
    "06_0.headroom": [
        (lambda z, a, c: (a - z) / z, "room above zero-shot"),
        (lambda z, a, c: 100 * motivation.headroom(z, a, c), "in percent"),
        (lambda z, a, c: a / c, "of the room, and this says"),
        (lambda z, a, c: (a - z) / (c - z), "ZeroDivisionError"),
    ],
    "06_0.labels": [(0.012488582, "asks for percent"), (0.078053, "there are 16"), (16, "is not it")],
    "06_6.paired": [
        (lambda a, b: (a - b).mean(), "two numbers"),
        (lambda a, b: discussion.paired(b, a), "turned round"),
        (lambda a, b: ((a - b).mean(), (a.mean(1).var() / 6 + b.mean(1).var() / 6).sqrt()), "two separate means"),
        (lambda a, b: ((a - b).mean(), (a - b).mean(1).std()), "by the root of 6"),
        (lambda a, b: ((a - b).mean(), (a - b).std() / 18**0.5), "no new datasets"),
        (lambda a, b: ((a - b).mean(), (a - b).mean(1).std(correction=0) / 6**0.5), "of a sample"),
    ],
    "06_6.frontier": [
        (lambda c, a: discussion.unbeaten(-c, a), "a smaller cost is better"),
        (
            lambda c, a: ~((c[None] <= c[:, None]) & (a[None] >= a[:, None]) & ~torch.eye(len(c)).bool()).any(1),
            "two equal systems",
        ),
        (lambda c, a: ~((c[None] <= c[:, None]) & (a[None] >= a[:, None])).any(1), "nobody is left"),
        (lambda c, a: a == a.max(), "it should be"),
    ],
    "06_6.ranks": [
        (lambda x: (x[None] < x[:, None]).sum(1).float().mean(1) + 1, "should have it"),
        (lambda x: discussion.mean_rank(x) - 1, "begin with 1"),
        (lambda x: discussion.mean_rank(x) * 4, "sums of ranks"),
        (lambda x: (x[None] >= x[:, None]).sum(1).float().mean(1), "equally good"),
        (lambda x: x.mean(1), "how many systems are better"),
    ],
    "06_5.described": [
        (lambda f, t, o, c: f @ t.T @ F.one_hot(o, c).float(), "win by their number"),
        (lambda f, t, o, c: f @ F.normalize(F.one_hot(o, c).float().T @ t, dim=-1).T, "that is CuPL"),
        (lambda f, t, o, c: f @ t.T, "[B, C]"),
    ],
    "06_5.looked": [
        (lambda z, t: (2 * z @ t.T).softmax(1).T @ z, "over the classes"),
        (lambda z, t: (z @ t.T).softmax(0).T @ z, "factor 2"),
        (lambda z, t: F.normalize(other_methods.looked(z, t), dim=-1), "not normalised again"),
    ],
    "06_5.residual": [
        (lambda t, x, a: F.normalize(F.normalize(t, dim=-1) + a * x, dim=-1), "too early"),
        (lambda t, x, a: t + a * x, "unit length in the end"),
        (lambda t, x, a: F.normalize(t + x, dim=-1), "equation (6)"),
    ],
    "06_5.merged": [
        (lambda z, f, a: other_methods.merged(f, z, a), "ends are swapped"),
        (lambda z, f, a: {k: (1 - a) * z[k] + a * f[k] for k in z}, "whole number"),
        (lambda z, f, a: [], "a dictionary"),
    ],
    "07_4.gain_by_kind": [
        (lambda k, v, b: distillation_discussion.gain_by_kind(k, v, [0.0] * len(v)), "mean figures"),
        (lambda k, v, b: distillation_discussion.gain_by_kind(k, b, v), "the sign"),
        (
            lambda k, v, b: {
                one: g * k.count(one) for one, g in distillation_discussion.gain_by_kind(k, v, b).items()
            },
            "the sum of the gains",
        ),
        (lambda k, v, b: {"features": 8.0}, "one entry per kind"),
    ],
    "07_4.of_the_room": [
        (lambda v, f, c: (v - f) / (c - f), "between 0 and 1"),
        (lambda v, f, c: 100 * v / c, "already was counted"),
        (lambda v, f, c: 100 * (v - f) / c, "not from zero"),
    ],
    "07_4.sure_labels": [
        (lambda x, t: x.argmax(-1), "every region got a label"),
        (lambda x, t: torch.where(x.amax(-1) >= t, x.argmax(-1), -1), "take the softmax"),
        (lambda x, t: torch.where(x.softmax(-1).amax(-1) >= t, -1, x.argmax(-1)), "lost their labels"),
    ],
    "07_2.pooled": [
        (lambda f, m: torch.einsum("nhw,ehw->ne", m, f), "the sum under the mask"),
        (lambda f, m: torch.einsum("nhw,ehw->ne", m, f) / 20, "divided by all places"),
        (lambda f, m: torch.einsum("nhw,ehw->ne", m, f) / m.sum((1, 2))[:, None], "0 / 0"),
        (
            lambda f, m: torch.einsum("nhw,ehw->ne", m, f) / (m > 0).sum((1, 2)).clamp_min(1)[:, None],
            "weights between 0 and 1",
        ),
    ],
    "07_2.mean_iou": [
        (lambda c: 100 * c.diag().sum() / c.sum(), "pixel accuracy"),
        (lambda c: 100 * (c.diag() / c.sum(1))[c.sum(1) > 0].mean(), "mean accuracy by class"),
        (lambda c: 100 * (c.diag() / (c.sum(1) + c.sum(0)))[c.sum(1) > 0].mean(), "both hold the intersection"),
        (lambda c: 100 * (c.diag() / (c.sum(1) + c.sum(0) - c.diag())).mean(), "0 / 0"),
        (lambda c: 100 * (c.diag() / (c.sum(1) + c.sum(0) - c.diag()).clamp_min(1)).mean(), "counted as 0"),
        (lambda c: segmentation.mean_iou(c) / 100, "in percent"),
    ],
    "07_2.pseudo": [
        (lambda m, g, u: torch.where(m == -2, g.argmax(0), m), "seen classes won"),
        (lambda m, g, u: torch.where(m == -2, g[u].argmax(0), m), "the place within the list"),
        (lambda m, g, u: torch.where(m < 0, torch.tensor(u)[g[u].argmax(0)], m), "pixels of no class"),
        (lambda m, g, u: torch.tensor(u)[g[u].argmax(0)], "granted was changed"),
    ],
    "07_2.snapped": [
        (lambda s, r: s.mean((1, 2), keepdim=True).expand_as(s), "one mean for the whole image"),
        (lambda s, r: s, "as they were"),
        (lambda s, r: by_region(s, r, lambda part: part.amax(1, keepdim=True)), "the largest score"),
    ],
    "07_2b.descriptor": [
        (lambda g, t: torch.cat([t.expand(len(g), -1, -1), g[:, None] * t], -1), "the other order"),
        (lambda g, t: torch.cat([g[:, None] * t, g[:, None].expand(-1, len(t), -1)], -1), "should be the word"),
        (lambda g, t: torch.cat([(g[:, None] + 0 * t), (0 * g[:, None] + t)], -1), "not multiplied"),
    ],
    "07_2b.film": [
        (lambda x, c, mul, add: one_stage.film(x, c, add, mul), "exchanged"),
        (lambda x, c, mul, add: (x + (c @ add.T)[:, None]) * (c @ mul.T)[:, None], "added before"),
        (lambda x, c, mul, add: x + one_stage.film(x, c, mul, add), "one too many"),
    ],
    "07_2b.calibrated": [
        (lambda s, seen, offset: s.argmax(1), "nothing changed"),
        (lambda s, seen, offset: one_stage.calibrated(s, seen, -offset), "the other way round"),
        (lambda s, seen, offset: one_stage.calibrated(s, torch.tensor([1, 4]), offset), "the other way round"),
        (lambda s, seen, offset: s.index_fill_(1, seen, -9.0).argmax(1), "were changed"),
    ],
    "07_3.target": [
        (lambda f, present, ground, s, k: (s * present @ f).softmax(0)[k], "names of the label alone"),
        (lambda f, present, ground, s, k: weak_supervision.target(f, present, ground, 1.0, k), "the factor in front"),
        (lambda f, present, ground, s, k: s * present[k] @ f, "the plain logit"),
        (lambda f, present, ground, s, k: present[k] @ f, "the plain cosine"),
    ],
    "07_3.cam": [
        (lambda a, g: weak_supervision.cam(a * g, torch.ones_like(g)), "its own gradient"),
        (lambda a, g: F.relu((g.mean((1, 2), keepdim=True) * a).sum(0)), "not scaled"),
        (lambda a, g: scaled_map((g.mean((1, 2), keepdim=True) * a).sum(0)), "cut negative values"),
    ],
    "07_3.affinity": [
        (lambda a, rounds: weak_supervision.affinity(a, 1), "one round only"),
        (lambda a, rounds: weak_supervision.affinity(a.T, rounds), "rows first"),
        (lambda a, rounds: (lambda b: b @ b)(balanced(a, rounds)), "not symmetric"),
        (lambda a, rounds: (balanced(a, rounds) + balanced(a, rounds).T) / 2, "one step only"),
        (lambda a, rounds: ((balanced(a, rounds) + balanced(a, rounds).T) / 2) ** 2, "entries were squared"),
        (lambda a, rounds: weak_supervision.affinity(a.div_(2), rounds), "was changed"),
    ],
    "07_3.clims": [
        (lambda o, b, g, area, h: -weak_supervision.clims(o, b, g, area, h), "the sign"),
        (lambda o, b, g, area, h: weak_supervision.clims(o, b, g, 0 * area, h), "the area term"),
        (lambda o, b, g, area, h: weak_supervision.clims(o, 1 - b, g, area, h), "should *not*"),
        (lambda o, b, g, area, h: clims_with(o, b, -(1 - g).log().sum(), area, h), "only cosines above"),
        (lambda o, b, g, area, h: clims_with(o, b, -(1 - g[g > 0.26]).log().mean(), area, h), "not a mean"),
    ],
    "07_2a.matched": [
        ((0, 0, 2), "every query's favourite"),
        ((0, 1, 2), "greedy"),
        ((2, 2, 1), "taken twice"),
        ((2, 1, 0), "the sum is 20"),
        ((0, 1, 3), "three segments"),
        ([1, 0], "three numbers"),
    ],
    "07_2a.fused": [
        (lambda p, q, seen, w: masks_first.fused(p, q, ~seen, w), "wrong group"),
        (lambda p, q, seen, w: p**w * q ** (1 - w), "exponents of the seen ones"),
        (
            lambda p, q, seen, w: torch.where(seen, w, 1 - w) * p + torch.where(seen, 1 - w, w) * q,
            "a weighted sum",
        ),
    ],
    "07_2a.averaged": [
        (lambda q, seen: masks_first.averaged(q, ~seen), "the unseen entries"),
        (lambda q, seen: torch.where(seen, q.mean(-1, keepdim=True), q), "over all classes"),
        (lambda q, seen: torch.where(seen, q[:, seen].mean(), q), "one mean for all segments"),
        (lambda q, seen: torch.where(seen, q[:, seen].sum(-1, keepdim=True), q), "the sum of the seen"),
        (lambda q, seen: q.masked_fill_(seen, 0.1), "was changed"),
    ],
    "07_2c.counted": [
        (lambda s, t: F.cross_entropy(s, t.clamp_min(0)), "were taught class 0"),
        (lambda s, t: (F.cross_entropy(s, t.clamp_min(0), reduction="none") * (t >= 0)).mean(), "divided by all"),
        (lambda s, t: F.cross_entropy(s, t, ignore_index=-1, reduction="sum"), "the sum"),
    ],
    "07_2c.right": [
        (lambda labels, truth, granted: 100 * (labels == truth).float().mean(), "granted pixels"),
        (lambda labels, truth, granted: (labels == truth)[granted == -2].float().mean(), "give percent"),
        (lambda labels, truth, granted: 100 * (labels != truth)[granted == -2].float().mean(), "wrong labels"),
    ],
    "07_2c.flipped": [
        (lambda a, b: (a + b) / 2, "not turned back"),
        (lambda a, b: (a + b.flip(-2)) / 2, "upside down"),
        (lambda a, b: a + b.flip(-1), "the sum"),
    ],
    "08_1.slope": [
        (lambda x, y: pretraining_scale.slope(x, y) / 2.302585, "points per factor e"),
        (lambda x, y: pretraining_scale.slope(x, y) * 0.30103, "points per doubling"),
        (lambda x, y: (y[x.argmax()] - y[x.argmin()]) / torch.log10(x.max() / x.min()), "least squares over all"),
    ],
    "08_1.controlled": [
        (lambda r, v, f: [(j, i) for i, j in pretraining_scale.controlled(r, v, f)], "less of `varied` comes first"),
        (lambda r, v, f: [(i, j) for i in r.index for j in r.index if r.at[i, v] < r.at[j, v]], "not equal but for seen"),
        (lambda r, v, f: pretraining_scale.controlled(r, v, f)[:1], "a pair is missing"),
        (lambda r, v, f: 5, "a list of pairs"),
    ],
    "08_1.saturates": [
        (lambda x, y, t: float(y.mean() + pretraining_scale.slope(x, y) * (math.log10(t) - x.log10().mean())), "flatter"),
        (lambda x, y, t: float(y[-1]), "the last two of"),
    ],
    "08_1.filter": [(lambda g, s: s / g, "turned round"), (lambda g, s: 10 ** (g / s), "factor of data")],
    "08_2.all_from_parts": [
        (lambda b, n: (b + n) / 2, "equally many classes"),
        (lambda b, n: 2 * b * n / (b + n), "harmonic mean"),
        (lambda b, n: (17 * b + 48 * n) / 65, "interchanged"),
    ],
    "08_2.odd_cell": [
        (lambda r, i, c: -transfer_figures.odd_cell(r, i, c), "the sign"),
        (lambda r, i, c: r[i, c] - r[torch.arange(len(r)) != i, c].mean(), "ignores how good the row is"),
    ],
    "08_2.shots_equal": [
        (lambda s, c, level: 6.0, "interpolate log2"),
        (lambda s, c, level: 8.0, "one of the measured"),
        (lambda s, c, level: 5.0, "meets 63 elsewhere"),
    ],
    "08_2.same_protocol": [
        (lambda r: False, "your filter refuses them"),
        (lambda r: True, "differ in protocol were let through"),
        (lambda r: "yes", "True or False is wanted"),
    ],
    "08_3.weights": [(lambda parts, whole: torch.full((3,), 1 / 3), "equally many classes")],
    "08_3.one_scale": [
        (lambda m, r, e: (m * r, m * e), "so divide"),
        (lambda m, r, e: (m / r, m * e), "relative error"),
        (lambda m, r, e: m / r, "two tensors are wanted"),
    ],
    "08_3.credit": [
        (lambda rows: [(j, i) for i, j in distillation_figures.credit(rows)], "comes first"),
        (lambda rows: [*distillation_figures.credit(rows), (0, 3)], "not one ingredient more"),
        (lambda rows: distillation_figures.credit(rows)[:2], "a pair is missing"),
        (lambda rows: 5, "a list of pairs"),
    ],
    "06_5.encodings": [(1000, "every sentence"), (200_000_000, "once per test image"), (20, "classes times sentences")],
}  # fmt: skip


def test_every_exercise_has_mistakes_to_be_tried():
    assert MISTAKES.keys() == EVERY.keys()


@pytest.mark.parametrize(("key", "answer", "message"), [(k, *m) for k, many in MISTAKES.items() for m in many])
def test_a_usual_mistake_gets_a_message_that_helps(key, answer, message):
    feedback = check(key, answer)
    assert feedback.state == "wrong" and message in feedback.message, feedback.message


def test_checks_leave_the_random_numbers_of_the_chapter_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    for key, one in EVERY.items():
        check(key, one.solution)
    assert torch.equal(before, torch.get_rng_state())


def test_the_solutions_are_what_the_systems_compute():
    """A solution must not drift from the package."""
    from vlmlab.learning.evaluate import harmonic_mean
    from vlmlab.methods.adapter.tip_adapter import TipAdapter

    class Cache:
        keys, values = F.normalize(torch.randn(12, 8), dim=-1), torch.eye(4).repeat(3, 1)

    f = F.normalize(torch.randn(5, 8), dim=-1)
    torch.testing.assert_close(feature_adapters.vote(f, Cache.keys, Cache.values, 2.0), TipAdapter.vote(Cache, f, 2.0))
    assert text_prompts.harmonic_mean(82.69, 63.22) == harmonic_mean(82.69, 63.22) == pytest.approx(71.66, abs=0.01)
    texts = start_here._Texts()
    features = texts.encode_text(["a cat", "the cat", "a dog", "the dog"]).unflatten(0, (2, 2))
    expected = start_here.ensemble(features)
    shown = {"a {}": [features[0, 0], features[1, 0]], "the {}": [features[0, 1], features[1, 1]]}
    by_hand = [sum(F.normalize(rows[c], dim=0) for rows in shown.values()) / 2 for c in range(2)]
    torch.testing.assert_close(expected, F.normalize(torch.stack(by_hand), dim=-1))


def test_the_solutions_of_prompted_images_are_what_the_systems_compute():
    from vlmlab.methods.retrieval import Store, interpolated

    keys, labels = visual_prompts._stored()
    store = Store(keys, labels, 3)
    found = store.nearest(store.keys, 8, 4.0, own=torch.arange(9))
    torch.testing.assert_close(visual_prompts.votes(keys, labels, 3, 4.0), store.probabilities(found))
    logits, votes = torch.randn(9, 3), store.probabilities(found)
    torch.testing.assert_close(visual_prompts.mixed(logits, votes, 0.3), interpolated(logits, votes, 0.3).exp())
    assert visual_prompts.count(30, 224) == 69_840  # VP's, of the release
    assert text_visual_prompts.numbers(2, 9, 512, 768) == (23_040, 3_555_072)  # MaPLe's, of the release


def test_tokens_are_as_good_as_sentences():
    """As the scratch cell of the chapter has it."""

    def with_tokens(backbone, names, template):
        tokens = backbone.text.tokenize([template.format(name) for name in names])
        with torch.no_grad():
            w = backbone.encode_text(tokens)
        return w / w.norm(dim=-1, keepdim=True)

    assert check("00.classifier", with_tokens).passed
    asked = check(
        "00.classifier", lambda backbone, names, template: backbone.encode_text(backbone.text.tokenize(names))
    )
    assert asked.state == "wrong" and "the template with each name" in asked.message


def test_a_plain_answer_is_shown_as_an_assignment():
    assert EVERY["00.least"].solution_text() == "least = 0.1"
    assert EVERY["06_4.vote"].solution_text().startswith("def vote(f, keys, values, beta):\n    affinity")
    assert isinstance(EVERY["06_4.vote"], Exercise)


def test_numbers_may_come_as_tensors_or_from_numpy():
    assert check("00.least", torch.tensor(0.1)).passed
    assert check("00.least", np.float64(0.1)).passed
