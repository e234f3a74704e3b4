"""Memory for a network's activations that one training step leaves to the next."""

import torch


class Workspace:
    """A buffer that a training step leaves to the next. Copies and pickles of it are empty."""

    def __init__(self) -> None:
        self._spare: torch.Tensor | None = None

    def __reduce__(self):
        return Workspace, ()

    def take(self, like: torch.Tensor, rows: int, width: int) -> torch.Tensor:
        """An uninitialised tensor (rows, width) of the type and on the device of `like`."""
        spare, self._spare = self._spare, None
        if (spare is None or spare.numel() < rows * width
                or (spare.dtype, spare.device) != (like.dtype, like.device)):
            spare = None  # frees it before the allocation
            spare = like.new_empty(rows * width)
        return spare[:rows * width].view(rows, width)

    def give_back(self, tensor: torch.Tensor) -> None:
        """Keep a tensor from `take` for the next one. Not on CUDA, where torch caches memory."""
        if tensor.device.type == "cpu":
            self._spare = tensor._base
