"""Winograd's convolution against the direct one, alone and in the network: ours, and that of NNPACK."""
import pytest
import torch
import torch.nn.functional as F

from model import winograd
from model.checkpoint import load_network
from model.modules import Conv3x3, partial_convolution

needs_nnpack = pytest.mark.skipif(not torch.backends.nnpack.is_available(), reason="PyTorch without NNPACK")


@pytest.fixture(autouse=True)
def nnpack(request, monkeypatch):
    """Whether NNPACK convolves: only in tests that are parametrized with it."""
    used = getattr(request, "param", False)
    monkeypatch.setattr(winograd, "uses_nnpack", lambda: used)
    return used


def example(count, channels, outputs, height, width, bias=True):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, channels, height, width, generator=generator)
    weight = torch.randn(outputs, channels, 3, 3, generator=generator) / (9 * channels) ** 0.5
    return x, weight, torch.randn(outputs, generator=generator) if bias else None


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (1, 3, 5, 4, 4), (2, 8, 6, 5, 7), (1, 16, 4, 17, 30),
                                   (3, 2, 9, 8, 3)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("at_once", [1, 2 ** 17])            # one row of tiles at a time, or all
@pytest.mark.parametrize("large_tiles", [True, False])
def test_it_is_the_convolution(shape, bias, order, at_once, large_tiles, monkeypatch):
    monkeypatch.setattr(winograd, "ELEMENTS_IN_STRIPE", at_once)
    monkeypatch.setattr(winograd, "MIN_PIXELS_LARGE_TILES", 0 if large_tiles else 10 ** 9)
    x, weight, offset = example(*shape, bias)
    exact = F.conv2d(x.double(), weight.double(), None if offset is None else offset.double(), padding=1)
    found = winograd.convolve(x.contiguous(memory_format=order), weight.contiguous(memory_format=order), offset)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=4e-5 if large_tiles else 2e-5)


@needs_nnpack
@pytest.mark.parametrize("nnpack", [True], indirect=True)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (2, 8, 6, 5, 7), (1, 16, 4, 17, 30), (3, 2, 9, 12, 3),
                                   (1, 5, 3, 13, 9)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("at_once", [1, 2 ** 23])            # four rows at a time, or all
def test_nnpack_gives_the_convolution(shape, bias, relu, at_once, nnpack, monkeypatch):
    monkeypatch.setattr(winograd, "ELEMENTS_FOR_NNPACK", at_once)
    x, weight, offset = example(*shape, bias)
    exact = F.conv2d((F.relu(x) if relu else x).double(), weight.double(),
                     None if offset is None else offset.double(), padding=1)
    monkeypatch.delattr(winograd, "_WorkingMemory")              # of our own implementation
    found = winograd.convolve(x.contiguous(memory_format=torch.channels_last), weight, offset, relu)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=4e-5)


