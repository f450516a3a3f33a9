"""Fixtures of the tests that kill, starve and interrupt runs."""

import numba
import pytest
import torch
from faulty import run, small_blocks, write_small_scan


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder with scan.zarr, low chunks, a plan that costs nothing; the number of threads is put back."""
    threads = numba.get_num_threads(), torch.get_num_threads()
    small_blocks(monkeypatch.setattr)
    write_small_scan(tmp_path)
    yield tmp_path
    numba.set_num_threads(threads[0])
    torch.set_num_threads(threads[1])


@pytest.fixture
def undisturbed(small):
    """undisturbed(job): the files of the volume that a run makes which nothing disturbs, and its steps."""
    from faulty import contents

    def make(the_job):
        the_job = the_job.model_copy(update={"out": "undisturbed"})
        steps = run(the_job, small)
        return contents(small / "undisturbed" / "volume.zarr"), steps

    return make
