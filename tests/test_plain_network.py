"""The plain network that speed is compared with computes the published numbers, too."""
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from inference.propagation import preprocess_frame
from model.checkpoint import read_state
from model.padding import crop, padding
from scripts.plain_network import PlainNetwork

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.slow
@pytest.mark.parametrize("case", ["full", "top50", "mem_every_2", "one_object"])
def test_probabilities_are_the_published_ones(case, weights):
    golden = np.load(GOLDEN / f"propagate_{case}.npz")
    top_k, size = int(golden["top_k"]), golden["frames"].shape[1:3]
    pad = padding(*size)
    frames = [F.pad(preprocess_frame(frame, torch.device("cpu"), size), pad) for frame in golden["frames"]]
    labels = F.pad(torch.from_numpy(golden["labels"][0]), pad)
    masks = torch.stack([labels == k for k in range(1, len(golden["prob"]))]).float()
    network = PlainNetwork(read_state(weights), None if top_k < 0 else top_k, int(golden["mem_every"]))
    found = torch.stack([crop(probabilities, *size) for probabilities in network.propagate(frames, masks)], 1)
    assert np.abs(found[..., ::2, ::2].numpy() - golden["prob"]).max() < 2e-4
