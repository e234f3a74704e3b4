"""A PixelCNN conditioned on a vector (equation 4): dependences, gradients, samples."""

import pytest
import torch
import torch.nn.functional as F
from test_pixelcnn import images, labels_for, network
from test_pixelcnn_causality import assert_sees, expected, influence
from test_sampling_pixelcnn import network as sampled

from models.gated import GatedActivation
from sampling.compiled.pixelcnn import CompiledPixelCNNSampler
from sampling.pixelcnn import CachedPixelCNNSampler, NaivePixelCNNSampler, sample_images
from sampling.random_streams import RandomStreams


@pytest.mark.parametrize("channels", [1, 3])
def test_a_vector_does_not_change_the_receptive_field(channels):
    seen = influence(6, 6, levels=3, channels=channels, hidden_dim=5, out_hidden_dim=7,
                     blocks_num=3, vector=4)
    assert_sees(seen, expected(6, 6, channels, 3), 6, 6)


@pytest.mark.parametrize("blocks_num", [1, 3])
def test_every_entry_of_the_vector_changes_the_logits_of_every_sub_pixel(blocks_num):
    changed = 0
    for seed in range(3):
        model = network(seed, levels=4, channels=3, hidden_dim=7, out_hidden_dim=8,
                        blocks_num=blocks_num, vector=3)
        codes = images(1, 4, 5, model.config).repeat(4, 1, 1, 1)
        logits = model(codes, torch.cat((torch.zeros(1, 3), torch.eye(3))))
        changed = changed + (logits[1:] - logits[:1]).abs().sum(1)
    assert (changed > 1e-9).all()


def test_a_one_hot_vector_equals_a_label():
    """In all logits, and in the gradient of every weight."""
    labelled = network(levels=4, channels=3, hidden_dim=7, blocks_num=3, labels=5)
    projected = network(1, levels=4, channels=3, hidden_dim=7, blocks_num=3, vector=5)
    state = {name: weight.t() if name.endswith("condition.weight") else weight
             for name, weight in labelled.state_dict().items()}
    projected.load_state_dict(state | {"vector_scale": torch.ones(())})
    codes, label = images(6, 4, 5, labelled.config), labels_for(6, labelled.config)
    label_logits = labelled(codes, label)
    vector_logits = projected(codes, F.one_hot(label, 5).float())
    torch.testing.assert_close(vector_logits, label_logits, rtol=1e-12, atol=1e-12)
    for logits in (label_logits, vector_logits):
        F.cross_entropy(logits, codes).backward()
    for (name, ours), theirs in zip(projected.named_parameters(), labelled.parameters(),
                                    strict=True):
        wanted = theirs.grad.t() if name.endswith("condition.weight") else theirs.grad
        torch.testing.assert_close(ours.grad, wanted, rtol=1e-9, atol=1e-12)


def test_each_image_has_its_own_vector():
    model = network(levels=4, channels=3, hidden_dim=7, blocks_num=3, vector=5)
    codes, vectors = images(3, 4, 3, model.config), labels_for(3, model.config)
    alone = torch.cat([model(codes[i:i + 1], vectors[i:i + 1]) for i in range(3)])
    torch.testing.assert_close(model(codes, vectors), alone, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(model(codes, vectors.flip(0)), alone)


def test_vectors_are_scaled():
    model = network(levels=4, hidden_dim=7, blocks_num=3, vector=5)
    codes, vectors = images(3, 4, 3, model.config), labels_for(3, model.config)
    logits = model(codes, vectors)
    model.vector_scale.fill_(0.125)
    assert torch.equal(model(codes, 8 * vectors), logits)
    assert not torch.allclose(model(codes, vectors), logits)


@pytest.mark.parametrize("width", [1, 10, 1000])
def test_initially_a_vector_of_any_width_contributes_as_much_as_a_label(width):
    torch.manual_seed(0)
    projected = GatedActivation(64, 0, width).condition(torch.randn(500, width))
    labelled = GatedActivation(64, 500).condition(torch.arange(500))
    assert projected.std().item() == pytest.approx(labelled.std().item(), rel=0.2)


@pytest.mark.parametrize("channels, blocks_num", [(1, 1), (3, 3)])
def test_all_samplers_draw_the_same_images_for_the_same_vectors(channels, blocks_num):
    model = sampled(gain=3, channels=channels, hidden_dim=9, out_hidden_dim=7,
                    blocks_num=blocks_num, vector=6)
    model.vector_scale.fill_(0.25)
    vectors = 4 * torch.randn(5, 6)

    def draw(sampler, vectors, model=model):
        return sample_images(model, RandomStreams(0, range(5)), vectors, 4, 5, sampler=sampler)

    naive = draw(NaivePixelCNNSampler, vectors)
    assert torch.equal(draw(CachedPixelCNNSampler, vectors), naive)
    assert torch.equal(draw(CompiledPixelCNNSampler, vectors, model.float()), naive)
    assert not torch.equal(draw(CompiledPixelCNNSampler, vectors.flip(0)), naive)
    with pytest.raises(RuntimeError):  # compiled code checks no index
        draw(CompiledPixelCNNSampler, vectors[:, :1])
