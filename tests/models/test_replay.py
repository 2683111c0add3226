"""What runs before and after a part of a network, and that it runs once."""

import torch
from torch import Tensor, nn

from sagan_bench.models.replay import around, standing_in


class Net(nn.Module):
    """A layer that is called twice, a nested one, a branch in place, and the part itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.LeakyReLU(inplace=True)
        )
        self.shared = nn.Conv2d(4, 4, 1)
        self.part = nn.Sequential(nn.BatchNorm2d(4), nn.Tanh())
        self.last = nn.Sequential(nn.LeakyReLU(inplace=True), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        h = self.first(x).mul_(0.5)
        return self.last(self.shared(self.part(self.shared(h))))


def test_what_comes_before_runs_once_and_is_handed_on_whole() -> None:
    torch.manual_seed(0)
    net, x = Net().eval(), torch.randn(2, 3, 4, 4)
    calls: list[int] = []
    net.first[0].register_forward_hook(lambda *_: calls.append(1))
    found = around(net, [net.part], x, None)
    assert found.before == (net.first,)
    assert found.norms == (net.part[0], net.last[2])
    calls.clear()
    wanted = net(x)
    with found.once(), torch.no_grad():
        made = [net(x) for _ in range(3)]
    assert len(calls) == 2
    assert all(torch.equal(each, wanted) for each in made)
    assert "forward" not in vars(net.first)
    assert net(2 * x).ne(wanted).any()


def test_a_forward_that_stands_in_goes_with_its_block() -> None:
    net, x = Net().eval(), torch.randn(2, 3, 4, 4)
    wanted = net(x)
    with standing_in(net.part, lambda given: given * 0):
        assert not torch.equal(net(x), wanted)
    assert torch.equal(net(x), wanted)
