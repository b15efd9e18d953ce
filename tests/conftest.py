import os
from pathlib import Path

import pytest
import torch
from commands import ROOT
from golden_weights import fill_weights

from model.checkpoint import load_network
from model.variants import published_network
from util.device import allow_tf32

os.environ["PYTHONPATH"] = str(ROOT)         # for `python -m scripts.NAME` in other folders


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """The golden weights as a file."""
    path = tmp_path_factory.mktemp("weights") / "filled.pth"
    torch.save(fill_weights(published_network()).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def network(weights):
    """The published network with the golden weights."""
    allow_tf32(False)
    return load_network(weights, "cuda" if torch.cuda.is_available() else "cpu")
