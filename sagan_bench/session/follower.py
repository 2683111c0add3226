"""What every process of a run but the leader does: train on its part, and score its share."""

import torch

from sagan_bench.config.schema import RunConfig
from sagan_bench.core import precision, system
from sagan_bench.core.distributed import DistributedContext
from sagan_bench.core.errors import UserError
from sagan_bench.data.store import Store
from sagan_bench.evaluation.metrics import NonFiniteImages
from sagan_bench.evaluation.scoring import Scorer
from sagan_bench.session.cell import scores_on_the_way
from sagan_bench.session.events import Stop, Stopped
from sagan_bench.training.checkpoint import Checkpoints
from sagan_bench.training.generation import balanced, sampler, standing
from sagan_bench.training.loop import Diverged, TrainState, train
from sagan_bench.training.timing import out_of_memory


def follow(
    config: RunConfig,
    store: Store,
    context: DistributedContext,
    checkpoints: Checkpoints,
    stop: Stop,
) -> None:
    """Do this process's part, step by step with the leader's `Cell`.

    Raises:
        Stopped: any of the processes was asked to stop.
        UserError: the leader's checkpoint is not to be seen from here, or memory ran out.
    """
    torch.set_num_threads(context.broadcast(0))
    precision.use(config.training.precision)
    device = system.open_device(config.run.device)
    with system.memory_for("loading the networks", device):
        state = TrainState(config, device, context)
        if step := context.broadcast(0):
            state.load_state_dict(_checkpoint(checkpoints, step))
    scorer = Scorer(config, store, state.device, lambda done, total: None, context)
    try:
        for event in train(config, state, store):
            if isinstance(event, Diverged):
                return
            if scores_on_the_way(config, event.step):
                with system.memory_for("scoring", device):
                    _score(config, state, scorer, final=False)
            if reason := context.any_rank(stop()):
                raise Stopped(reason, None)
        with system.memory_for("scoring", device):
            _score(config, state, scorer, final=True)
    except NonFiniteImages:
        return  # the leader records it
    except (RuntimeError, MemoryError) as error:
        if not system.is_out_of_memory(error):
            raise
        raise out_of_memory(config, state) from error


def _checkpoint(checkpoints: Checkpoints, step: int) -> dict[str, object]:
    found = checkpoints.latest()
    if found is None or found[0] != step:
        raise UserError(
            f"the checkpoint of step {step} is not in {checkpoints.folder} of this machine; all "
            "processes must see one folder of runs"
        )
    return found[1]


def _score(config: RunConfig, state: TrainState, scorer: Scorer, *, final: bool) -> None:
    """Make the images and features that the leader asks for at this moment; see `Cell`."""
    networks = {"ema": state.ema, "raw": state.generator} if final else {"ema": state.ema}
    samples = {
        weights: sampler(
            standing(config, network, config.evaluation.bn_batches),
            config.model.z_dim,
            labels=balanced(config.model.classes),
            truncation=config.evaluation.truncation,
        )
        for weights, network in networks.items()
    }
    n_fake = config.evaluation.n_fake if final else config.run.eval_images
    for _ in scorer.scores(samples, step=state.step, n_fake=n_fake, final=final):  # type: ignore[arg-type]
        raise AssertionError("only the leader has scores")
