"""What one of several processes does in test_many_processes: started anew, by its rank."""

import json
import os
import sys
from pathlib import Path

import torch
from torch import nn

from sagan_bench.config.schema import RunConfig
from sagan_bench.core import distributed
from sagan_bench.data.building import prepare
from sagan_bench.data.listing import DataSpec
from sagan_bench.models.synchronised import synchronise
from sagan_bench.training.loop import Step, train
from sagan_bench.training.state import TrainState


def normalised(norm: nn.Module, x: torch.Tensor, dy: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the output and every gradient of a BatchNorm, and its statistics."""
    x = x.clone().requires_grad_()
    y = norm(x)
    (y * dy).sum().backward()
    assert x.grad is not None
    found = {"y": y.detach(), "dx": x.grad}
    found |= {name: weight.grad for name, weight in norm.named_parameters()}
    return found | dict(norm.named_buffers())


def batchnorm_case() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Return a BatchNorm, its input (8, 3, 4, 4) and what is multiplied with its output."""
    torch.manual_seed(1)
    x, dy = torch.randn(2, 8, 3, 4, 4, dtype=torch.float64)
    norm = nn.BatchNorm2d(3).double()
    nn.init.normal_(norm.weight)
    return nn.Sequential(norm), x * 3 + 5, dy


def trained(
    config: RunConfig, context: distributed.DistributedContext = distributed.SINGLE_PROCESS
) -> dict[str, object]:
    """Return the state after all steps, and each step's measurements."""
    torch.set_num_threads(1)
    store = prepare(DataSpec.of(config.data))
    state = TrainState(config, torch.device("cpu"), context)
    events = list(train(config, state, store))
    assert all(isinstance(event, Step) for event in events)
    return {"state": state.state_dict(), "rows": [event.row for event in events]}  # type: ignore[union-attr]


def main(configs: str, out: Path) -> None:
    """Normalise, say things to the others and train; the main process writes what came of it."""
    with distributed.joined("cpu") as context:
        norm, x, dy = batchnorm_case()
        found = normalised(synchronise(norm, "cpu"), context.part(x), context.part(dy))
        found |= {name: context.gather(found[name], 8) for name in ("y", "dx")}
        summed = {name: context.all_reduce_mean(found[name]) for name in ("0.weight", "0.bias")}
        found |= {name: value * context.world_size for name, value in summed.items()}
        uneven = torch.arange(7)[slice(*context.span(7))]
        said = {
            "broadcast": context.broadcast(context.rank + 5),
            "all_reduce_min": context.all_reduce_min(context.rank + 3 if context.rank else None),
            "nothing": context.all_reduce_min(None),
            "any_rank": context.any_rank("why" if context.rank == 1 else None),
            "nobody": context.any_rank(None),
            "gather": context.gather(uneven, 7).tolist(),
        }
        runs = {
            name: trained(RunConfig.model_validate(config), context)
            for name, config in json.loads(configs).items()
        }
        if context.is_main_process:
            torch.save({"norm": found, "said": said, "runs": runs}, out)


if __name__ == "__main__":
    assert "RANK" in os.environ
    main(sys.argv[1], Path(sys.argv[2]))
