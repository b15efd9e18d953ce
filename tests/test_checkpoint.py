"""Weights files: damage is noticed, differences are named, BatchNorm is folded."""
import pytest
import torch
from torch import nn

from model.checkpoint import check_state, fold_batch_norm, load_state, read_file, read_state, save
from model.variants import lite_network, published_network
from scripts.shrink_weights import shrink_weights
from util.cli import InputError


def test_one_flipped_bit_is_noticed(tmp_path):
    path, weights = tmp_path / "weights.pth", torch.arange(100.0)
    save({"network": {"w": weights}}, path)
    content = path.read_bytes()
    position = content.index(weights.numpy().tobytes()) + 200
    path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1:])
    assert torch.load(path, weights_only=True)["network"]["w"].isfinite().all()        # PyTorch does not notice
    with pytest.raises(InputError, match=r"weights\.pth: not a readable PyTorch weights file \(damaged, cut off"):
        read_file(path)


@pytest.mark.parametrize("content", [b"", b"text", "cut", "folder"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "weights.pth"
    if content == "cut":
        save({"w": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:-300])
    elif content == "folder":
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"weights\.pth: (not a readable|no such)"):
        read_file(path)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
def test_cut_off_files_of_old_versions_are_refused(tmp_path, share):
    path = tmp_path / "weights.pth"
    torch.save({f"layer{index}": torch.zeros(3) for index in range(20)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    for length in range(int(share * len(content)), int(share * len(content)) + 40):
        path.write_bytes(content[:length])
        with pytest.raises(InputError, match="not a readable PyTorch weights file"):
            read_file(path)


def test_files_of_old_versions_and_wrapped_networks_are_read(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"module.w": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_state(path)["w"], torch.ones(2))


def test_weights_of_a_checkpoint_are_its_average_if_it_has_one(tmp_path):
    content = {"it": 3, "network": {"w": torch.zeros(2)}}
    save(content, tmp_path / "without.pth")
    save(content | {"average": {"w": torch.ones(2)}}, tmp_path / "with.pth")
    assert torch.equal(read_state(tmp_path / "without.pth")["w"], torch.zeros(2))
    assert torch.equal(read_state(tmp_path / "with.pth")["w"], torch.ones(2))


@pytest.mark.parametrize(("state", "message"), [
    ({}, "holds no network weights"), ("text", "holds no network weights"), ({"a": 3}, "holds no network weights"),
    ({1: torch.ones(1)}, "holds no network weights"), ({"a": torch.tensor([torch.inf])}, "a is not made of finite"),
    ({"a": torch.ones(1, dtype=torch.complex64)}, "a is not made of finite numbers"),
])
def test_states_are_checked(tmp_path, state, message):
    with pytest.raises(InputError, match=f"^x.pth: .*{message}"):
        check_state(state, "x.pth")


def test_differences_are_named():
    network = lite_network()
    state = network.state_dict()
    first, second, *_ = state
    del state[first]
    state[second], state["new"] = torch.zeros(3), torch.zeros(1)
    with pytest.raises(InputError) as error:
        load_state(network, state, "x.pth")
    shape = tuple(network.state_dict()[second].shape)
    assert str(error.value) == (f"x.pth: weights of another network (lacks 1 tensor such as {first}; also has 1 tensor "
                                f"such as new; {second} is (3,), not {shape})")


class Block(nn.Module):
    """Two convolutions with BatchNorm, whose attributes are in another order than they are used."""

    def __init__(self):
        super().__init__()
        self.bn2, self.bn1 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1, bias=False)
        self.downsample = nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))
        for norm in (self.bn1, self.bn2, self.downsample[1]):
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            nn.init.normal_(norm.weight)

    def forward(self, x):
        return self.downsample(self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())))


def test_batch_norm_is_folded_into_its_convolution_whatever_the_order_of_attributes():
    torch.manual_seed(0)
    block, x = Block().eval(), torch.randn(1, 3, 5, 5)
    with torch.no_grad():
        expected = block(x)
        fold_batch_norm(block)
        torch.testing.assert_close(block(x), expected)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in block.modules())
    del block.conv1
    block.bn1 = nn.BatchNorm2d(4)
    with pytest.raises(KeyError, match="conv1"):
        fold_batch_norm(block)


def test_weights_in_16_bits_are_the_mean_of_the_files(tmp_path):
    networks = [lite_network(), lite_network()]
    paths = [tmp_path / "a.pth", tmp_path / "b.pth"]
    for network, path in zip(networks, paths, strict=True):
        save(network.state_dict(), path)
    shrink_weights(paths, tmp_path / "mean.pth")
    found = read_file(tmp_path / "mean.pth")
    for name, value in networks[0].state_dict().items():
        mean = (value + networks[1].state_dict()[name]) / 2 if value.is_floating_point() else value
        assert torch.equal(found[name], mean.half() if value.is_floating_point() else mean), name
    save(published_network().state_dict(), paths[1])
    with pytest.raises(InputError, match=r"b\.pth: weights of another network than .*a\.pth"):
        shrink_weights(paths, tmp_path / "mean.pth")
