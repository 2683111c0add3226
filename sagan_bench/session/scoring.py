"""When and by which networks a run is scored: averaged weights on the way, at the end as asked."""

from collections.abc import Iterator, Mapping

import torch
from torch import nn

from sagan_bench.config.schema import RunConfig, Weights
from sagan_bench.core.distributed import DistributedContext
from sagan_bench.core.progress import OnProgress
from sagan_bench.data.store import Store
from sagan_bench.evaluation import foreseeing
from sagan_bench.evaluation.foreseeing import ScoringAhead
from sagan_bench.evaluation.sampling import Sample
from sagan_bench.evaluation.scoring import Scorer
from sagan_bench.runs.records import Score
from sagan_bench.training.generation import balanced, sampler, standing
from sagan_bench.training.state import TrainState


class RunScorer:
    """Scores the networks of one run; every process makes its share of images and features.

    Args:
        config: resolved.
        store: the real images.
        device: where images and features are computed.
        progress: called with the images finished and the images in all, of the call under way.
        context: of the processes that score together, which one this is.
    """

    def __init__(
        self,
        config: RunConfig,
        store: Store,
        device: torch.device,
        progress: OnProgress,
        context: DistributedContext,
    ) -> None:
        self.config = config
        self.scorer = Scorer(config, store, device, progress, context)

    def is_due(self, step: int) -> bool:
        """Return whether the averaged weights are scored after a step, whichever it is."""
        every = self.config.run.eval_every
        return bool(every) and step % (every or 1) == 0

    def ahead(self, done: int) -> ScoringAhead:
        """Return what is still to be scored after ``done`` steps."""
        manifest = self.scorer.store.manifest
        return foreseeing.ahead(self.config, manifest, self.scorer.where, done=done)

    def networks(self, state: TrainState, *, final: bool) -> dict[Weights, nn.Module]:
        """Return the generators as `standing` makes them: the raw one at the end only.

        At the end both are exported, so that either can be scored later.
        """
        batches = self.config.evaluation.bn_batches
        networks: dict[Weights, nn.Module] = {"ema": standing(self.config, state.ema, batches)}
        if final:
            networks["raw"] = standing(self.config, state.generator, batches)
        return networks

    def scores(
        self, networks: Mapping[Weights, nn.Module], step: int, *, final: bool
    ) -> Iterator[Score]:
        """Yield the scores of `networks`, on the main process alone.  Raises as `Scorer.scores`.

        At the end only those of the weights that are to be scored (``run.score_weights``).
        """
        run, evaluation = self.config.run, self.config.evaluation
        samples = {
            weights: scored_sampler(self.config, network)
            for weights, network in networks.items()
            if not final or weights in run.score_weights
        }
        n_fake = evaluation.n_fake if final else run.eval_images
        yield from self.scorer.scores(samples, step=step, n_fake=n_fake, final=final)


def scored_sampler(config: RunConfig, generator: nn.Module) -> Sample:
    """Return what draws the images by which a generator is scored: as many of each class."""
    return sampler(
        generator,
        config.model.z_dim,
        labels=balanced(config.model.classes),
        truncation=config.evaluation.truncation,
    )
