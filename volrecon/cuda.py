"""The CUDA kernels of kernels/ on torch tensors. The only file that imports cupy, and only when a kernel is launched.

Each function checks its tensors, refuses before anything is launched, and makes the result; kernels/README.md states
what the kernels do. Tensors go by DLPack, without a copy, on torch's current stream.
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch

from volrecon.errors import ConfigError, DataError, ResourceError
from volrecon.resources import resource
from volrecon.sampling import NoiseKey
from volrecon.tiling import PatchLayout

SOURCES = {
    "patch_extract_float32": "patch_extract.cu",
    "patch_extract_float16": "patch_extract.cu",
    "patch_extract_bfloat16": "patch_extract.cu",
    "patch_blend": "patch_blend.cu",
    "tv_z_split": "tv_z.cu",
    "tv_z_transpose": "tv_z.cu",
    "renoise": "renoise.cu",
    "philox_words": "renoise.cu",
}
"""The file of every kernel."""

OPTIONS = ("--std=c++17", "--fmad=false")
LARGEST_GRID = (2**31 - 1, 65535, 65535)
LARGEST_INT = 2**31 - 1
TILE = (32, 8, 1)  # threads; each writes PER_THREAD pixels of a column
LINE = (256, 1, 1)
PER_THREAD = 4  # ROWS and VOXELS of the sources

Three = tuple[int, int, int]
Argument = torch.Tensor | np.generic


class Launcher(Protocol):
    """What runs a kernel.

    Attributes:
        kind: of the devices whose memory it reads, as torch names them.
    """

    kind: str

    def __call__(self, function: str, grid: Three, block: Three, arguments: Sequence[Argument]) -> None:
        """Run a kernel of `SOURCES`; scalars are numpy's, of the types that the kernel takes."""


class Cupy:
    """Launches on the GPU that holds the tensors, on torch's current stream."""

    kind = "cuda"

    def __call__(self, function: str, grid: Three, block: Three, arguments: Sequence[Argument]) -> None:
        cupy = _cupy()
        device = next(a.device for a in arguments if isinstance(a, torch.Tensor))
        handle = _Handle(torch.cuda.current_stream(device).cuda_stream)
        with cupy.cuda.Device(device.index), cupy.cuda.Stream.from_external(handle):
            _kernel(function)(grid, block, tuple(_given(cupy, argument) for argument in arguments))


class _Handle:
    """A stream as the CUDA stream protocol wants it; older torch streams do not speak it."""

    def __init__(self, handle: int) -> None:
        self.handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.handle


def _given(cupy: Any, argument: Argument) -> Any:
    if not isinstance(argument, torch.Tensor):
        return argument
    return cupy.from_dlpack(argument.detach()) if argument.numel() else np.uintp(0)


GPU = Cupy()


@cache
def installed() -> bool:
    """Whether there is a cupy to launch kernels with."""
    return find_spec("cupy") is not None


def patch_extract(
    slices: torch.Tensor,
    layout: PatchLayout,
    part: range,
    scale: float = 1.0,
    offset: float = 0.0,
    *,
    positions: bool = False,
    dtype: torch.dtype = torch.float32,
    on: Launcher = GPU,
) -> torch.Tensor:
    """scale x + offset of the patches `part`, and y and x if `positions`: (patches, slices [+ 2], *side) of `dtype`.

    Args:
        slices: (slices, rows, columns) float32; 0 beside them.
    """
    _check(on, slices=slices)
    _check_shape("slices", slices, (slices.shape[0], *layout.shape))
    if part.step != 1 or not 0 <= part.start <= part.stop <= len(layout.all):
        raise DataError(f"{part} are no neighbours among the {len(layout.all)} patches of the layout")
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise DataError(f"patches are made in float32, float16 or bfloat16; {dtype} is asked for")
    channels = len(slices) + 2 * positions
    out = slices.new_empty((len(part), channels, *layout.side), dtype=dtype)
    tables = _tables(layout, slices.device)
    margins, counts = (layout.down.margin, layout.across.margin), (layout.counts[1], part.start, len(slices), channels)
    arguments = _arguments(
        *(out if dtype == torch.float32 else out.view(torch.int16), slices, *tables["starts"], *tables["positions"]),
        ints=(*layout.shape, *margins, *layout.side, *counts),
        floats=(scale, offset),
    )
    grid = len(part) * channels, *_tiles(layout.side)
    _launch(on, f"patch_extract_{str(dtype).removeprefix('torch.')}", grid, TILE, arguments)
    return out


