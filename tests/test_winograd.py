"""Winograd's convolution against the direct one, alone and in the network."""
import pytest
import torch
import torch.nn.functional as F

from model import winograd
from model.modules import Conv3x3, partial_convolution


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
def test_it_is_the_convolution(shape, bias, order, at_once, monkeypatch):
    monkeypatch.setattr(winograd, "ELEMENTS_IN_STRIPE", at_once)
    x, weight, offset = example(*shape, bias)
    exact = F.conv2d(x.double(), weight.double(), None if offset is None else offset.double(), padding=1)
    found = winograd.convolve(x.contiguous(memory_format=order), weight.contiguous(memory_format=order), offset)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=2e-5)


def test_products_are_the_same_without_onednn(monkeypatch):
    x, weight, offset = example(2, 8, 6, 5, 7)
    expected = winograd.convolve(x, weight, offset)
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    torch.testing.assert_close(winograd.convolve(x, weight, offset), expected)


def test_its_error_is_a_few_roundings():
    x, weight, _ = example(1, 256, 64, 40, 52, bias=False)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error = (winograd.convolve(x, weight).double() - exact).norm() / exact.norm()
    assert error < 5e-6


def test_it_serves_wide_layers_in_inference_only():
    x, weight, _ = example(1, 512, 512, 60, 108)
    with torch.inference_mode():
        assert winograd.should_use_winograd(x, weight)
        assert not winograd.should_use_winograd(x[..., :8, :8], weight)
        assert not winograd.should_use_winograd(x.double(), weight.double())
        with torch.autocast("cpu", torch.bfloat16):
            assert not winograd.should_use_winograd(x, weight)
    assert not winograd.should_use_winograd(x, weight)


@pytest.mark.parametrize(("capability", "chosen"), [("AVX2", True), ("DEFAULT", True), ("AVX512", False)])
def test_few_tiles_are_convolved_directly_with_avx512(capability, chosen, monkeypatch):
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    x, weight, _ = example(1, 512, 512, 30, 54)
    with torch.inference_mode():
        assert winograd.should_use_winograd(x, weight) == chosen


def test_parts_of_a_convolution_add_up(monkeypatch):
    monkeypatch.setattr(winograd, "should_use_winograd", lambda x, weight: True)
    conv, (x, *_) = Conv3x3(12, 7), example(1, 12, 7, 9, 14)
    with torch.inference_mode():
        parts = partial_convolution(conv, x[:, :5]) + partial_convolution(conv, x[:, 5:], first_channel=5)
        torch.testing.assert_close(parts, F.conv2d(x, conv.weight, conv.bias, padding=1), rtol=1e-4, atol=1e-5)
