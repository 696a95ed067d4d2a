"""Images, boxes and masks go into the network's input and come back where they were."""

import numpy as np
import pytest
import torch
from PIL import Image

from vlmlab.datasets.truth import NOTHING, Truth
from vlmlab.geometry import Frame

FRAMES = [Frame.letterbox((40, 100), 64), Frame.letterbox((90, 31), 64), Frame.letterbox((1, 1), 64)]
FRAMES += [Frame.letterbox((300, 200), 32), Frame.centre_crop((64, 64), 64)]


@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_boxes_come_back(frame):
    height, width = frame.image
    boxes = torch.tensor([[0.0, 0, width, height], [0.25 * width, 0.5 * height, 0.5 * width, 0.75 * height]])
    there = frame.boxes(boxes)
    assert (there >= 0).all() and (there <= frame.side).all()
    torch.testing.assert_close(frame.boxes_back(there), boxes, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("frame", FRAMES, ids=str)
def test_a_mask_lies_where_its_box_lies(frame):
    height, width = frame.image
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, height // 4 : height // 4 + max(1, height // 2), width // 3 : width // 3 + max(1, width // 2)] = True
    ys, xs = mask[0].nonzero().unbind(1)
    x0, y0, x1, y1 = frame.boxes(torch.tensor([[xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]]).float())[0]
    there = frame.masks(mask)
    ys, xs = there[0].nonzero().unbind(1)
    found = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()
    torch.testing.assert_close(found, torch.stack([x0, y0, x1, y1]), atol=1.0, rtol=0)
    back = frame.masks_back(there)
    assert back.shape == mask.shape
    grain = max(1, 1 / min(frame.scale))
    assert (back != mask).sum() <= 4 * grain * (height + width)


def test_numbers_come_back_with_a_number_of_their_own_for_what_is_not_shown():
    frame = Frame.centre_crop((4, 8), 4)
    back = frame.masks_back(torch.arange(16).reshape(1, 4, 4), -1)[0]
    assert back[0].tolist() == [-1, -1, 0, 1, 2, 3, -1, -1] and back[3, 2:6].tolist() == [12, 13, 14, 15]


def test_pixels_and_maps_agree_with_boxes():
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[10:30, 20:60] = 255
    frame = Frame.letterbox((40, 100), 50)
    given = frame.pixels(picture, (9, 9, 9))
    assert given.shape == (50, 50, 3)
    assert (given[0] == 9).all() and (given[-1] == 9).all()  # the bars
    x0, y0, x1, y1 = frame.boxes(torch.tensor([[20.0, 10, 60, 30]]))[0].int().tolist()
    assert given[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].min() > 240
    bright = frame.map_back(torch.from_numpy(given[..., 0].copy()).float()[None])
    assert bright.shape == (1, 40, 100)
    assert bright[0, 14:26, 26:54].min() > 200 and bright[0, :5].max() < 60


def test_a_centre_crop_is_that_of_clip_s_evaluation():
    from torchvision.transforms import v2

    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (48, 70, 3), dtype=np.uint8)
    theirs = v2.Compose([v2.Resize(32, v2.InterpolationMode.BICUBIC), v2.CenterCrop(32)])(Image.fromarray(picture))
    ours = Frame.centre_crop((48, 70), 32).pixels(picture, (0, 0, 0))
    assert np.abs(np.asarray(theirs).astype(int) - ours).mean() < 2


def test_what_lies_outside_is_nothing():
    frame = Frame.letterbox((20, 40), 40)
    semantic = np.full((20, 40), 3, np.int16)
    truth = frame.truth(Truth(np.array([[0, 0, 10, 10]], np.float32), np.array([3]), None, semantic))
    assert (truth.semantic[:10] == NOTHING).all() and (truth.semantic[10:30] == 3).all()
    assert truth.boxes.tolist() == [[0, 10, 10, 20]]


def test_objects_that_the_crop_cuts_off_are_left_out():
    frame = Frame.centre_crop((20, 40), 20)
    truth = frame.truth(Truth(np.array([[0, 0, 8, 8], [15, 5, 25, 15]], np.float32), np.array([0, 1])))
    assert truth.labels.tolist() == [1] and truth.boxes.tolist() == [[5, 5, 15, 15]]
