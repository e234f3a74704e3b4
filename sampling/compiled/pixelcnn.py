"""The compiled PixelCNN sampler: images split over threads, each running the kernels."""

import numpy as np
import torch

from models.pixelcnn import PixelCNN
from sampling.compiled import pixelcnn_kernels as kernels
from sampling.compiled.indices import checked_labels
from sampling.compiled.pixelcnn_weights import pack_pixelcnn
from sampling.compiled.threads import ThreadShards


class CompiledPixelCNNSampler:
    """A sampler for `sampling.pixelcnn.sample_images`, for single precision on the CPU.

    Splits the images over as many threads as torch uses. Threads wait for each other only at the
    end of a row. An image's computation is the same, to the last bit, in any batch.

    codes: (B, C, H, W), where rows will be drawn; those before `first_row` are the prefix. Raises
    IndexError for codes or labels that the network does not have.
    """

    def __init__(self, model: PixelCNN, label: torch.Tensor | None, codes: torch.Tensor,
                 first_row: int) -> None:
        vectors, labels = None, checked_labels(label, codes.numpy(), model.config)
        if model.config.vector:
            # Each distinct vector is a label of the kernels.
            scaled = model.scale_vectors(label)
            assert scaled is not None  # since the network is conditioned on vectors
            scaled = scaled.reshape(len(codes), model.config.vector)
            vectors, numbers = torch.unique(scaled, dim=0, return_inverse=True)
            labels = numbers.numpy()
        height, width = codes.shape[2:]
        self.weights = pack_pixelcnn(model, height, width, vectors)
        self.shards = ThreadShards(len(codes))
        self.states = [kernels.init_state(self.weights, codes.numpy()[part], labels[part])
                       for part in self.shards.slices]
        kernels.cache.prepare("PixelCNN sampler", self._load_kernels)
        self.shards.run(lambda state: self._read_rows(state, first_row), self.states)

    def draw_row(self, row: int, uniforms: torch.Tensor, temperature: float, top_p: float) -> None:
        """Draw a row of codes from uniform random numbers (B, W, C)."""
        def draw_shard(state, uniforms):
            kernels.draw_row(self.weights, state, row, uniforms, float(temperature), float(top_p))

        self.shards.run(draw_shard, self.states, uniforms.numpy())

    def _load_kernels(self) -> None:
        """Call each kernel for images of no width, which compiles or loads it."""
        state = self.states[0]._replace(codes=self.states[0].codes[..., :0])
        self._read_rows(state, 1)
        kernels.draw_row(self.weights, state, 0, np.zeros((1, 0, 1)), 1.0, 1.0)

    def _read_rows(self, state: kernels.PixelCNNState, rows: int) -> None:
        """Read the first rows of the codes."""
        for row in range(rows):
            kernels.read_row(self.weights, state, row)
