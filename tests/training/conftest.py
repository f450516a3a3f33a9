"""Prepared training data that several files of tests use."""

import pytest
import torch
from trials import data_of, quiet, write_data

from volrecon.training.prepare import prepare


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory):
    """A folder with the files of `trials.DATA` and their prepared store; not to be changed."""
    folder = write_data(tmp_path_factory.mktemp("training"))
    prepare(folder / "prepared.zarr", data_of(), folder, quiet)
    return folder


@pytest.fixture
def prepared(data_folder):
    return prepare(data_folder / "prepared.zarr", data_of(), data_folder, quiet)


@pytest.fixture(autouse=True)
def _one_thread():
    """Results repeat to the byte on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
