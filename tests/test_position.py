"""The condition on a pixel's position."""

import pytest
import torch
from test_pixelcnn import network

from models.position import Position


def test_a_part_of_an_image_has_the_positions_of_the_whole():
    torch.manual_seed(0)
    position = Position(6).double()
    whole = position(0, 9, 7)
    assert whole.shape == (9, 7, 6)
    assert torch.equal(position(4, 3, 7), whole[4:7])
    assert torch.equal(position(0, 2, 5), whole[:2, :5])


def test_all_positions_differ():
    torch.manual_seed(0)
    positions = Position(8).double()(0, 40, 40).flatten(0, 1)
    distances = torch.cdist(positions, positions) + torch.eye(len(positions))
    assert distances.min() > 1e-3


@pytest.mark.parametrize("position", [False, True])
def test_only_with_position_logits_vary_inside_a_constant_image(position):
    model = network(levels=4, hidden_dim=8, out_hidden_dim=8, blocks_num=3, position=position)
    with torch.no_grad():
        logits = model(torch.zeros(1, 1, 24, 24, dtype=torch.long))
    inner = logits[0, :, 0, 6:-6, 6:-6]  # receptive fields of 5 rows and columns inside the image
    assert (inner.flatten(1).std(1).max() > 1e-3) == position
