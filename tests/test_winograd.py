"""Winograd's convolution against the direct one, alone and in the network: compiled, and by PyTorch."""
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from commands import needs_compiler

from model import winograd
from model.checkpoint import load_network
from model.modules import Conv3x3, partial_convolution

TRANSFORMS = {"small tiles": winograd.SMALL_TILES, "large tiles": winograd.LARGE_TILES}


@pytest.fixture(params=[pytest.param("compiled", marks=needs_compiler), "pytorch"])
def implementation(request, monkeypatch):
    """The implementation that convolves."""
    if request.param == "pytorch":
        monkeypatch.setattr(winograd, "_kernel", lambda: None)
    else:
        monkeypatch.delattr(winograd, "_convolve_by_pytorch")
    return request.param


def example(count, channels, outputs, height, width, bias=True):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, channels, height, width, generator=generator)
    weight = torch.randn(outputs, channels, 3, 3, generator=generator) / (9 * channels) ** 0.5
    return x, weight, torch.randn(outputs, generator=generator) if bias else None


def direct(x, weight, bias, relu=False):
    return F.conv2d((F.relu(x) if relu else x).double(), weight.double(), None if bias is None else bias.double(),
                    padding=1)


@needs_compiler
@pytest.mark.parametrize("shape", [(1, 16, 32, 1, 1), (1, 48, 32, 4, 4), (2, 32, 96, 5, 7), (1, 16, 64, 17, 30),
                                   (3, 16, 32, 8, 3)])
@pytest.mark.parametrize(("bias", "relu", "order"), [(True, False, torch.channels_last),
                                                     (False, True, torch.contiguous_format)])
@pytest.mark.parametrize("tiles", TRANSFORMS)
def test_the_kernel_gives_the_convolution(shape, bias, relu, order, tiles):
    x, weight, offset = example(*shape, bias)
    found = winograd._convolve_by_kernel(x.contiguous(memory_format=order), weight.contiguous(memory_format=order),
                                         offset, relu, TRANSFORMS[tiles])
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), direct(x, weight, offset, relu), rtol=1e-5, atol=4e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (1, 3, 5, 4, 4), (2, 8, 6, 5, 7), (1, 16, 4, 17, 30),
                                   (3, 2, 9, 8, 3)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("at_once", [1, 2 ** 17])            # one row of tiles at a time, or all
@pytest.mark.parametrize("large_tiles", [True, False])
def test_pytorch_gives_the_convolution(shape, bias, relu, order, at_once, large_tiles, monkeypatch):
    monkeypatch.setattr(winograd, "ELEMENTS_IN_STRIPE", at_once)
    monkeypatch.setattr(winograd, "MIN_PIXELS_LARGE_TILES", 0 if large_tiles else 10 ** 9)
    x, weight, offset = example(*shape, bias)
    found = winograd.convolve(x.contiguous(memory_format=order), weight.contiguous(memory_format=order), offset, relu)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), direct(x, weight, offset, relu), rtol=1e-5,
                               atol=4e-5 if large_tiles else 2e-5)


@needs_compiler
@pytest.mark.parametrize(("tiles", "bound"), [("small tiles", 5e-6), ("large tiles", 1e-5)])
def test_the_kernel_computes_large_images_in_stripes(tiles, bound):
    x, weight, offset = example(1, 256, 64, 120, 100)
    exact = direct(x, weight, offset)
    found = winograd._convolve_by_kernel(x, weight, offset, False, TRANSFORMS[tiles])
    assert (found.double() - exact).norm() / exact.norm() < bound


@needs_compiler
@pytest.mark.parametrize("tiles", TRANSFORMS)
def test_the_kernel_gives_the_same_with_any_number_of_threads(tiles):
    x, weight, offset = example(1, 64, 96, 40, 40)
    expected = winograd._convolve_by_kernel(x, weight, offset, False, TRANSFORMS[tiles])
    threads = torch.get_num_threads()
    for number in (1, 5):
        torch.set_num_threads(number)
        try:
            found = winograd._convolve_by_kernel(x, weight, offset, False, TRANSFORMS[tiles])
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(found, expected)


@needs_compiler
def test_the_kernel_can_be_called_in_several_python_threads():
    examples = [example(1, 32 * (1 + i % 3), 64, 20 + i, 30) for i in range(12)]
    expected = [winograd._convolve_by_kernel(*arguments, False, winograd.SMALL_TILES) for arguments in examples]
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda arguments: winograd._convolve_by_kernel(*arguments, False, winograd.SMALL_TILES),
                           examples)]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("channels", "dtype"), [(128, torch.float32), (64, torch.float64)])
def test_pytorch_reports_what_does_not_fit(channels, dtype, implementation):
    with torch.inference_mode(), pytest.raises(RuntimeError):
        Conv3x3(64, 64).to(dtype)(torch.zeros(1, channels, 24, 24))


