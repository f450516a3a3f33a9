"""The kernels compile with NVRTC, the compiler that cupy uses, for the GPUs of today; no GPU is needed for that."""

import pytest

from volrecon.cuda import OPTIONS, SOURCES
from volrecon.resources import resource

nvrtc = pytest.importorskip("cupy.cuda", reason="no cupy").nvrtc
try:
    nvrtc.getVersion()
except Exception as error:  # what cupy raises without the library differs from version to version
    pytest.skip(f"cupy finds no NVRTC: {error}", allow_module_level=True)


def compiled(code: str, architecture: str) -> bytes:
    program = nvrtc.createProgram(code, "kernels.cu", (), ())
    try:
        nvrtc.compileProgram(program, (f"--gpu-architecture={architecture}", *OPTIONS))
        return nvrtc.getCUBIN(program)
    except nvrtc.NVRTCError as error:
        raise AssertionError(nvrtc.getProgramLog(program)) from error
    finally:
        nvrtc.destroyProgram(program)


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("source", sorted(set(SOURCES.values())))
def test_nvrtc_compiles_every_kernel(source, architecture):
    code = resource(f"kernels/{source}").read_text(encoding="utf-8")
    assert "#include" not in code
    machine_code = compiled(code, architecture)
    assert machine_code.startswith(b"\x7fELF")
    for function, file in SOURCES.items():
        assert (function.encode() in machine_code) == (file == source)


def test_the_test_finds_what_does_not_compile():
    with pytest.raises(AssertionError, match="undefined"):
        compiled('extern "C" __global__ void k(float* x) { *x = nothing; }', "sm_90")
