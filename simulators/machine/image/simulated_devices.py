"""Rewrites "cuda" to "cpu" wherever torch takes a device: what makes tensors, moves them, loads, casts or draws them.

By wrapping those functions, not by a TorchFunctionMode: a mode holds in one thread only, and is off again inside every
torch function that is written in Python. A device that the machine does not have is an error, as on a real one.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

_MAKERS = (
    "arange asarray as_tensor bartlett_window blackman_window empty empty_like empty_permuted empty_strided eye full "
    "full_like hamming_window hann_window kaiser_window linspace logspace normal ones ones_like rand rand_like randint "
    "randint_like randn randn_like randperm range scalar_tensor sparse_bsc_tensor sparse_bsr_tensor "
    "sparse_compressed_tensor sparse_coo_tensor sparse_csc_tensor sparse_csr_tensor tensor tril_indices triu_indices "
    "zeros zeros_like"
)
_METHODS = "new_empty new_empty_strided new_full new_ones new_tensor new_zeros"


class Devices:
    """Says where what is asked for on a device is done."""

    def __init__(self, torch: Any, cuda: Any) -> None:
        self.torch, self.cuda = torch, cuda

    def is_ours(self, value: Any) -> bool:
        """Whether it names a GPU."""
        if isinstance(value, self.torch.device):
            return bool(value.type == "cuda")
        return isinstance(value, str) and (value == "cuda" or value.startswith("cuda:"))

    def where(self, value: Any) -> Any:
        """Give the device that does the work.

        Raises:
            RuntimeError: the GPU named is not there.
        """
        if self.is_ours(value) or (isinstance(value, int) and not isinstance(value, bool)):  # 0 means cuda:0
            self.cuda.require(value)
            return self.torch.device("cpu")
        return value

    def rewritten(self, function: Any) -> Any:
        """Wrap a function that takes `device`."""

        @functools.wraps(function)
        def wrapped(*args: Any, **options: Any) -> Any:
            if options.get("device") is not None:
                options["device"] = self.where(options["device"])
            options.pop("pin_memory", None)  # memory that only a real driver can pin
            return function(*(self.where(one) if self.is_ours(one) else one for one in args), **options)

        return wrapped

    def to(self, move: Any) -> Any:
        """Wrap Tensor.to, whose first argument may be a device by number."""

        @functools.wraps(move)
        def wrapped(tensor: Any, *args: Any, **options: Any) -> Any:
            if options.get("device") is not None:
                options["device"] = self.where(options["device"])
            return move(tensor, *map(self.where, args[:1]), *args[1:], **options)

        return wrapped

    def cuda_method(self) -> Any:
        """Give a stand-in for Tensor.cuda."""

        def cuda(tensor: Any, device: Any = None, *_: Any, **__: Any) -> Any:
            self.cuda.require(device)
            return tensor

        return cuda


def install(torch: Any, cuda: Any) -> None:
    """Wrap everything."""
    devices = Devices(torch, cuda)
    # Which functions a `with torch.device(…)` acts on is looked up once: while they are still torch's own.
    contexts = importlib.import_module("torch.utils._device")
    contexts._device_constructors()  # noqa: SLF001 (there is no public way)
    for name in _MAKERS.split():
        setattr(torch, name, devices.rewritten(getattr(torch, name)))
    for name in _METHODS.split():
        setattr(torch.Tensor, name, devices.rewritten(getattr(torch.Tensor, name)))
    torch.Tensor.to = devices.to(torch.Tensor.to)
    torch.Tensor.cuda = devices.cuda_method()
    torch.Tensor.pin_memory = lambda tensor, *_: tensor
    torch.Tensor.is_pinned = lambda _tensor, *_: False
    torch.Tensor.record_stream = lambda _tensor, _stream: None
    # DataParallel then hands everything to the one module that there is.
    vars(importlib.import_module("torch.nn.parallel.data_parallel"))["_get_available_device_type"] = lambda: None
    _wrap_context(contexts.DeviceContext, devices)
    _wrap_amp(torch, devices)
    _wrap_load(torch, devices)
    _wrap_generator(torch, devices)


def _wrap_context(context: Any, devices: Devices) -> None:
    """`with torch.device("cuda")` and torch.set_default_device."""
    begin = context.__init__
    context.__init__ = lambda self, device: begin(self, devices.where(device))


def _wrap_amp(torch: Any, devices: Devices) -> None:
    """Autocast with the same dtype, and the loss scaler."""
    cast, scale = torch.autocast.__init__, torch.amp.GradScaler.__init__

    @functools.wraps(cast)
    def autocast(self: Any, device_type: str, dtype: Any = None, *args: Any, **options: Any) -> None:
        if devices.is_ours(device_type):
            device_type, dtype = "cpu", dtype or torch.float16  # CUDA's own default
        cast(self, device_type, dtype, *args, **options)

    @functools.wraps(scale)
    def scaler(self: Any, device: str = "cuda", *args: Any, **options: Any) -> None:
        scale(self, "cpu" if devices.is_ours(device) else device, *args, **options)

    torch.autocast.__init__ = autocast
    torch.amp.GradScaler.__init__ = scaler


def _wrap_load(torch: Any, devices: Devices) -> None:
    """torch.load to "cuda", and of files that were saved on a real GPU."""
    load = torch.load

    @functools.wraps(load)
    def wrapped(file: Any, map_location: Any = None, *args: Any, **options: Any) -> Any:
        return load(file, devices.where(map_location), *args, **options)

    def restore(storage: Any, location: str) -> Any:
        return storage if devices.is_ours(location) else None

    torch.load = wrapped
    torch.serialization.load = wrapped
    torch.serialization.register_package(1, lambda _storage: None, restore)  # before torch's own, which come from 10 on


def _wrap_generator(torch: Any, devices: Devices) -> None:
    """torch.Generator("cuda"); every generator is still an instance of torch.Generator."""
    original = torch.Generator

    class Kind(type):
        def __call__(cls, device: Any = "cpu") -> Any:
            return original(devices.where(device))

        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, original)

    torch.Generator = Kind("Generator", (), {"__doc__": original.__doc__, "__module__": "torch"})
