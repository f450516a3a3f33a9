"""A machine without a driver survives whatever is asked of ASTRA (row G7)."""

import subprocess
import sys

import pytest

from tests.contracts.scans import SCANS
from volrecon.errors import ConfigError
from volrecon.projectors import projector

astra = pytest.importorskip("astra")


@pytest.mark.skipif(astra.use_cuda(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["cone", "helix", "fan stack", "parallel, inclined"])
def test_G7_cuda_is_refused_before_astra_is_touched(name):
    with pytest.raises(ConfigError, match="NVIDIA GPU"):
        projector(*SCANS[name], device="cuda")


@pytest.mark.parametrize("name", ["cone", "helix"])
def test_G7_astra_on_the_cpu_names_the_way_out(name):
    with pytest.raises(ConfigError, match="joseph"):
        projector(*SCANS[name], backend="astra")


def test_astra_leaves_no_noise_at_exit():
    """The projectors are deleted without an exception while the interpreter goes down."""
    script = (
        "from tests.contracts.scans import SCANS\nfrom volrecon.projectors import projector\n"
        "A = projector(*SCANS['fan stack'], 'astra')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