@pytest.mark.parametrize(("capabilities", "there", "used"), [
    ({"avx2": True, "cpu_name": "Intel Core"}, True, True),
    ({"avx2": True, "avx512_f": True, "cpu_name": "AMD EPYC"}, True, True),
    ({"avx2": True, "avx512_f": True, "cpu_name": "Intel Xeon"}, True, False),
    ({"avx2": True, "avx512_f": True, "avx512_vp2intersect": True, "cpu_name": "AMD EPYC"}, True, False),   # Zen 5
    ({"avx2": True, "cpu_name": "AMD Ryzen"}, False, False),        # Windows
    ({}, True, False),                                              # ARM, and old versions of PyTorch
])
def test_nnpack_is_used_where_it_is_faster(capabilities, there, used, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    monkeypatch.setattr(torch.backends.nnpack, "is_available", lambda: there)
    assert winograd.uses_nnpack.__wrapped__() == used


@pytest.mark.parametrize("nnpack", [True, False], indirect=True)
def test_filters_are_loaded_in_the_order_that_is_faster(weights, nnpack):
    for name, filters in load_network(weights).named_parameters():
        if filters.dim() == 4 and min(filters.shape) > 1:
            wide = name.split(".")[0] in ("decoder", "kv_m_f16", "kv_q_f16") and len(filters) > 1
            assert filters.is_contiguous(memory_format=torch.channels_last) != (wide and nnpack), name


@pytest.mark.parametrize("outputs_at_once", [1, 2, 5])
def test_output_channels_are_computed_in_parts(outputs_at_once, monkeypatch):
    x, weight, offset = example(2, 8, 5, 14, 9)
    expected = winograd.convolve(x, weight, offset)
    monkeypatch.setattr(winograd, "OUTPUTS_AT_ONCE", outputs_at_once)
    torch.testing.assert_close(winograd.convolve(x, weight, offset), expected)


def test_results_do_not_share_memory_with_later_calls(monkeypatch):
    monkeypatch.setattr(winograd._kept, "elements", torch.empty(0))
    monkeypatch.setattr(winograd, "MEMORY", 0)
    first, second = example(1, 8, 6, 12, 12), example(1, 24, 16, 30, 40)
    with torch.inference_mode():
        result = winograd.convolve(*first)
    copy = result.clone()
    with torch.no_grad():                   # memory kept from inference mode
        winograd.convolve(*second)
        assert torch.equal(winograd.convolve(*first), copy)
    assert torch.equal(result, copy)


def test_global_defaults_of_pytorch_do_not_matter(monkeypatch):
    monkeypatch.setattr(winograd, "_kept", winograd._Kept())
    x, weight = torch.randn(1, 4, 9, 9), torch.randn(4, 4, 3, 3)
    expected = F.conv2d(x, weight, padding=1)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found = winograd.convolve(x, weight)
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_products_are_the_same_without_onednn(monkeypatch):
    x, weight, offset = example(2, 8, 6, 5, 7)
    expected = winograd.convolve(x, weight, offset)
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    torch.testing.assert_close(winograd.convolve(x, weight, offset), expected)


@pytest.mark.parametrize(("height", "width", "bound"), [(40, 52, 5e-6), (64, 72, 1e-5)])     # small and large tiles
def test_its_error_is_a_few_roundings(height, width, bound):
    x, weight, _ = example(1, 256, 64, height, width, bias=False)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error = (winograd.convolve(x, weight).double() - exact).norm() / exact.norm()
    assert error < bound


def test_it_serves_wide_layers_in_inference_only():
    x, weight, _ = example(1, 512, 512, 60, 108)
    with torch.inference_mode():
        assert winograd.should_use_winograd(x, weight)
        assert not winograd.should_use_winograd(x[..., :8, :8], weight)
        assert not winograd.should_use_winograd(torch.empty(1, 48, 270, 480), torch.empty(48, 48, 3, 3))
        assert not winograd.should_use_winograd(x.double(), weight.double())
        with torch.autocast("cpu", torch.bfloat16):
            assert not winograd.should_use_winograd(x, weight)
    assert not winograd.should_use_winograd(x, weight)


@pytest.mark.parametrize("nnpack", [pytest.param(True, marks=needs_nnpack), False], indirect=True)
def test_parts_of_a_convolution_add_up(nnpack, monkeypatch):
    monkeypatch.delattr(winograd, "_WorkingMemory" if nnpack else "_convolve_by_nnpack")
    monkeypatch.setattr(winograd, "should_use_winograd", lambda x, weight: True)
    conv, (x, *_) = Conv3x3(12, 7), example(1, 12, 7, 9, 14)
    with torch.inference_mode():
        parts = partial_convolution(conv, x[:, :5]) + partial_convolution(conv, x[:, 5:], first_channel=5)
        torch.testing.assert_close(parts, F.conv2d(x, conv.weight, conv.bias, padding=1), rtol=1e-4, atol=1e-5)