def patch_blend(patches: torch.Tensor, layout: PatchLayout, *, on: Launcher = GPU) -> torch.Tensor:
    """The sum of the patches times the layout's weights, (slices, rows, columns) float32.

    Args:
        patches: (patches, slices, *side) float32, all of the layout.
    """
    _check(on, patches=patches)
    _check_shape("patches", patches, (len(layout.all), patches.shape[1], *layout.side))
    out = patches.new_empty((patches.shape[1], *layout.shape))
    tables = _tables(layout, patches.device)
    arrays = (out, patches, *tables["starts"], *tables["covering"], *tables["weights"])
    arguments = _arguments(*arrays, ints=(*layout.shape, *layout.side, layout.counts[1], len(out)))
    _launch(on, "patch_blend", (len(out), *_tiles(layout.shape)), TILE, arguments)
    return out


def tv_z_split(
    x: torch.Tensor, u: torch.Tensor, threshold: float, *, spacing: float = 1.0, on: Launcher = GPU
) -> tuple[torch.Tensor, torch.Tensor]:
    """d = soft(s, threshold) and the new dual u' = s - d of s = Dz x + u; each of the shape of u.

    Args:
        x: (slices + above, rows, columns) float32, with one slice above those of u where the volume goes on.
        u: (slices, rows, columns) float32.
        spacing: distance of slices over the voxel size in x.
    """
    _check(on, x=x, u=u)
    above = len(x) - len(u)
    _check_shape("x", x, (len(u) + (above == 1), *u.shape[1:]))
    d, dual, plane = u.new_empty(u.shape), u.new_empty(u.shape), u[:1].numel()
    sizes = (u.numel(), plane, (len(u) - 1 + above) * plane)
    arguments = _arguments(d, dual, x, u, longs=sizes, floats=(1 / spacing, threshold))
    _launch(on, "tv_z_split", _line(u), LINE, arguments)
    return d, dual


def tv_z_transpose(
    d: torch.Tensor, u: torch.Tensor, *, below: int, ends: bool, spacing: float = 1.0, on: Launcher = GPU
) -> torch.Tensor:
    """Dz'(d - u) on a slab: (slices, rows, columns).

    Args:
        d, u: (below + slices, rows, columns) float32.
        below: 1 where the volume has a slice below the slab, else 0.
        ends: whether the volume ends with the slab: its last slice has no difference, and what d and u hold there is
            not looked at.
        spacing: distance of slices over the voxel size in x.
    """
    _check(on, d=d, u=u)
    _check_shape("u", u, tuple(d.shape))
    if below not in (0, 1) or len(d) < below:
        raise DataError(f"a slab of {len(d)} slices has {below} below it; it must be 0 or 1 of them")
    out, plane = d.new_empty((len(d) - below, *d.shape[1:])), d[:1].numel()
    sizes = (out.numel(), plane, below * plane, (len(d) - ends) * plane)
    arguments = _arguments(out, d, u, longs=sizes, floats=(1 / spacing,))
    _launch(on, "tv_z_transpose", _line(out), LINE, arguments)
    return out


