"""Being told where in the picture a pixel is."""

import pytest
import torch
from test_pixelcnn import network

from models.position import Position


def test_a_part_of_a_picture_is_told_what_the_whole_one_is():
    torch.manual_seed(0)
    position = Position(6).double()
    whole = position(0, 9, 7)
    assert whole.shape == (9, 7, 6)
    assert torch.equal(position(4, 3, 7), whole[4:7])
    assert torch.equal(position(0, 2, 5), whole[:2, :5])


def test_no_two_places_are_told_the_same():
    torch.manual_seed(0)
    places = Position(8).double()(0, 40, 40).flatten(0, 1)
    apart = torch.cdist(places, places) + torch.eye(len(places))
    assert apart.min() > 1e-3


@pytest.mark.parametrize("position", [False, True])
def test_of_an_even_picture_the_network_tells_places_apart_that_are_far_from_its_edges(position):
    model = network(levels=4, hidden_dim=8, out_hidden_dim=8, blocks_num=3, position=position)
    with torch.no_grad():
        logits = model(torch.zeros(1, 1, 24, 24, dtype=torch.long))
    inner = logits[0, :, 0, 6:-6, 6:-6]  # whose field of 5 rows and columns is inside
    assert (inner.flatten(1).std(1).max() > 1e-3) == position
