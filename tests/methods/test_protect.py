import pytest
import torch
import torch.nn.functional as F

from tests.golden.tiny_clip import CLASSES, noise_images, tiny_backbone
from tests.methods.fakes import task
from tests.methods.parity import same
from vlmlab.datasets.hierarchy import Hierarchy
from vlmlab.errors import VlmlabError
from vlmlab.methods.method import Batch
from vlmlab.methods.text_prompt.coop import CoOp
from vlmlab.methods.text_prompt.protect import ProTeCt

TREE = {"all": ["animal", "machine", "oak tree"], "animal": ["tabby cat", "golden retriever"],
        "machine": ["sports car", "airliner"]}  # fmt: skip
LABELS = torch.tensor([0, 1, 2, 2, 3, 4, 0, 0])


@pytest.fixture(scope="module")
def backbone():
    return tiny_backbone("vit")


def prepared(backbone, **settings):
    own = task(CLASSES)
    own.hierarchy = lambda source: Hierarchy(TREE, CLASSES)
    method = ProTeCt(backbone, ProTeCt.configure(backbone, **({"n_ctx": 4} | settings)))
    method.prepare(own)
    return method


def batch():
    return Batch(images=noise_images(32), labels=LABELS)


def asked(method, names):
    """Logits among a list of names, encoded by themselves: what the loss takes columns for."""
    return method.scores(batch(), method.prompts_of(names))


def test_the_node_loss_is_the_mean_over_nodes_of_cross_entropies_among_their_children(backbone):
    method = prepared(backbone)
    every = method.scores(batch(), method.all_prompts)
    expected = [
        F.cross_entropy(asked(method, ["animal", "machine", "oak tree"]), torch.tensor([0, 0, 1, 1, 2, 1, 0, 0])),
        F.cross_entropy(asked(method, ["tabby cat", "golden retriever"])[[0, 1, 6, 7]], torch.tensor([1, 0, 1, 1])),
        F.cross_entropy(asked(method, ["sports car", "airliner"])[[2, 3, 5]], torch.tensor([0, 0, 1])),
    ]
    same(method.node_loss(every, LABELS), (sum(expected) / 3).detach())


def test_a_node_without_a_picture_in_the_batch_does_not_count(backbone):
    method = prepared(backbone)
    some = torch.tensor([0, 1, 6])  # animals only
    every = method.scores(batch(), method.all_prompts)[some]
    root = F.cross_entropy(asked(method, ["animal", "machine", "oak tree"])[some], torch.zeros(3, dtype=torch.long))
    node = F.cross_entropy(asked(method, ["tabby cat", "golden retriever"])[some], torch.tensor([1, 0, 1]))
    same(method.node_loss(every, LABELS[some]), ((root + node) / 2).detach())


def test_the_cut_loss_is_a_cross_entropy_among_the_names_of_the_cut(backbone):
    method = prepared(backbone)
    cut = method.tree.below("all")
    expected = F.cross_entropy(asked(method, list(cut.names)), cut.of_class[LABELS])
    same(method.cut_loss(method.scores(batch(), method.all_prompts), LABELS, cut), expected.detach())


def test_without_nodes_and_cuts_it_is_coop(backbone):
    method = prepared(backbone, drop=0.0, weight=0.0)
    coop = CoOp(backbone, CoOp.configure(backbone, n_ctx=4))
    coop.prepare(task(CLASSES))
    coop.context.data = method.context.data.clone()
    same(method.logits(batch()), coop.logits(batch()).detach())
    same(method.loss(batch()), coop.loss(batch()).detach())


def test_only_the_context_learns(backbone):
    method = prepared(backbone)
    method.loss(batch()).backward()
    assert [n for n, _ in method.named_parameters()] == ["context"] and method.trainable_parameters == 4 * 64
    assert method.context.grad.abs().max() > 0 and all(p.grad is None for p in backbone.parameters())


def test_random_cuts_follow_the_generator_that_a_checkpoint_keeps(backbone):
    method = prepared(backbone, drop=0.5)
    torch.manual_seed(3)
    first = [float(method.loss(batch()).detach()) for _ in range(4)]
    torch.manual_seed(3)
    assert first == [float(method.loss(batch()).detach()) for _ in range(4)] and len(set(first)) > 1


def test_any_names_can_be_asked_and_the_context_stays(backbone):
    method = prepared(backbone)
    before = method.logits(batch()).detach()
    method.set_classes(["animal", "machine"], ["{}"])
    assert method.logits(batch()).shape == (8, 2)
    method.set_classes(CLASSES, ["{}"])
    assert torch.equal(method.logits(batch()), before)


def test_the_release_s_rate_swings_with_a_period_of_two_times_the_epochs(backbone):
    method = prepared(backbone, epochs=10)
    rates = [method.learning_rate(step, 100) for step in range(41)]
    assert rates[0] == 1e-3 and rates[1] == pytest.approx(0.02)
    assert rates[11] == pytest.approx(0, abs=1e-9) and rates[21] == pytest.approx(0.02)
    epoch = prepared(backbone, epochs=10, schedule="epoch", warmup_lr=1e-5)
    assert epoch.learning_rate(5, 100) == 1e-5 and epoch.learning_rate(99, 100) < epoch.learning_rate(50, 100)


def test_a_tree_that_does_not_fit_is_told_before_training(backbone, tmp_path):
    from vlmlab.datasets import Task, load_dataset

    file = tmp_path / "tree.json"
    file.write_text('{"all": ["beach", "bedroom"]}')
    method = ProTeCt(backbone, ProTeCt.configure(backbone, hierarchy=str(file)))
    with pytest.raises(VlmlabError, match=r"class 'city street' .and 7 more. is missing in tree.json"):
        method.prepare(Task(backbone, load_dataset("scenes"), 1))