def renoise(
    x: torch.Tensor, x0: torch.Tensor, kept: float, fresh: float, key: NoiseKey, first: int, *, on: Launcher = GPU
) -> torch.Tensor:
    """x0 + kept (x - x0) + fresh noise, the noise that of `sampling.standard_normal(key, first, x.shape)`.

    Args:
        x, x0: (slices, rows, columns) float32.
        first: slice of the volume that x begins with.
    """
    _check(on, x=x, x0=x0)
    _check_shape("x0", x0, tuple(x.shape))
    out, plane, (k0, k1, step, purpose) = x.new_empty(x.shape), x[:1].numel(), key.words
    quads = -(-plane // 4)
    aligned = plane % 4 == 0 and all(tensor.data_ptr() % 16 == 0 for tensor in (out, x, x0))
    words = (first, step, purpose, k0, k1)
    arguments = _arguments(out, x, x0, longs=(plane, quads), ints=(aligned,), floats=(kept, fresh), words=words)
    _launch(on, "renoise", (-(-quads // LINE[0]), len(x), 1), LINE, arguments)
    return out


Tables = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""Arrays of a layout's axes (down, across) by name, on a device: int32 and float32."""

_MADE: WeakKeyDictionary[PatchLayout, dict[torch.device, Tables]] = WeakKeyDictionary()


def _tables(layout: PatchLayout, device: torch.device) -> Tables:
    """Made once a layout and device."""
    made = _MADE.setdefault(layout, {})
    if device not in made:
        made[device] = {
            name: (_on_device(getattr(layout.down, name), device), _on_device(getattr(layout.across, name), device))
            for name in ("starts", "covering", "positions", "weights")
        }
    return made[device]


def _on_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(array.astype(np.int32 if array.dtype.kind == "i" else np.float32)).to(device)


def _check(on: Launcher, **tensors: torch.Tensor) -> None:
    device = next(iter(tensors.values())).device
    for name, tensor in tensors.items():
        if tensor.device.type != on.kind or tensor.device != device:
            raise DataError(f"{name} is on {tensor.device}; the kernel reads {on.kind}, and all of one device")
        if tensor.dtype != torch.float32:
            raise DataError(f"{name} is {tensor.dtype}; kernels read float32")
        if not tensor.is_contiguous():
            raise DataError(f"{name} has strides {tensor.stride()} for {tuple(tensor.shape)}; make it contiguous")
        if tensor.requires_grad and torch.is_grad_enabled():
            raise DataError(f"{name} requires a gradient, which kernels do not give")


def _check_shape(name: str, tensor: torch.Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected:
        raise DataError(f"{name} has shape {tuple(tensor.shape)}; expected {expected}")


def _launch(on: Launcher, function: str, grid: Three, block: Three, arguments: Sequence[Argument]) -> None:
    """Nothing is launched for nothing."""
    if 0 in grid:
        return
    if any(blocks > most for blocks, most in zip(grid, LARGEST_GRID, strict=True)):
        raise ResourceError(
            f"{function} would take a grid of {grid} blocks; at most {LARGEST_GRID}. Give it less at once"
        )
    on(function, grid, block, arguments)


def _tiles(shape: tuple[int, int]) -> tuple[int, int]:
    """Blocks of `TILE` (across, down) for a plane."""
    rows, columns = shape
    return -(-columns // TILE[0]), -(-rows // (TILE[1] * PER_THREAD))


def _line(voxels: torch.Tensor) -> Three:
    return -(-voxels.numel() // (LINE[0] * PER_THREAD)), 1, 1


def _arguments(
    *tensors: torch.Tensor,
    longs: Sequence[int] = (),
    ints: Sequence[int] = (),
    floats: Sequence[float] = (),
    words: Sequence[int] = (),
) -> list[Argument]:
    """What a kernel takes, in the order in which all kernels take it."""
    if max(ints, default=0) > LARGEST_INT:
        raise ResourceError(f"a kernel is given the sizes {tuple(ints)}; each must be at most {LARGEST_INT}")
    kinds = ((np.int64, longs), (np.int32, ints), (np.float32, floats), (np.uint32, words))
    return [*tensors, *(kind(value) for kind, values in kinds for value in values)]


def _cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise ConfigError(f"kernels on a GPU need cupy: {error}. pip install 'volrecon[gpu]'") from error
    return cupy


@cache
def _kernel(function: str) -> Any:
    """A compiled kernel; cupy keeps one a device, and the machine code on disk."""
    return _module(SOURCES[function]).get_function(function)


@cache
def _module(source: str) -> Any:
    return _cupy().RawModule(code=resource(f"kernels/{source}").read_text(encoding="utf-8"), options=OPTIONS)
