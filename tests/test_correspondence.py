"""Correspondences: the published affinity, and what is carried over by it."""
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ROOT

from dataset.image_io import read_frame
from inference.propagation import preprocess_frame
from model.checkpoint import load_network
from model.corr_network import Correspondence
from model.defaults import LITE_WEIGHTS
from model.memory_reader import tile_elements
from model.padding import location_of_pixel
from model.variants import lite_network

GOLDEN = Path(__file__).parent / "golden" / "correspondence.npz"
EXAMPLE = Path(__file__).resolve().parents[1] / "examples/00015.jpg"


def picture(pixels):
    return preprocess_frame(pixels, torch.device("cpu"), pixels.shape[:2])


def test_the_affinity_is_the_published_one(network):
    golden = np.load(GOLDEN)
    both = Correspondence(network, picture(golden["source"]), picture(golden["target"]))
    found = both.affinity().cpu()
    assert (found - torch.from_numpy(golden["affinity"][0])).abs().max() < 1e-5
    torch.testing.assert_close(found.sum(0), torch.ones(63), atol=1e-5, rtol=0)
    # Whatever is carried over, it is the product with that affinity.
    features = torch.randn(5, 7, 9)
    torch.testing.assert_close(both.transfer(features).cpu().flatten(1), features.flatten(1) @ found,
                               atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def pair():
    """A picture, and that picture moved by whole cells and cut to another size."""
    pixels = read_frame(EXAMPLE)
    return Correspondence(load_network(LITE_WEIGHTS), picture(pixels), picture(pixels[32:, 48:]))


def test_points_follow_a_shift(pair):
    assert (pair.source_size, pair.target_size) == ((288, 512), (256, 464))
    for x, y in ((250, 180), (270, 220), (300, 190), (180, 200), (350, 180)):
        found = pair.find(x, y)
        assert np.hypot(found[0] - (x - 48), found[1] - (y - 32)) < 16


def test_a_mask_follows_too(pair):
    mask = torch.zeros(2, 288, 512)
    mask[0, 120:230, 220:330], mask[1] = 1, 1
    moved = pair.transfer_mask(mask)
    assert moved.shape == (2, 256, 464)
    torch.testing.assert_close(moved[1], torch.ones(256, 464), atol=1e-4, rtol=0)
    truth = mask[0, 32:, 48:] > 0
    assert ((moved[0] > 0.5) & truth).sum() > 0.7 * ((moved[0] > 0.5) | truth).sum()


def test_padding_does_not_darken_the_border():
    small = torch.randn(3, 40, 54)
    moved = Correspondence(lite_network().eval(), small, small).transfer_mask(torch.ones(1, 40, 54))
    torch.testing.assert_close(moved, torch.ones(1, 40, 54), atol=1e-4, rtol=0)


def test_heat_is_scaled_and_clipped_as_published(pair):
    heat, raw = pair.heat_map([(250, 180)]), pair.heat([(250, 180)])
    torch.testing.assert_close(heat, (2 * raw / raw.max()).clamp(max=1))
    assert heat.max() == 1


def test_padding_counts_for_the_cell():
    small = torch.zeros(3, 20, 40)            # padded by 6 above and 4 on the left
    pair = Correspondence(lite_network().eval(), small, small)
    assert pair.source_grid == (2, 3)
    assert location_of_pixel(0, 0, *pair.source_size) == (0, 0)
    assert location_of_pixel(11, 9, *pair.source_size) == (0, 0)
    assert location_of_pixel(12, 10, *pair.source_size) == (1, 1)
    assert location_of_pixel(-5, 1000, *pair.source_size) == (1, 0)


def test_example_of_the_docs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    block = (ROOT / "docs/correspondences.md").read_text().split("```python\n")[1].split("```")[0]
    names = {}
    exec(block, names)
    assert capsys.readouterr().out == "(248, 168)\n"
    assert names["transferred"].shape == (1, *names["pair"].target_size)


def test_reading_in_slices_changes_nothing(pair, monkeypatch):
    features = torch.randn(3, *pair.source_grid)
    whole = pair.transfer(features)
    assert tile_elements(torch.device("cpu")) > 1000
    monkeypatch.setattr("model.memory_reader.tile_elements", lambda device: 150)
    torch.testing.assert_close(pair.transfer(features), whole, atol=1e-4, rtol=1e-3)


def test_what_does_not_fit_is_refused(pair):
    with pytest.raises(ValueError, match="the source has"):
        pair.transfer(torch.zeros(1, 3, 3))
    with pytest.raises(ValueError, match="the source has"):
        pair.transfer_mask(torch.zeros(1, 32, 32))
    with pytest.raises(ValueError, match="at least 16"):
        Correspondence(lite_network(), torch.zeros(3, 8, 40), torch.zeros(3, 32, 32))


def test_a_found_place_is_the_middle_of_a_cell_at_the_border_too(monkeypatch):
    """A picture's corners are found in itself, 8 pixels from its sides."""
    pair = Correspondence(load_network(LITE_WEIGHTS), *[torch.randn(3, 64, 96)] * 2)
    monkeypatch.setattr(pair, "transfer", lambda cells: cells)
    assert [pair.find(x, y) for x, y in ((0, 0), (95, 0), (3, 60), (20, 5))] == [(8, 8), (88, 8), (8, 56), (24, 8)]
