"""The pretended GPU refuses what a real one refuses, and allows what it allows."""

import io
import threading

import pytest
import torch
from torch import nn

from vlmlab.devices import sent
from vlmlab.testing.pretended_gpu import GPU, Mixed, pretended_gpu


@pytest.fixture
def gpu():
    with pretended_gpu() as gpu:
        yield gpu


def test_tensors_say_where_they_live(gpu):
    made = [
        torch.zeros(2, device="cuda"),
        torch.tensor([1.0], device="cuda"),
        torch.ones(3).to("cuda"),
        torch.ones(3).cuda(),
    ]
    for tensor in made:
        assert tensor.device == GPU and tensor.is_cuda and (tensor + 1).device == GPU
        assert tensor.cpu().device.type == "cpu"
    assert torch.zeros(2).device.type == "cpu"


@pytest.mark.parametrize(
    "mix",
    [
        lambda there, here: there + here,
        lambda there, here: torch.cat([there, here]),
        lambda there, here: there @ here,
        lambda there, here: here[there.long()],  # GPU indices for a CPU tensor, what ProDA once did
        lambda there, here: there.add_(here),
        lambda there, here: there.numpy(),
        lambda there, here: nn.Linear(4, 4)(there),
    ],
)
def test_mixing_is_refused(gpu, mix):
    with pytest.raises(Mixed):
        mix(torch.ones(4, device="cuda"), torch.ones(4))


def test_what_cuda_allows_is_allowed(gpu):
    there = torch.arange(4.0, device="cuda")
    assert (there * torch.tensor(2.0)).tolist() == [0, 2, 4, 6]  # a 0-d tensor of the CPU
    assert there[torch.tensor([1, 3])].tolist() == [1, 3]  # indices of the CPU
    there.copy_(torch.ones(4))
    assert there.tolist() == [1, 1, 1, 1]
    here = torch.zeros(4)
    here.copy_(there)
    assert here.tolist() == [1, 1, 1, 1]


def test_learning_gives_the_numbers_of_the_cpu(gpu):
    def learned(device: str) -> list:
        layer = nn.Linear(3, 2)
        with torch.no_grad():
            layer.weight.copy_(torch.arange(6.0).view(2, 3))
            layer.bias.zero_()
        layer = layer.to(device)
        optimizer = torch.optim.AdamW(layer.parameters(), 0.1)
        x = torch.linspace(-1, 1, 12).view(4, 3).to(device)
        for _ in range(5):
            optimizer.zero_grad()
            layer(x).square().mean().backward()
            optimizer.step()
        assert {p.device.type for p in layer.parameters()} == {device}
        return layer.weight.tolist()

    assert learned("cuda") == learned("cpu")


def test_data_can_be_set_to_data_of_the_gpu(gpu):
    weight = nn.Parameter(torch.zeros(2, device="cuda"))
    weight.data = torch.ones(2, device="cuda")
    assert weight.tolist() == [1, 1] and weight.requires_grad
    with pytest.raises(Mixed):
        weight.data = torch.ones(2)


def test_gradients_cross_between_the_devices(gpu):
    here = torch.ones(3, requires_grad=True)
    (2 * here.to("cuda")).sum().cpu().backward()
    assert here.grad.device.type == "cpu" and here.grad.tolist() == [2, 2, 2]


def test_saved_tensors_come_back_on_the_cpu(gpu):
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(2, device="cuda")}, buffer)
    buffer.seek(0)
    assert torch.load(buffer, "cpu", weights_only=True)["weight"].device.type == "cpu"


def test_waits_are_counted(gpu):
    loss = torch.ones(3, device="cuda").sum()
    assert gpu.waits == 0
    float(loss)
    loss.cpu()
    loss.tolist()
    bool(loss > 0)
    assert gpu.waits == 4


def test_what_is_sent_to_a_gpu_is_pinned_first(gpu):
    images = torch.arange(6.0)
    there = sent(images, "cuda")
    assert there.device == GPU and there.tolist() == images.tolist() and gpu.pinned == 1
    assert sent(there, "cuda") is there and sent(images, "cpu") is images and gpu.pinned == 1
    weight = torch.ones(2, requires_grad=True)
    sent(weight, "cuda").sum().backward()
    assert weight.grad.tolist() == [1, 1] and gpu.pinned == 1, "what learns is not copied on the way"
    with pytest.raises(Mixed):
        there.pin_memory()


def test_autocast_is_noted(gpu):
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=False):
        pass
    assert gpu.autocast == set()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        pass
    assert gpu.autocast == {torch.bfloat16}


def test_threads_that_start_meanwhile_have_it_too(gpu):
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.zeros(1, device="cuda").device))
    thread.start()
    thread.join()
    assert found == [GPU]


def test_nothing_is_left_behind():
    before = torch.autocast, threading.Thread.run, torch.cuda._lazy_init
    with pretended_gpu():
        pass
    assert (torch.autocast, threading.Thread.run, torch.cuda._lazy_init) == before
    assert torch.ones(1).device.type == "cpu"
