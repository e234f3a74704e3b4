"""When the networks' layers take their compiled form.

Both networks have a plain form in torch's operations, for all devices and types, and a compiled
form that passes over memory less often, for single precision on a CPU: `compiled_blocks` for
PixelCNN, `compiled_layers` for WaveNet. The compiled form has the gate built in. Set
`enabled = False` to train with another gate.
"""

import torch

enabled = True


def suits(*tensors: torch.Tensor) -> bool:
    """Whether the compiled form computes with tensors of these devices and types."""
    return enabled and all((x.device.type, x.dtype) == ("cpu", torch.float32) for x in tensors)
