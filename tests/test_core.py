"""The stream: what it keeps, what it computes, and what it does with objects given late or again."""
import math
import re
from itertools import count

import pytest
import torch

from inference.propagation import inference_size
from inference_core import InferenceCore, to_label_map
from model.checkpoint import load_network
from model.memory_bank import MemoryBank
from model.variants import published_network


def image(seed=0, height=40, width=56):
    return torch.randn(3, height, width, generator=torch.Generator().manual_seed(seed))


def square(label, top=8, left=8, size=16, height=40, width=56):
    mask = torch.zeros(height, width, dtype=torch.long)
    mask[top:top + size, left:left + size] = label
    return mask


class Counting:
    """Counts the calls of a network's method."""

    def __init__(self, monkeypatch, network, name):
        self.calls, original = 0, getattr(network, name)

        def counted(*args):
            self.calls += 1
            return original(*args)
        monkeypatch.setattr(network, name, counted)


def test_a_frame_is_memorised_only_if_another_follows(network, monkeypatch):
    memorized, encoded = Counting(monkeypatch, network, "memorize"), Counting(monkeypatch, network, "encode_query")
    core = InferenceCore(network)
    mask = square(1) + square(2, left=30)
    core.step(image(0), mask)
    assert (memorized.calls, encoded.calls) == (0, 0)
    for t in range(1, 4):
        core.step(image(t))
        assert (memorized.calls, encoded.calls) == (t, t)      # once a frame, whatever the number of objects


