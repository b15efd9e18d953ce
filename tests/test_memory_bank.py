"""The memory bank and its reading against the definitions, written out densely."""
import pytest
import torch
from commands import needs_compiler

from model import memory_bank, memory_reader
from model.memory_bank import MemoryBank
from model.memory_reader import MemoryBlock, readout

H, W, CK, CV = 5, 7, 8, 6


def dense_readout(query, keys, values, top_k, sigma):
    """The spec word for word: query (Q, C_k), keys (M, C_k), values (M, C_v)."""
    scores = query @ keys.T / CK ** 0.5
    weights = torch.exp(scores - scores.max(dim=1, keepdim=True).values)
    if sigma is not None:
        best = scores.argmax(0)
        y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
        y, x = y.flatten(), x.flatten()
        squared = (y[:, None] - y[best]) ** 2 + (x[:, None] - x[best]) ** 2
        weights = weights * torch.exp(-squared / (2 * sigma ** 2))
    if top_k is not None and top_k < len(keys):
        kept = torch.zeros_like(weights).scatter(1, weights.topk(top_k, dim=1).indices, 1)
        weights = weights * kept
    return weights / weights.sum(1, keepdim=True) @ values


def filled_bank(frames, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    bank, added = MemoryBank(**options), []
    for _ in range(frames):
        key, value = (torch.randn(c, H, W, generator=generator) for c in (CK, CV))
        bank.add(key, value, temporary=False)
        added.append((key, value))
    return bank, added


def rows(frames, which):
    return torch.cat([frame[which].flatten(1).T for frame in frames])


@pytest.mark.parametrize("frames", [1, 3, 9, 40])
@pytest.mark.parametrize("sigma", [None, 1.5])
@pytest.mark.parametrize("top_k", [None, 1, 20, 50, 10 ** 6])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize(("at_once", "locations"), [(2 ** 22, 2 ** 14), (100, 2 ** 14), (10 ** 4, 600), (100, 1)])
def test_reading_is_as_defined_in_blocks_and_slices(frames, sigma, top_k, at_once, locations, gradients, monkeypatch):
    monkeypatch.setattr(memory_reader, "tile_elements", lambda device: at_once)
    monkeypatch.setattr(memory_bank, "LOCATIONS_IN_BLOCK", locations)
    bank, added = filled_bank(frames)
    query = torch.randn(H * W, CK, generator=torch.Generator().manual_seed(1))
    with torch.set_grad_enabled(gradients):
        found = readout(query, bank.blocks(), top_k, sigma, W)
    torch.testing.assert_close(found, dense_readout(query, rows(added, 0), rows(added, 1), top_k, sigma))


@needs_compiler
@pytest.mark.parametrize("sigma", [None, 7.0])
@pytest.mark.parametrize(("count", "k", "locations"), [(1620, 16, (3000, 1)), (1620, 50, (1620, 1620, 700)),
                                                       (35, 3, (5, 70)), (1, 1, (2,)), (16, 16, (17,)),
                                                       (200, 900, (700, 400))])
def test_the_compiled_search_finds_the_top_k(count, k, locations, sigma):
    generator = torch.Generator().manual_seed(4)
    query = torch.randn(count, 24, generator=generator)
    blocks = [MemoryBlock(torch.randn(number, 24, generator=generator), None) for number in locations]
    kernel = None if sigma is None else memory_reader.Kernel(query, sigma, min(count, 54))
    threads, found = torch.get_num_threads(), []
    for number in (1, 2, 5):
        torch.set_num_threads(number)
        try:
            found.append(memory_reader._compiled_top_k(query, blocks, k, kernel))
        finally:
            torch.set_num_threads(threads)
    for expected, *others in zip(*found, strict=True):
        assert all(torch.equal(expected, other) for other in others)
    scores, indices = found[0]
    every = torch.cat([memory_reader.affinity(query, key) for key, _ in blocks], -1)
    if kernel is not None:
        kernel.weight_(every)
    torch.testing.assert_close(scores.sort(descending=True).values, every.topk(k).values)
    torch.testing.assert_close(scores, every.gather(1, indices))
    assert all(len(set(row)) == k for row in indices.tolist())


@needs_compiler
def test_the_compiled_search_is_used_at_inference_only(monkeypatch):
    monkeypatch.setattr(memory_reader, "_top_k", None)
    bank, _ = filled_bank(3)
    query = torch.randn(H * W, CK)
    with torch.inference_mode():
        readout(query, bank.blocks(), 20, 1.5, W)
        with pytest.raises(TypeError):                  # keys of other channels: left to PyTorch, for its error
            readout(query[:, 1:], bank.blocks(), 20, 1.5, W)
    with pytest.raises(TypeError):
        readout(query, bank.blocks(), 20, 1.5, W)


@needs_compiler
@pytest.mark.parametrize("sigma", [None, 7.0])
@pytest.mark.parametrize("k", [1, 5, 29])
def test_the_compiled_search_hides_no_missing_number(k, sigma):
    generator = torch.Generator().manual_seed(5)
    query, keys, values = (torch.randn(number, 8, generator=generator) for number in (40, 70, 70))
    keys[3] = torch.nan
    with torch.inference_mode():
        assert readout(query, [MemoryBlock(keys, values)], k, sigma, 8).isnan().all()


@needs_compiler
@pytest.mark.parametrize("k", [0, 3])
def test_the_compiled_search_needs_no_query_and_no_k(k):
    query, keys = torch.ones(3 - k, 8), torch.ones(30, 8)
    scores, indices = memory_reader._compiled_top_k(query, [MemoryBlock(keys, None)], k, None)
    assert scores.shape == indices.shape == (3 - k, k)


@pytest.mark.parametrize("length", [10, 255, 4 * 8 * 16, 1000, 5003])
@pytest.mark.parametrize("k", [1, 16, 50])
def test_the_largest_are_those_of_topk(length, k):
    if k > length:
        return
    scores = torch.randn(3, 20, length, generator=torch.Generator().manual_seed(length))
    values, indices = memory_reader.grouped_topk(scores, k)
    assert torch.equal(scores.gather(-1, indices), values)
    assert torch.equal(values.sort(-1, descending=True).values, scores.topk(k, dim=-1).values)


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 1620])
def test_the_largest_of_each_column_is_found(rows):
    scores = torch.randn(2, rows, 30, generator=torch.Generator().manual_seed(rows))
    assert torch.equal(memory_reader.grouped_argmax(scores), scores.argmax(-2))


