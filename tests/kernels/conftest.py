"""The kernels, compiled for the CPU once a session."""

import pytest

from tests.kernels.host import GXX, Host, build_library


@pytest.fixture(scope="session")
def on(tmp_path_factory):
    if GXX is None:
        pytest.skip("no g++ to compile the kernels with")
    return Host(build_library(tmp_path_factory.mktemp("kernels")))
