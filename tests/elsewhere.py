"""A GPU in name only: tensors that say they are on cuda:0, computed by the CPU.

    with Elsewhere():
        model.to("cuda")

In its context tensors that are asked for on CUDA are `Remote` ones, and an operation that mixes
them with the CPU's raises what CUDA would. So a script runs its path for a GPU, up to speed and
rounding, on a machine without one: tensors made on the wrong device are found.

What a GPU allows is allowed here: copies from one device to the other, numbers of no dimension in
pointwise operations, and indices on the CPU. numpy() and views of memory it refuses.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

CUDA, META = torch.device("cuda", 0), torch.device("meta")
aten = torch.ops.aten
COPIES = {aten._to_copy, aten.copy_, aten._copy_from, aten.copy, aten.lift_fresh}
INDEXED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}


class Remote(torch.Tensor):
    """A tensor on the GPU in name. held: what it holds, on the CPU.

    To torch's own code it is on the device "meta", for which no driver is needed.
    """

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, device=META, requires_grad=inner.requires_grad)

    def __init__(self, inner):
        self.held = inner

    def __repr__(self):
        return f"Remote({self.held})"

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        of = getattr(func, "__self__", None)
        if name == "__get__":
            if of is torch.Tensor.device:
                return CUDA
            if of is torch.Tensor.is_cuda:
                return True
            if of is torch.Tensor.is_meta:
                return False
        if func is torch.Tensor.numpy or func is torch.Tensor.__array__:
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")
        if func is torch.Tensor.tolist:
            return args[0].held.detach().tolist()
        return torch._C._disabled_torch_function_impl(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        with _Made():  # which a context of torch's own may have left
            return func(*args, **(kwargs or {}))


def _compute(func, args, kwargs):
    """What an operation gives, on the device that it would be on."""
    tensors = [part for part in tree_flatten((args, kwargs))[0] if isinstance(part, torch.Tensor)]
    remote = any(isinstance(part, Remote) for part in tensors)
    asked = kwargs.get("device")
    if asked is not None:
        remote = asked.type in ("meta", "cuda")
        kwargs = {**kwargs, "device": torch.device("cpu")}
    elif remote:
        _check(func, args, tensors)
    inner_args, inner_kwargs = tree_map(
        lambda part: part.held if isinstance(part, Remote) else part, (args, kwargs))
    out = func(*inner_args, **{name: value for name, value in inner_kwargs.items()
                               if name != "pin_memory"})
    into_local = func.overloadpacket is aten.copy_ and not isinstance(args[0], Remote)
    if not remote or into_local:
        return out
    return return_and_correct_aliasing(func, args, kwargs, tree_map(_wrapped, out))


def _wrapped(part):
    """A Remote of a tensor; what else an operation gives, as it is."""
    if not isinstance(part, torch.Tensor):
        return part
    with torch.inference_mode(part.is_inference()):  # as views of weights are not, inside of it
        return Remote(part)


def _check(func, args, tensors):
    """Raises RuntimeError where tensors of both devices meet in what CUDA can't do so."""
    packet = func.overloadpacket
    if packet in COPIES:
        return
    if packet in INDEXED:
        tensors = [args[0], *args[2:3]] if isinstance(args[0], Remote) else tensors
    local = [part for part in tensors if not isinstance(part, Remote)]
    if torch.Tag.pointwise in func.tags or packet in INDEXED:
        local = [part for part in local if part.ndim]
    if local:
        raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but found at "
                           f"least two devices, cuda:0 and cpu!")


class _Factories(torch.overrides.TorchFunctionMode):
    """Asks for "meta" where "cuda" is asked for: without it torch would look for a driver."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        def elsewhere(part):
            if part in ("cuda", "cuda:0") if isinstance(part, str) else (
                    isinstance(part, torch.device) and part.type == "cuda"):
                return META
            return part

        if func is torch.device:
            return func(*args, **(kwargs or {}))
        if func is torch.Tensor.cuda:
            return args[0].to(META)
        if func is torch.Tensor.pin_memory:
            return args[0]
        args, kwargs = tree_map(elsewhere, (args, kwargs or {}))
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") == META:
            return func(*args, **{**kwargs, "device": None}).to(META)  # what it holds is given
        return func(*args, **kwargs)


class _Made(TorchDispatchMode):
    """Makes what is asked for on "meta", be it by Python or by torch's own code, a `Remote`."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        with self:  # in inference mode what is made of several operations comes here whole
            decomposed = func.decompose(*args, **(kwargs or {}))
        return (_compute(func, args, kwargs or {}) if decomposed is NotImplemented
                else decomposed)


class Elsewhere:
    """The context of the module's docstring."""

    def __enter__(self):
        self._modes = [_Factories(), _Made()]
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *exception):
        for mode in reversed(self._modes):
            mode.__exit__(*exception)
