"""Derive the names and shapes of a network's weights from its configuration, without building it.

So a model file can be checked before it takes any memory. (torch's meta device could do the same,
but its first use imports modules for seconds.)
"""

from models.code_numbers import NUMBERS
from models.distributions import output_distribution
from models.local_conditioning import CONTEXT_FRAMES, INTERPOLATION_TAPS
from models.pixelcnn import FIRST_KERNEL, KERNEL, PixelCNNConfig
from models.position import WAVELENGTHS
from models.wavenet import WaveNetConfig

# In the state of a network, but no parameters.
BUFFERS = ("vector_scale", "prediction", "frames.mean", "frames.deviation")


def weight_shapes(config: PixelCNNConfig | WaveNetConfig) -> dict[str, tuple[int, ...]]:
    """Map the names in the network's `state_dict()` to shapes, in its order."""
    return _of_pixelcnn(config) if isinstance(config, PixelCNNConfig) else _of_wavenet(config)


def parameter_shapes(config: PixelCNNConfig | WaveNetConfig) -> list[tuple[int, ...]]:
    """List the shapes of `model.parameters()`, in their order."""
    return [shape for name, shape in weight_shapes(config).items() if name not in BUFFERS]


def embeddings(config: PixelCNNConfig | WaveNetConfig) -> set[int]:
    """The numbers of the parameters in `parameter_shapes` that are embeddings."""
    names = [name for name in weight_shapes(config) if name not in BUFFERS]
    return {number for number, name in enumerate(names) if name.startswith("embed_")
            or config.labels and name.endswith("condition.weight")}


def _of_pixelcnn(config):
    p, channels = config.hidden_dim, config.channels
    shapes = {"vector_scale": ()} if config.vector else {}
    for i in range(config.blocks_num):
        first, last = i == 0, i == config.blocks_num - 1
        size = FIRST_KERNEL if first else KERNEL
        inputs, reach = channels * config.code_features if first else p, size // 2
        rows = reach if first else reach + 1
        block = {"vertical.weight": (2 * p, inputs, rows, size), "vertical.bias": (2 * p,)}
        if first and config.position:
            block |= {f"position.of_{side}.weight": (2 * p, 2 * len(WAVELENGTHS))
                      for side in ("row", "column")}
        block |= _with_bias("vertical_to_horizontal", 2 * p, 2 * p, 1, 1)
        block["left.weight"] = 2 * p, inputs, 1, reach
        if not first or channels > 1:
            block["here.weight"] = 2 * p, inputs, 1, 1
        if not last:
            block |= _condition("vertical_gate", config, config.vector)
        block |= _condition("horizontal_gate", config, config.vector)
        block |= _with_bias("out", p, p, 1, 1)
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    out = config.out_hidden_dim
    shapes |= _with_bias("hidden", out, p, 1, 1)
    shapes |= _with_bias("logits", channels * _parameters(config), out, 1, 1)
    if config.embedding:
        shapes["embed_code.weight"] = config.levels, config.embedding
    return shapes


def _of_wavenet(config):
    p, out = config.hidden_dim, config.out_hidden_dim
    shapes = {"prediction": (2,)} if config.prediction else {}
    if config.reads_numbers:
        shapes |= {"read_past.weight": (p, NUMBERS), **_with_bias("read_now", p, NUMBERS)}
    else:
        shapes |= {f"embed_{tap}.weight": (config.levels, p) for tap in ("past", "now")}
    count = config.stacks_num * config.layers_num
    for i in range(count):
        layer = {"past.weight": (2 * p, p), **_with_bias("now", 2 * p, p),
                 **_condition("gate", config)}
        if config.features:
            layer["local.weight"] = 2 * p, 2 * p
        layer |= _with_bias("skip", out, p)
        if i < count - 1:
            layer |= _with_bias("residual", p, p)
        shapes |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
    if config.features:
        shapes |= {"frames.proportions": (config.hop, INTERPOLATION_TAPS),
                   "frames.mean": (config.features,), "frames.deviation": (config.features,)}
        shapes |= _with_bias("frames.convolution", 2 * p, config.features, 2 * CONTEXT_FRAMES + 1)
    return shapes | _with_bias("hidden", out, out) | _with_bias("logits", _parameters(config), out)


def _parameters(config):
    """The numbers that describe a code's distribution."""
    return output_distribution(config.distribution, config.levels, config.mixtures).parameters


def _with_bias(name, out, *rest):
    return {f"{name}.weight": (out, *rest), f"{name}.bias": (out,)}


def _condition(gate, config, vector=0):
    if config.labels:
        return {f"{gate}.condition.weight": (config.labels, 2 * config.hidden_dim)}
    return {f"{gate}.condition.weight": (2 * config.hidden_dim, vector)} if vector else {}
