"""A study beside a published table: matched by side of map / side of image."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sagan_bench.analysis.collection import RunSet
from sagan_bench.analysis.question import PaperRow, Question
from sagan_bench.analysis.variants import Variant
from sagan_bench.core.registry import ATTENTION


@dataclass(frozen=True)
class PaperLine:
    """A variant as a row of the paper's table."""

    variant: str
    block: str
    """The title of what stands there, or ``none``."""
    channels: int | None
    side: int | None
    share: float | None
    parameters: int
    flops_per_step: int
    mean: float | None
    paper: dict[str, float] | None


def lines(question: Question, variants: Iterable[Variant], runs: RunSet) -> Iterator[PaperLine]:
    """Yield a line for each variant; none where the question has no published table."""
    if question.paper is None:
        return
    for variant in variants:
        config = runs.variants[variant.name][0].config
        facts = question.facts[variant.name]
        places = {(place.side, place.channels) for place in facts.blocks}
        side, channels = next(iter(places)) if len(places) == 1 else (None, None)
        share = side / config.data.image_size if side else None
        block = ATTENTION[config.model.attention.kind].title if places else "none"
        yield PaperLine(
            variant=variant.name,
            block=block,
            channels=channels,
            side=side,
            share=share,
            parameters=facts.parameters_g + facts.parameters_d,
            flops_per_step=facts.flops_per_step,
            mean=variant.summary.mean,
            paper=_figures(question.paper.rows, block, share),
        )


def _figures(rows: Iterable[PaperRow], block: str, share: float | None) -> dict[str, float] | None:
    """Return what the paper has for such a block at such a place; sides in G and D must agree."""
    return next((row.figures for row in rows if (row.block, row.share) == (block, share)), None)
