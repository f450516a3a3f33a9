"""Arrays of several libraries at the operator's border: NumPy, torch, CuPy in, the same library out."""

from typing import Any

import numpy as np

from volrecon.errors import ConfigError, DataError


def library(array: Any) -> str:
    """ "numpy", "torch" or "cupy", found by the array's type without importing anything."""
    name = type(array).__module__.partition(".")[0]
    if name not in ("numpy", "torch", "cupy"):
        raise DataError(f"arrays of type {type(array).__name__} are not supported; give a NumPy, torch or CuPy array")
    return name


def on_gpu(array: Any) -> bool:
    return library(array) == "cupy" or (library(array) == "torch" and array.device.type == "cuda")


def empty_like_library(array: Any, shape: tuple[int, ...]) -> Any:
    """An uninitialised float32 array of the same library and device."""
    name = library(array)
    if name == "numpy":
        return np.empty(shape, np.float32)
    if name == "torch":
        import torch

        return torch.empty(shape, dtype=torch.float32, device=array.device)
    with array.device:
        return type(array)(shape, np.float32)


def host_output(out: Any) -> np.ndarray:
    """A host array to be filled, as NumPy without a copy; anything else would lose the result."""
    array = out.numpy() if library(out) == "torch" and not on_gpu(out) else out
    if not isinstance(array, np.ndarray) or array.dtype != np.float32 or not array.flags.c_contiguous:
        raise DataError("out must be a C-contiguous float32 array on the CPU")
    if not array.flags.writeable:
        raise DataError("out is read-only")
    return array


def host_view(array: Any) -> np.ndarray:
    """A host array as C-contiguous float32 NumPy: a view where it is that already, else a converted copy."""
    if on_gpu(array):
        raise ConfigError(
            "this projector runs on the CPU and the array is on a GPU; move it (`.cpu()`, `cupy.asnumpy`) "
            "or ask for projector(..., backend='astra', device='cuda')"
        )
    if library(array) == "torch":
        if array.requires_grad:
            raise ConfigError(
                "the tensor requires grad; use volrecon.projectors.autograd.differentiable(A), or detach the tensor"
            )
        array = array.numpy()
    if array.dtype.kind not in "fiub":
        raise DataError(f"arrays of dtype {array.dtype} cannot be projected; give real numbers")
    return np.ascontiguousarray(array, dtype=np.float32)