@needs_compiler
@pytest.mark.parametrize("relu", [True, False])
def test_the_kernel_hides_no_infinite_or_missing_number(relu):
    for value in (torch.nan, torch.inf):
        x, weight, _ = example(1, 16, 32, 24, 24, bias=False)
        x[0, 3, 12, 12] = value
        found = winograd._convolve_by_kernel(x, weight, None, relu, winograd.SMALL_TILES)
        assert not found[0, :, 11:14, 11:14].isfinite().any()
        assert found[0, :, :6].isfinite().all()


def test_the_kernel_serves_multiples_of_its_vectors_only(monkeypatch):
    monkeypatch.setattr(winograd, "_kernel", lambda: pytest.fail)
    assert winograd._is_compiled_for(torch.empty(64, 48, 3, 3))
    x, weight, offset = example(1, 24, 40, 9, 9)
    torch.testing.assert_close(winograd.convolve(x, weight, offset).double(), direct(x, weight, offset), rtol=1e-5,
                               atol=2e-5)


def test_filters_are_loaded_in_channels_last_order(weights):
    for name, filters in load_network(weights).named_parameters():
        if filters.dim() == 4 and min(filters.shape) > 1:
            assert filters.is_contiguous(memory_format=torch.channels_last), name


@pytest.mark.parametrize("outputs_at_once", [1, 2, 5])
def test_output_channels_are_computed_in_parts(outputs_at_once, monkeypatch):
    x, weight, offset = example(2, 8, 5, 14, 9)
    expected = winograd.convolve(x, weight, offset)
    monkeypatch.setattr(winograd, "OUTPUTS_AT_ONCE", outputs_at_once)
    torch.testing.assert_close(winograd.convolve(x, weight, offset), expected)


def test_results_do_not_share_memory_with_later_calls(implementation, monkeypatch):
    monkeypatch.setattr(winograd._kept, "elements", torch.empty(0))
    monkeypatch.setattr(winograd, "MEMORY", 0)
    first, second = example(1, 16, 32, 12, 12), example(1, 32, 64, 30, 40)
    with torch.inference_mode():
        result = winograd.convolve(*first)
    copy = result.clone()
    with torch.no_grad():                   # memory kept from inference mode
        winograd.convolve(*second)
        assert torch.equal(winograd.convolve(*first), copy)
    assert torch.equal(result, copy)


def test_global_defaults_of_pytorch_do_not_matter(implementation, monkeypatch):
    monkeypatch.setattr(winograd, "_kept", winograd._Kept())
    x, weight = torch.randn(1, 4, 9, 9), torch.randn(4, 4, 3, 3)
    if implementation == "compiled":
        x, weight, _ = example(1, 16, 32, 9, 9, bias=False)
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
def test_its_error_is_a_few_roundings(height, width, bound, implementation):
    x, weight, _ = example(1, 256, 64, height, width, bias=False)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    error = (winograd.convolve(x, weight).double() - exact).norm() / exact.norm()
    assert error < bound


def test_it_serves_wide_layers_in_inference_only(implementation):
    x, weight, _ = example(1, 512, 512, 60, 108)
    with torch.inference_mode():
        assert winograd.should_use_winograd(x, weight)
        assert not winograd.should_use_winograd(x[..., :8, :8], weight)
        assert not winograd.should_use_winograd(torch.empty(1, 48, 270, 480), torch.empty(48, 48, 3, 3))
        assert not winograd.should_use_winograd(x.double(), weight.double())
        assert winograd.should_use_winograd(torch.empty(1, 64, 60, 108), torch.empty(96, 64, 3, 3)) == (
            implementation == "compiled")
        with torch.autocast("cpu", torch.bfloat16):
            assert not winograd.should_use_winograd(x, weight)
    assert not winograd.should_use_winograd(x, weight)


def test_what_is_traced_contains_no_compiled_code(implementation):
    conv, (x, *_) = Conv3x3(64, 64), example(1, 64, 64, 20, 20)
    with torch.no_grad():
        traced = torch.jit.trace(conv, torch.zeros_like(x))
        assert winograd.should_use_winograd(x, conv.weight) == (implementation == "compiled")
        torch.testing.assert_close(traced(x), F.conv2d(x, conv.weight, conv.bias, padding=1), rtol=1e-4, atol=1e-5)
        exported = torch.export.export(conv, (torch.zeros_like(x),)).module()
        torch.testing.assert_close(exported(x), F.conv2d(x, conv.weight, conv.bias, padding=1), rtol=1e-4, atol=1e-5)


def test_parts_of_a_convolution_add_up(implementation, monkeypatch):
    monkeypatch.setattr(winograd, "should_use_winograd", lambda x, weight: True)
    channels, outputs, first = (48, 32, 16) if implementation == "compiled" else (12, 7, 5)
    conv, (x, *_) = Conv3x3(channels, outputs), example(1, channels, outputs, 9, 14)
    with torch.inference_mode():
        parts = partial_convolution(conv, x[:, :first]) + partial_convolution(conv, x[:, first:], first_channel=first)
        torch.testing.assert_close(parts, F.conv2d(x, conv.weight, conv.bias, padding=1), rtol=1e-4, atol=1e-5)
