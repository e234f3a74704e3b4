"""Label embeddings: where they are found, the plot, and the projector's files."""

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from PIL import Image
from tensorboard.plugins.projector import ProjectorConfig
from test_trainer import trainer_of

from models.pixelcnn import PixelCNN, PixelCNNConfig
from models.wavenet import WaveNet, WaveNetConfig
from training.extensions.label_embeddings import (
    LabelEmbeddings,
    embeddings_of,
    figure_of,
    principal_plane,
)
from training.extensions.tensorboard import Board
from training.stopping import StopCondition


@pytest.mark.parametrize("model, channels", [
    (WaveNet(WaveNetConfig(16, 4, 5, 1, 3, labels=6)), 3 * 2 * 4),
    # A PixelCNN's vertical stack has no gate in the last block.
    (PixelCNN(PixelCNNConfig(4, 1, 4, 5, 3, labels=6)), (3 + 2) * 2 * 4)])
def test_a_row_holds_everything_that_depends_on_the_label(model, channels):
    rows = embeddings_of(model)
    assert rows.shape == (6, channels)
    own = [part.weight for part in model.modules() if isinstance(part, torch.nn.Embedding)
           and part.num_embeddings == 6]
    assert np.array_equal(rows, torch.cat(own, dim=1).detach().numpy())


def test_the_projectors_files_are_what_tensorboard_reads(tmp_path):
    trainer, names = trainer_of(StopCondition(epoch=2)), ["two\twords", "and a\nline, ünï"]
    trainer.extend(LabelEmbeddings(tmp_path, Board(tmp_path), names))
    trainer.run()
    folder = tmp_path / "tensorboard"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding, ) = config.embeddings
    tensors = np.loadtxt(folder / embedding.tensor_path, delimiter="\t")
    np.testing.assert_allclose(tensors, embeddings_of(trainer.model), atol=1e-6)
    metadata = (folder / embedding.metadata_path).read_text(encoding="utf-8")
    assert metadata == "two words\nand a line, ünï\n"
    with Image.open(tmp_path / "embeddings.png") as picture:
        assert picture.width > 500


def test_the_plane_has_the_largest_variance():
    generator = np.random.default_rng(0)
    axes, _ = np.linalg.qr(generator.normal(size=(7, 7)))
    spread = generator.normal(size=(9, 3)) * (5, 2, 1)
    spread -= spread.mean(0)
    points, share = principal_plane((spread @ axes[:3] + 4).astype(np.float32))
    between = np.linalg.norm(points[:, None] - points[None], axis=-1)
    others = np.linalg.norm(spread[:, None] - spread[None], axis=-1)
    assert (between <= others + 1e-4).all() and np.corrcoef(between.flat, others.flat)[0, 1] > 0.95
    total = (spread ** 2).sum()
    values = np.linalg.svd(spread, compute_uv=False) ** 2
    assert share == pytest.approx(values[:2].sum() / total, rel=1e-5)


def test_equal_embeddings_are_drawn():
    points, share = principal_plane(np.ones((3, 8), np.float32))
    assert not points.any() and share == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count, named", [(2, 2), (60, 60), (61, 0)])
def test_points_are_named_while_the_names_are_legible(count, named):
    rows = np.random.default_rng(1).normal(size=(count, 12)).astype(np.float32)
    figure = figure_of(rows, [f"$label_{n}" for n in range(count)])
    figure.canvas.draw()
    assert len(figure.axes[0].texts) == named
    assert f"embeddings of {count} labels" in figure.axes[0].get_title()
