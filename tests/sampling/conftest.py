"""The problems here are tiny: waking threads would cost more than all the sums."""

import numba
import pytest


@pytest.fixture(autouse=True, scope="package")
def one_thread():
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(before)
