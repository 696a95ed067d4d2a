import copy

import pytest
import torch

from tests.learning.conftest import PixelProbe, Probe, ToyTask, coloured
from vlmlab.datasets.multi_task import JointSet
from vlmlab.errors import VlmlabError
from vlmlab.features.bank import FeatureBank
from vlmlab.learning import fit as fitting
from vlmlab.learning.evaluate import evaluate
from vlmlab.learning.fit import fit
from vlmlab.methods.method import Method
from vlmlab.testing.pretended_gpu import pretended_gpu


def test_learning_lowers_the_loss_and_classifies(backbone, task):
    method = Probe(backbone)
    seen = []
    record = fit(method, task, on_step=lambda *step: seen.append(step))
    assert record.steps == len(record.losses) == 20 * (12 // 5) and not record.stopped
    assert seen == [(i + 1, record.steps, loss) for i, loss in enumerate(record.losses)]
    assert sum(record.losses[-5:]) < 0.7 * sum(record.losses[:5])
    assert evaluate(method, task.test)["accuracy"] == 100
    assert method.finished == 1 and record.seconds > 0 and record.peak_mb > 50


def test_the_seed_alone_decides(backbone, task):
    torch.manual_seed(1)
    first = fit(Probe(backbone), task).losses
    state = torch.get_rng_state()
    second = fit(Probe(backbone), task).losses
    assert first == second
    assert torch.equal(torch.get_rng_state(), state), "the caller's generator must be left alone"
    task.seed = 1
    assert fit(Probe(backbone), task).losses != first


def test_features_and_images_give_the_same_learning(backbone, task):
    assert fit(PixelProbe(backbone), task).losses == pytest.approx(fit(Probe(backbone), task).losses, rel=1e-4)


def test_a_small_support_set_is_one_batch(backbone):
    task = ToyTask(coloured(1, 1), coloured(1, 2))
    assert fit(Probe(backbone), task).steps == 20


@pytest.mark.parametrize("system", [Probe, PixelProbe])
def test_views_are_shown_in_turn(backbone, task, system):
    plain, cropped = fit(system(backbone), task), fit(system(backbone), task, views=3)
    assert cropped.losses != plain.losses
    assert fit(system(backbone), task, views=3).losses == cropped.losses


def test_a_system_is_told_that_it_sees_crops(backbone, task):
    class Told(PixelProbe):
        def loss(self, batch):
            self.told = {*getattr(self, "told", ()), batch.cropped}
            return super().loss(batch)

    for views, cropped in ((0, False), (2, True)):
        method = Told(backbone)
        fit(method, task, views=views)
        assert method.told == {cropped}


@pytest.mark.parametrize("system", [Probe, PixelProbe])
@pytest.mark.parametrize("stop_at", [0, 7, 40])
def test_stopped_and_resumed_is_bit_for_bit_the_unbroken_run(backbone, task, tmp_path, system, stop_at):
    unbroken = system(backbone, system.configure(backbone, optimizer="adamw", lr=0.05))
    whole = fit(unbroken, task, views=2)

    asked = iter(range(1000))
    method = system(backbone, system.configure(backbone, optimizer="adamw", lr=0.05))
    part = fit(method, task, should_stop=lambda: next(asked) >= stop_at, checkpoint=tmp_path / "run.pt", views=2)
    assert part.stopped == (stop_at < 40) and part.losses == whole.losses[:stop_at]
    assert method.finished == 1
    evaluate(method, task.test)  # ready for use although it was stopped

    resumed = system(backbone, system.configure(backbone, optimizer="adamw", lr=0.05))
    rest = fit(resumed, task, checkpoint=tmp_path / "run.pt", views=2)
    assert rest.losses == whole.losses and not rest.stopped
    for name, value in unbroken.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_killed_run_goes_on_from_its_last_checkpoint(backbone, task, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "SAVE_EVERY", 0.0)
    whole = fit(Probe(backbone), task)

    def kill(step, steps, loss):
        if step == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Probe(backbone), task, on_step=kill, checkpoint=tmp_path / "run.pt")
    steps = []
    resumed = fit(Probe(backbone), task, on_step=lambda s, n, loss: steps.append(s), checkpoint=tmp_path / "run.pt")
    assert resumed.losses == whole.losses
    assert steps[0] == 11, "the ten steps before the last checkpoint must not be computed again"
    again = fit(Probe(backbone), task, checkpoint=tmp_path / "run.pt")  # nothing is left to do
    assert again.seconds > resumed.seconds and again.cpu_seconds > resumed.cpu_seconds, "what the steps cost is kept"


