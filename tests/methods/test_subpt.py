import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, golden, noise_images, tiny_backbone
from tests.methods.fakes import Pictures, task
from tests.methods.parity import of_variant, same, same_gradient
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.templates import SETS
from vlmlab.methods.text_prompt.subpt import SubPT, principal_directions

LABELS = torch.arange(8) % 5


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


def prepared(backbone, **settings):
    method = SubPT(backbone, SubPT.configure(backbone, **({"n_ctx": 4, "early": 3, "epochs": 4} | settings)))
    method.prepare(task(CLASSES, support=Pictures([0, 1, 2, 3, 4] * 2)))
    return method


def test_directions_are_those_of_the_official_script():
    numbers = of_variant(golden("subpt"), "pca")
    found = principal_directions(torch.from_numpy(numbers["checkpoints"][1:]).flatten(1), len(numbers["U"]))
    same(found.T @ found, numbers["projector_UtU"])
    same(found @ found.T, torch.eye(len(found)))


@pytest.mark.parametrize("variant", ["subspace_random", "subspace_ctx_init_caltech", "subspace_nfl_lambda2"])
def test_numbers_of_the_official_implementation(variant, backbone):
    numbers, nfl = of_variant(golden("subpt"), variant), "nfl" in variant
    settings = {}
    if nfl:
        settings = {"names": ", ".join(numbers["nfl_classnames"]), "weight": 2.0, "templates": "a photo of a {}."}
    method = prepared(backbone, **settings)
    method.directions = torch.from_numpy(golden("subpt")["pca/U"])
    method.context.data = torch.from_numpy(numbers["param/prompt_learner.ctx"])
    batch = Batch(features=backbone.encode_image(noise_images(32)), labels=LABELS)
    same(method.logits(batch), numbers["out/eval_logits"])
    if nfl:
        same(method.written, numbers["mid/text_features_nfl_reference"])
        same(method.pull(), numbers["out/nfl_loss"])
    loss = method.loss(batch)
    same(loss, numbers["out/loss"])
    loss.backward()
    same_gradient(method.context.grad, numbers["grad_before_projection/prompt_learner.ctx"])
    method.before_step()
    same_gradient(method.context.grad, numbers["grad/prompt_learner.ctx"])


def test_without_weight_decay_the_context_stays_in_the_subspace(backbone):
    method = prepared(backbone, weight_decay=0.0, lr=0.05)
    start = method.context.detach().clone()
    optimizer, schedule = method.optimizer(6)
    batch = Batch(features=backbone.encode_image(noise_images(32)), labels=LABELS)
    for _ in range(6):
        optimizer.zero_grad()
        method.loss(batch).backward()
        method.before_step()
        optimizer.step()
        schedule.step()
    moved = (method.context.detach() - start).flatten()
    inside = method.directions.T @ (method.directions @ moved)
    assert moved.norm() > 1e-4 and (moved - inside).norm() < 1e-4 * moved.norm()


def test_the_first_path_needs_pictures_and_its_length_follows_the_shots(backbone):
    with pytest.raises(VlmlabError, match="at least one shot"):
        SubPT(backbone).prepare(task(CLASSES))
    method = SubPT(backbone)
    for shots, early, rank in ((1, 10, 5), (4, 30, 10), (16, 50, 10)):
        method.shots = shots
        assert (method.early, method.rank) == (early, rank)


@pytest.mark.parametrize("settings", [{"epochs": 1}, {"early": 1}])
def test_a_path_of_one_point_is_refused(settings, backbone):
    with pytest.raises(VlmlabError, match="a path of one point"):
        prepared(backbone, **settings)


@pytest.mark.parametrize("names", ["", "castle, windmill"])
def test_the_first_path_goes_down_the_loss_that_is_learned(names, backbone):
    """The release makes the path of SubPT with NFL from a CoOp with NFL. One batch per epoch; plain SGD, so that the
    first point is start - lr * gradient; without the projection (3)."""
    pictures = Pictures([0, 1, 2, 3, 4] * 2)
    settings = {"lr": 0.5, "momentum": 0.0, "weight_decay": 0.0, "warmup_epochs": 0, "names": names, "weight": 50.0}
    method = prepared(backbone, **settings)
    start = method.context.detach().clone()
    batch = Batch(features=method.encode(pictures), labels=pictures.labels)
    expected = F.cross_entropy(method.logits(batch), pictures.labels)
    if names:
        w = F.normalize(method.others.features(backbone.text, method.context), dim=-1)
        expected = expected + 50 * (1 - F.cosine_similarity(w, method.written).mean())
    (gradient,) = torch.autograd.grad(expected, method.context)
    path = method._early_path(task(CLASSES, support=pictures))
    same((start.flatten() - path[0]) / 0.5, gradient.flatten())
    again = prepared(backbone, **settings)
    assert torch.equal(again.context, start)  # what is learned begins where the path began


def test_named_classes_are_pulled_to_many_sentences_and_the_dataset_s_own(backbone):
    method = prepared(backbone, names="castle")
    expected = backbone.class_embeddings(["castle"], [*SETS["imagenet80"], "a photo of a {}."])
    same(method.written, expected)
