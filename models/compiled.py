"""When the networks' layers take their compiled form.

Both networks have a plain form in torch's operations, for all devices and types, and a compiled
form that passes over memory less often, for single precision on a CPU: `compiled_blocks` for
PixelCNN, `compiled_layers` for WaveNet. The compiled form has the gate built in. Set
`enabled = False` to train with another gate.
"""

from typing import Any

import torch

enabled = True
IDLE = 1.25  # the most images of a thread, relative to an equal share, for PixelCNN


def suits(*tensors: torch.Tensor) -> bool:
    """Whether the compiled form computes with tensors of these devices and types."""
    return enabled and all((x.device.type, x.dtype) == ("cpu", torch.float32) for x in tensors)


def suits_blocks(blocks: Any, image: torch.Tensor) -> bool:
    """Whether the compiled form computes an nn.ModuleList of PixelCNN's blocks for images (B, …).

    Each thread computes whole images. Compiled loops call no hooks of modules.
    """
    batch, threads = len(image), torch.get_num_threads()
    return (suits(image, blocks[0].out.weight)
            and 0 < -(-batch // threads) * threads <= IDLE * batch
            and not any(module._forward_hooks or module._forward_pre_hooks
                        for module in blocks.modules()))