def test_a_batch_is_read_as_its_members_are():
    generator = torch.Generator().manual_seed(2)
    query, keys, values = (torch.randn(3, n, c, generator=generator) for n, c in ((35, CK), (70, CK), (70, CV)))
    together = readout(query, [MemoryBlock(keys, values)])
    for one in range(3):
        torch.testing.assert_close(together[one], readout(query[one], [MemoryBlock(keys[one], values[one])]))


def contents(bank):
    return torch.cat([keys for keys, _ in bank.blocks()])


def test_a_temporary_frame_lasts_until_the_next():
    bank, added = filled_bank(3)
    temporary = (torch.ones(CK, H, W), torch.ones(CV, H, W))
    bank.add(*temporary, temporary=True)
    assert len(bank) == 4
    assert torch.equal(contents(bank), rows([*added, temporary], 0))
    bank.add(*added[0], temporary=False)
    assert len(bank) == 4
    assert torch.equal(contents(bank), rows([*added, added[0]], 0))


@pytest.mark.parametrize("limit", [1, 2, 3, 6])
def test_a_limited_bank_keeps_the_first_and_the_latest(limit):
    bank, added = filled_bank(20, max_frames=limit)
    expected = [added[0], *added[21 - limit:]]
    # With a limit of 1, a frame that would have stayed serves the next one only.
    assert len(bank) == max(limit, 2) if limit == 1 else len(bank) == limit
    kept = sorted(contents(bank)[:limit * H * W].tolist())
    assert kept == sorted(rows(expected[:limit], 0).tolist())
    bank.add(torch.zeros(CK, H, W), torch.zeros(CV, H, W), temporary=True)
    assert len(bank) == limit + 1
    assert torch.equal(contents(bank)[-H * W:], torch.zeros(H * W, CK))


def test_growing_moves_nothing(monkeypatch):
    monkeypatch.setattr(memory_bank, "LOCATIONS_IN_BLOCK", 6 * H * W + 5)
    bank, _ = filled_bank(5)
    first = bank.blocks()[0][0].data_ptr()
    for _ in range(60):
        bank.add(torch.zeros(CK, H, W), torch.zeros(CV, H, W), temporary=False)
    assert bank.blocks()[0][0].data_ptr() == first
    assert len(bank.blocks()) == 11


@pytest.mark.parametrize("sigma", [None, 1.5])
@pytest.mark.parametrize("top_k", [None, 20])
@pytest.mark.parametrize("gradients", [False, True])
def test_affinities_are_float32_under_amp(top_k, sigma, gradients):
    """With keys of this length, affinities in bfloat16 would differ by 0.25 and choose other locations."""
    generator = torch.Generator().manual_seed(3)
    query, keys, values = (10 * torch.randn(n, CK, generator=generator) for n in (H * W, 70, 70))
    exact = readout(query, [MemoryBlock(keys, values)], top_k, sigma, W)
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(gradients):
        assert memory_reader.affinity(query, keys).dtype == torch.float32
        found = readout(query, [MemoryBlock(keys, values)], top_k, sigma, W)
    torch.testing.assert_close(found.float(), exact, rtol=0.02, atol=0.1)


def test_kernelized_reading_computes_each_affinity_once(monkeypatch):
    bank, _ = filled_bank(9)
    query, seen, affinity = torch.randn(H * W, CK), [], memory_reader.affinity

    def counting(query, key):
        scores = affinity(query, key)
        seen.append(scores.numel())
        return scores
    monkeypatch.setattr(memory_reader, "affinity", counting)
    monkeypatch.setattr(memory_reader, "tile_elements", lambda device: 1000)
    readout(query, bank.blocks(), 20, 1.5, W)
    assert len(seen) > 9
    assert max(seen) <= 1000
    assert sum(seen) == 9 * (H * W) ** 2


def test_a_limit_limits_the_room_that_is_taken():
    bank, _ = filled_bank(5, max_frames=2)
    assert [len(keys) for keys, _ in bank._blocks] == [3 * H * W]
