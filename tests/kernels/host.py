"""Launchers that run the CUDA kernels on the CPU: their source, compiled by g++ with the shim."""

import ctypes
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import torch

from volrecon.cuda import SOURCES
from volrecon.resources import resource

HERE = Path(__file__).parent
GXX = shutil.which("g++")
FLAGS = ["-std=c++17", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
SANITIZERS = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


class Host:
    """Runs kernels of a library that `build_library` made."""

    kind = "cpu"

    def __init__(self, library):
        self.library = ctypes.CDLL(str(library))

    def __call__(self, function, grid, block, arguments):
        values = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else _scalar(a) for a in arguments]
        wrong = self.library[f"launch_{function}"](
            (ctypes.c_uint * 3)(*grid),
            (ctypes.c_uint * 3)(*block),
            kinds(arguments).encode(),
            (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values)),
        )
        if wrong:
            raise TypeError(f"{function} does not take {kinds(arguments)}")


class Recorder:
    """Runs nothing, and writes down what kernels are given, for replay.cpp."""

    kind = "cpu"

    def __init__(self, file):
        self.file = file

    def __call__(self, function, grid, block, arguments):
        names = [struct.pack("I", len(text)) + text.encode() for text in (function, kinds(arguments))]
        arrays = [a.numpy() if isinstance(a, torch.Tensor) else a for a in arguments]
        data = [struct.pack("Q", a.nbytes) + a.tobytes() for a in arrays]
        self.file.write(b"".join([struct.pack("6I", *grid, *block), *names, *data]))


def kinds(arguments):
    """One letter an argument, as in shim.h."""
    return "".join("P" if isinstance(a, torch.Tensor) else a.dtype.char for a in arguments)


def build_library(folder):
    sources = _written(folder)
    flags = ["-O2", "-fopenmp", "-shared", "-fPIC", "-ftls-model=initial-exec"]
    subprocess.run([GXX, *FLAGS, *flags, *sources, "-o", folder / "kernels.so"], check=True)
    return folder / "kernels.so"


def build_replay(folder):
    """A program of its own, with sanitizers; its argument is a file of a `Recorder`."""
    sources = [*_written(folder), HERE / "replay.cpp"]
    subprocess.run([GXX, *FLAGS, *SANITIZERS, *sources, "-o", folder / "replay"], check=True)
    return folder / "replay"


def _written(folder):
    """C++ files that include shim and kernels: launch_NAME for every kernel, and launch_by_name."""
    parts = "const unsigned* grid, const unsigned* block, const char* kinds, void** arguments"
    declared = [f'extern "C" int launch_{name}({parts});' for name in SOURCES]
    choices = [f'    if (name == "{name}") return launch_{name}(grid, block, kinds, arguments);' for name in SOURCES]
    chooser = f"int launch_by_name(const std::string& name, {parts}) {{"
    files = {"by_name.cpp": "\n".join(["#include <string>", *declared, chooser, *choices, "    return 1;", "}", ""])}
    for source in set(SOURCES.values()):
        stubs = "".join(
            f'extern "C" int launch_{name}({parts}) {{ return launch({name}, grid, block, kinds, arguments); }}\n'
            for name, file in SOURCES.items()
            if file == source
        )
        includes = f'#include "{HERE / "shim.h"}"\n#include "{resource(f"kernels/{source}")}"\n'
        files[source.replace(".cu", ".cpp")] = includes + stubs
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return sorted(folder / name for name in files)


def _scalar(value):
    return np.ctypeslib.as_ctypes_type(value.dtype)(value.item())