def test_another_run_s_checkpoint_is_refused(backbone, task, tmp_path):
    fit(Probe(backbone), task, checkpoint=tmp_path / "run.pt")
    task.seed = 3
    with pytest.raises(VlmlabError, match="belongs to another run"):
        fit(Probe(backbone), task, checkpoint=tmp_path / "run.pt")
    task.seed = 0
    kept, task.support = task.support, task.support.relabelled(task.support.labels.flip(0))
    with pytest.raises(VlmlabError, match="belongs to another run"):  # the same images, other labels
        fit(Probe(backbone), task, checkpoint=tmp_path / "run.pt")
    task.support = kept
    (tmp_path / "run.pt").write_bytes(b"no checkpoint")
    with pytest.raises(VlmlabError, match="is not a checkpoint"):
        fit(Probe(backbone), task, checkpoint=tmp_path / "run.pt")


def test_divergence_is_told_in_one_line(backbone, task):
    method = Probe(backbone, Probe.configure(backbone, lr=1e9, weight_decay=1.0))
    with pytest.raises(VlmlabError, match=r"probe diverged.*smaller learning rate"):
        fit(method, task)


def test_a_system_that_learns_nothing_is_only_prepared(backbone, task):
    class Still(Method):
        info = Probe.info

    method = Still(backbone)
    record = fit(method, task)
    assert record.losses == [] and record.steps == 0 and method.classes == task.classes


def test_learning_without_pictures_is_refused(backbone):
    with pytest.raises(VlmlabError, match="at least one shot"):
        fit(Probe(backbone), ToyTask(coloured(0, 1), coloured(1, 2)))


def test_a_system_may_change_gradients_before_every_step_and_choose_its_pictures(backbone, task):
    class Halving(Probe):
        info, changed = Probe.info, 0

        def learns_from(self, task):
            return task.support.subset([0, 1, 4, 5])

        def before_step(self):
            self.changed += 1
            for parameter in self.parameters():
                parameter.grad.zero_()

    method = Halving(backbone, Halving.configure(backbone, weight_decay=0.0))
    start = {}
    record = fit(method, task, on_step=lambda *a: start.setdefault("first", parts(method)))
    assert method.changed == record.steps > 1
    assert all(torch.equal(v, start["first"][k]) for k, v in method.state_dict().items())


class TwoStages(Probe):
    """Learns from images of two tasks at once, then from those of the first alone."""

    info = Probe.info

    def prepare(self, task) -> None:
        super().prepare(task)
        self.seen = []

    def stages(self, task):
        return [JointSet({1: task.support, 3: coloured(2, seed=5)}), task.support]

    def loss(self, batch):
        self.seen.append((batch.index, batch.tasks, batch.labels))
        return super().loss(batch)