@pytest.mark.parametrize("mem_every", [1, 2, 5])
def test_memory_grows_with_the_bank_only(network, mem_every):
    core = InferenceCore(network, mem_every=mem_every)
    lengths = []
    for t in range(9):
        core.step(image(t, 16, 16), square(1, 2, 2, 8, 16, 16) if t == 0 else None)
        lengths.append(len(core._groups[0].bank))
    # Before frame t: the memory frames among 0..t-1, and frame t-1 if it is not one of them.
    expected = [0] + [(t - 1) // mem_every + 1 + ((t - 1) % mem_every > 0) for t in range(1, 9)]
    assert lengths == expected


def test_max_memory_frames_bounds_the_bank(network):
    core = InferenceCore(network, mem_every=1, max_memory_frames=3)
    for t in range(8):
        core.step(image(t, 16, 16), square(1, 2, 2, 8, 16, 16) if t == 0 else None)
    assert len(core._groups[0].bank) == 3


def test_before_the_first_mask_all_is_background(network):
    core = InferenceCore(network)
    assert torch.equal(core.step(image()).cpu(), torch.ones(1, 40, 56))
    assert torch.equal(core.step(image(1), torch.zeros(40, 56, dtype=torch.long)).cpu(), torch.ones(1, 40, 56))
    assert core.labels == []


def test_a_given_mask_comes_back_as_it_is(network):
    core = InferenceCore(network)
    mask = square(7) + square(200, left=30)
    assert torch.equal(to_label_map(core.step(image(), mask), [7, 200], (40, 56)).cpu().long(), mask)
    assert core.labels == [7, 200]


def test_objects_given_late_and_again(network):
    core = InferenceCore(network)
    core.step(image(0), square(5))
    before = core.step(image(1))
    assert before.shape[0] == 2
    given = square(3, left=32)
    core.step(image(2), given)
    assert core.labels == [5, 3]
    assert [group.bank.frames_added for group in core._groups] == [1, 0]
    corrected = core.step(image(3), square(5, top=20))
    assert [len(group.bank) for group in core._groups] == [2, 1]  # both memorised the frame that brought 3
    found = to_label_map(corrected, core.labels, (40, 56)).cpu()
    assert (found[20:36, 8:24] == 5).all()
    outside = torch.ones(40, 56, dtype=torch.bool)
    outside[20:36, 8:24] = False
    assert not (found[outside] == 5).any()                      # the correction replaced the whole object
    core.step(image(4))
    assert [len(group.bank) for group in core._groups] == [3, 2]        # and was memorised once, for good


def test_an_object_may_be_given_without_a_pixel(network):
    core = InferenceCore(network)
    core.step(image(0), square(2), input_labels=[2, 9])
    assert core.labels == [2, 9]
    assert core.step(image(1)).shape[0] == 3


def test_of_objects_as_likely_the_lowest_label_wins():
    even = torch.full((4, 2, 2), 0.25)
    even[0] = 0
    assert (to_label_map(even, [7, 3, 5], (2, 2)) == 3).all()
    even[1] = 0.3
    assert (to_label_map(even, [7, 3, 5], (4, 4)) == 7).all()


def test_correcting_one_object_keeps_the_prediction_of_others(network):
    plain, corrected = InferenceCore(network), InferenceCore(network)
    for core in (plain, corrected):
        core.step(image(0), square(1) + square(2, left=30))
    predicted, given = plain.step(image(1)), square(1, top=0, left=0, size=4)
    found = corrected.step(image(1), given)
    free = (given == 0).to(predicted.device)
    assert (found[2][~free] < 1e-4).all()
    # Outside the given region object 2 stays where it was; only the share of object 1 is redistributed.
    was, now = predicted[2][free] > 0.5, found[2][free] > 0.5
    assert (now | ~was).all()


def test_empty_borders_do_not_shift_anything(network):
    mask = square(1, top=7, left=9, size=11, height=33, width=49)
    core = InferenceCore(network)
    probabilities = core.step(image(0, 33, 49), mask)
    assert probabilities.shape == (2, 33, 49)
    assert torch.equal((probabilities[1] > 0.5).cpu(), mask > 0)


@pytest.mark.parametrize(("frame", "mask", "message"), [
    (torch.zeros(3, 15, 40), None, "at least 16"),
    (torch.zeros(3, 40, 40), torch.ones(40, 41), "mask of"),
])
def test_wrong_sizes_are_refused(network, frame, mask, message):
    with pytest.raises(ValueError, match=message):
        InferenceCore(network).step(frame, mask)


@pytest.mark.parametrize(("frame", "mask", "labels", "message"), [
    (torch.zeros(1, 3, 40, 56), None, None, "frame of torch.float32 (1, 3, 40, 56): it must be"),
    (torch.zeros(40, 56), None, None, "it must be floating-point (3, H, W)"),
    (torch.zeros(3, 40, 56, dtype=torch.uint8), None, None, "it must be floating-point (3, H, W)"),
    (image(), square(1) / 2, None, "mask of torch.float32: it must be integers"),
    (image(), -square(1), None, "labels [-1]: they must be from 1 to 255"),
    (image(), None, [1], "input_labels need a mask"),
    (image(), square(1), [0, 1], "labels [0, 1]: they must be from 1 to 255"),
    (image(), square(256), None, "labels [256]: they must be from 1 to 255"),
])
def test_frames_and_masks_of_other_kinds_are_refused(network, frame, mask, labels, message):
    core = InferenceCore(network)
    with pytest.raises(ValueError, match=re.escape(message)):
        core.step(frame, mask, labels)
    core.step(image(0, 48, 48))                     # as the first frame


def test_types_of_frames_and_masks_do_not_matter(network):
    core, other = InferenceCore(network), InferenceCore(network)
    assert torch.equal(core.step(image(), square(1)), other.step(image().double(), square(1) > 0, [1, 1]))
    assert other.labels == [1]
    assert type(other.labels[0]) is int
    assert torch.equal(core.step(image(1)), other.step(image(1).double()))


def test_a_changed_result_does_not_change_the_memory(network):
    core, other = InferenceCore(network), InferenceCore(network)
    for each in (core, other):
        result = each.step(image(0, 48, 64), square(1, height=48, width=64)).numpy()
    result *= 255
    assert torch.equal(core.step(image(1, 48, 64)), other.step(image(1, 48, 64)))


@pytest.mark.parametrize(("name", "value", "kind"), [
    *((name, value, "integer") for name in ("top_k", "mem_every", "max_memory_frames") for value in (0, 2.5, "x")),
    ("mem_every", None, "integer"), ("kernel_sigma", 0, "number"), ("kernel_sigma", math.nan, "number"),
    ("kernel_sigma", "x", "number")])
def test_settings_must_be_positive_numbers(network, name, value, kind):
    with pytest.raises(ValueError, match=re.escape(f"{name} is {value!r}, but it must be a positive {kind}")):
        InferenceCore(network, **{name: value})


def test_a_step_that_failed_can_be_repeated(network, monkeypatch):
    core, other = InferenceCore(network), InferenceCore(network)
    for each in (core, other):
        each.step(image(), square(1))
    with monkeypatch.context() as patch:
        patch.setattr(network, "segment", lambda *_: 1 / 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                core.step(image(1))
    assert torch.equal(core.step(image(1)), other.step(image(1)))
    assert len(core._groups[0].bank) == 1


def test_a_step_whose_mask_failed_can_be_repeated(network, monkeypatch):
    core, other = InferenceCore(network, mem_every=2), InferenceCore(network, mem_every=2)
    for index in range(4):
        mask = square(index + 1, left=10 * index) if index != 1 else None
        with monkeypatch.context() as patch:
            patch.setattr("inference_core.aggregate", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                core.step(image(index), square(9) if mask is None else mask)
        assert torch.equal(core.step(image(index), mask), other.step(image(index), mask))
        assert core.labels == other.labels
    assert [len(group.bank) for group in core._groups] == [len(group.bank) for group in other._groups]


@pytest.mark.parametrize("max_frames", [None, 2])
def test_a_step_that_failed_between_two_banks_can_be_repeated(max_frames, network, monkeypatch):
    core, other = (InferenceCore(network, mem_every=1, max_memory_frames=max_frames) for _ in range(2))
    add, calls = MemoryBank.add, count()
    for each in (core, other):
        each.step(image(), square(1))
        each.step(image(1), square(2, left=20))
    for index in range(2, 6):
        with monkeypatch.context() as patch:
            patch.setattr(MemoryBank, "add", lambda *arguments: add(*arguments) if next(calls) % 2 == 0 else 1 / 0)
            with pytest.raises(ZeroDivisionError):
                core.step(image(index))
        assert torch.equal(core.step(image(index)), other.step(image(index)))
        assert [len(group.bank) for group in core._groups] == [len(group.bank) for group in other._groups]


def test_a_change_of_size_is_refused_also_within_one_padded_size(network):
    core = InferenceCore(network)
    core.step(image(0, 60, 60))
    with pytest.raises(ValueError, match="frame of 62x50 pixels: the frames before it have another size"):
        core.step(image(1, 50, 62))


def test_a_change_of_size_is_refused(network):
    core = InferenceCore(network)
    core.step(image(), square(1))
    with pytest.raises(ValueError, match="the frames before it"):
        core.step(image(0, 64, 64))


def test_batches_and_objects_are_independent_of_how_they_are_grouped(network, monkeypatch):
    import model.network as module
    device = next(network.parameters()).device
    frames = torch.stack([image(0, 32, 48), image(1, 32, 48)]).to(device)
    masks = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)).to(device)
    results = []
    with torch.inference_mode():
        for at_once in (1, 3):
            monkeypatch.setattr(module, "objects_per_batch", lambda device, n=at_once: n)
            key, value = network.memorize(frames, masks)
            results.append((key, value, network.segment(network.encode_query(frames), value)))
        alone = network.memorize(frames[1:], masks[1:])[0]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(results[0][0][1:], alone, rtol=1e-3, atol=1e-4)


def test_single_object_weights_run_with_their_four_channels(tmp_path):
    path = tmp_path / "stage0.pth"
    torch.save(published_network(single_object=True).state_dict(), path)
    core = InferenceCore(load_network(path))
    core.step(image(), square(1) + square(2, left=30))
    probabilities = core.step(image(1))
    assert probabilities.shape == (3, 40, 56)
    torch.testing.assert_close(probabilities.sum(0), torch.ones(40, 56))


def test_batch_normalisation_keeps_to_its_stored_statistics():
    network = published_network()
    for module in (network, network.train()):
        assert not any(part.training for part in module.modules() if isinstance(part, torch.nn.BatchNorm2d))
    assert network.decoder.training


def test_amp_stays_close(network):
    exact, coarse = InferenceCore(network), InferenceCore(network, amp=True)
    for core in (exact, coarse):
        core.step(image(), square(1))
    difference = (exact.step(image(1)) - coarse.step(image(1))).abs()
    assert 0 < difference.mean() < 0.05


def test_resizing_rounds_the_longer_side_down():
    assert inference_size(480, 854, None) == (480, 854)
    assert inference_size(720, 1280, 480) == (480, 853)
    assert inference_size(1280, 720, 480) == (853, 480)
    assert inference_size(100, 100, 480) == (480, 480)
