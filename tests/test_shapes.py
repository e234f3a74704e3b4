"""The shapes derived from a configuration equal those of the network built from it."""

import pytest

from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.shapes import embeddings, parameter_shapes, weight_shapes
from models.wavenet import WaveNet, WaveNetConfig
from training.optimization import embedding_weights

CONFIGS = [
    (PixelCNN, PixelCNNConfig(hidden_dim=2, out_hidden_dim=3, blocks_num=1)),
    (PixelCNN, PixelCNNConfig(4, 3, 5, 4, 1, labels=2, position=True)),
    (PixelCNN, PixelCNNConfig(4, 1, 5, 4, 3, labels=2)),
    (PixelCNN, PixelCNNConfig(4, 3, 5, 4, 3, vector=7, position=True)),
    (PixelCNN, PixelCNNConfig(4, 3, 5, 4, 3, labels=2, position=True, embedding=6)),
    (PixelCNN, PixelCNNConfig(9, 3, 5, 4, 2, embedding=2, distribution="logistics", mixtures=3)),
    (WaveNet, WaveNetConfig(4, 3, 2, 1, 1)),
    (WaveNet, WaveNetConfig(4, 3, 2, 2, 2, labels=5, distribution="logistics", mixtures=3)),
    (WaveNet, WaveNetConfig(4, 3, 2, 2, 2, distribution="logistics", mixtures=3, prediction=True)),
    (WaveNet, WaveNetConfig(4, 3, 2, 2, 3, labels=5)),
    (WaveNet, WaveNetConfig(4, 3, 2, 2, 2, labels=5, features=6, hop=9))]


@pytest.mark.parametrize("network, config", CONFIGS)
def test_names_and_shapes_equal_those_of_the_network(network, config):
    model = network(config)
    assert list(weight_shapes(config).items()) == [
        (name, tuple(weight.shape)) for name, weight in model.state_dict().items()]
    assert parameter_shapes(config) == [tuple(one.shape) for one in model.parameters()]
    looked_up = {id(weight) for weight in embedding_weights(model)}
    assert embeddings(config) == {number for number, one in enumerate(model.parameters())
                                  if id(one) in looked_up}