def test_stages_follow_each_other_and_batches_name_their_tasks(backbone, task):
    method = TwoStages(backbone)
    rates = []
    record = fit(method, task, on_step=lambda step, steps, loss: rates.append((step, steps)))
    first, second = 20 * (18 // 5), 20 * (12 // 5)
    assert record.steps == len(record.losses) == first + second and rates[-1] == (first + second, first + second)
    joint = method.stages(task)[0]
    for index, tasks, labels in method.seen[:first]:
        assert tasks.tolist() == joint.tasks[index].tolist() and labels.tolist() == joint.labels[index].tolist()
    assert {t for _, tasks, _ in method.seen[:first] for t in tasks.tolist()} == {1, 3}
    assert all(tasks is None and index.max() < 12 for index, tasks, _ in method.seen[first:])


def test_every_stage_has_the_whole_schedule(backbone, task, monkeypatch):
    method, asked = TwoStages(backbone), []
    whole = method.optimizer
    monkeypatch.setattr(method, "optimizer", lambda steps: asked.append(steps) or whole(steps))
    fit(method, task)
    assert asked[-2:] == [60, 40]  # a new optimiser for either stage


@pytest.mark.parametrize(("most", "passes"), [(0, 20), (1000, 20), (40, 20), (39, 19), (5, 2), (1, 1)])
def test_steps_beyond_the_most_are_left_out_by_whole_passes(backbone, task, most, passes):
    method = Probe(backbone, Probe.Config(epochs=20, most_steps=most, batch_size=5))
    alike = Probe(backbone, Probe.Config(epochs=passes, batch_size=5))
    record = fit(method, task)
    assert record.steps == passes * (12 // 5) and record.losses == fit(alike, task).losses, "schedule and all"


def test_every_stage_has_its_own_most_steps(backbone, task, monkeypatch):
    method = TwoStages(backbone, TwoStages.Config(epochs=20, most_steps=30, batch_size=5))
    assert fit(method, task).steps == 10 * (18 // 5) + 15 * (12 // 5)


@pytest.mark.parametrize("stop_at", [13, 60, 61, 99])
def test_a_run_in_stages_resumes_bit_for_bit(backbone, task, tmp_path, stop_at):
    whole = fit(TwoStages(backbone), task)
    asked = iter(range(1000))
    fit(TwoStages(backbone), task, should_stop=lambda: next(asked) >= stop_at, checkpoint=tmp_path / "run.pt")
    resumed = TwoStages(backbone)
    assert fit(resumed, task, checkpoint=tmp_path / "run.pt").losses == whole.losses
    assert len(resumed.seen) == 100 - stop_at


def parts(method):
    return {k: v.clone() for k, v in method.state_dict().items()}


def test_what_a_system_encodes_itself_is_kept_too(backbone, task, monkeypatch):
    class Means(Probe):
        def prepare(self, task):
            super().prepare(task)
            self.seen = self.encode(task.support)

    calls, encode = [], backbone.encode_image
    monkeypatch.setattr(
        type(backbone), "encode_image", lambda self, images: calls.append(len(images)) or encode(images)
    )
    first, second, alone = Means(backbone), Means(backbone), Means(backbone)
    fit(first, task, bank=FeatureBank(backbone))
    assert sum(calls) == len(task.support), "one pass serves preparation and training"
    fit(second, task, bank=FeatureBank(backbone))  # another process, the same cache on the disk
    assert sum(calls) == len(task.support)
    alone.prepare(task)
    assert torch.equal(first.seen, alone.seen) and torch.equal(second.seen, alone.seen)
    augmented = first.encode(task.support, lambda raw: first.preprocess(raw).flip(-1))
    assert not torch.equal(augmented, first.seen), "what a system augments is always computed"


def test_a_gpu_is_not_waited_for_at_every_step(backbone, task, monkeypatch):
    """Losses are read in groups, and the record has all of them; who watches every step gets every loss."""
    monkeypatch.setattr(fitting, "LOOK_EVERY", 10)
    on_cpu = fit(Probe(backbone), task)
    assert on_cpu.steps == 40
    with pretended_gpu() as gpu:
        there, watched = copy.deepcopy(backbone).to("cuda"), []

        class ThereProbe(Probe):
            def prepare(self, task) -> None:
                super().prepare(task)
                self.head.to("cuda")

        gpu.waits = 0
        record = fit(ThereProbe(there), task)
        assert gpu.waits < record.steps / 2
        fit(ThereProbe(there), task, on_step=lambda done, steps, loss: watched.append(loss))
    assert record.losses == watched == pytest.approx(on_cpu.losses, rel=1e-4)


@pytest.mark.parametrize("at", [3, 25])
def test_on_a_gpu_the_step_that_diverged_is_named_although_it_is_found_later(backbone, task, monkeypatch, tmp_path, at):
    monkeypatch.setattr(fitting, "LOOK_EVERY", 10)

    class Diverging(Probe):
        steps = 0

        def prepare(self, task) -> None:
            super().prepare(task)
            self.head.to("cuda")

        def loss(self, batch):
            self.steps += 1
            return super().loss(batch) / (0 if self.steps == at else 1)

    with pretended_gpu():
        method = Diverging(copy.deepcopy(backbone).to("cuda"))
        with pytest.raises(VlmlabError, match=f"the loss of step {at} is inf"):
            fit(method, task, checkpoint=tmp_path / "run.pt")
    assert at < method.steps < at + 10 and not (tmp_path / "run.pt").exists()
