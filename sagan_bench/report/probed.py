"""What probes say together, in words, for the terminal, files and pages.

They say how finished weights depend on a map, and never why training went better.
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum

from sagan_bench.analysis.dependence import State
from sagan_bench.analysis.probed_runs import LeftOut
from sagan_bench.analysis.probes import Dependence, Probes
from sagan_bench.analysis.verdicts import Comparison, Metric, Standing, Verdict
from sagan_bench.report.formats import many, plural
from sagan_bench.report.readings import Probed
from sagan_bench.report.text import claimed, in_words, standing


class Side(StrEnum):
    """What a study says of a variant against its baseline."""

    BETTER = "better"
    WORSE = "worse"
    SAME = "same"
    OPEN = "open"

    @classmethod
    def of(cls, verdict: Verdict | None) -> "Side":
        """Return the side of a verdict; without one it is open."""
        if verdict is None:
            return cls.OPEN
        if verdict.is_better:
            return cls.BETTER
        if verdict.is_worse:
            return cls.WORSE
        return cls.SAME if verdict is Verdict.SAME else cls.OPEN


STATES = {
    State.DEPENDS: "the finished weights of {variant} depend on the map",
    State.AGAINST: "the finished weights of {variant} are worse with their map: with a uniform one "
    "they do better by more than matters",
    State.DOES_NOT: "the finished weights of {variant} do not depend on the map",
    State.CANNOT_TELL: "whether the finished weights of {variant} depend on the map cannot be told",
    State.NORMALISATION: "no word on the map of {variant}: what it seems to do depends on "
    "normalisation, by more than matters",
}
TOGETHER = {
    (Side.BETTER, State.DEPENDS): "{claim}, and its finished weights depend on the map; that the "
    "map is why training went better is not shown by that",
    (Side.BETTER, State.DOES_NOT): "{claim}, and its finished weights do without the map: what is "
    "better about them does not go through it",
    (Side.BETTER, State.CANNOT_TELL): "{claim}, and whether its finished weights depend on the map "
    "is open",
    (Side.SAME, State.DEPENDS): "{variant} and {baseline} do not differ by as much as matters, and "
    "yet the finished weights of {variant} depend on the map: {baseline} comes as far by its own",
    (Side.SAME, State.DOES_NOT): "{variant} and {baseline} do not differ by as much as matters, "
    "and the finished weights of {variant} do without the map",
    (Side.SAME, State.CANNOT_TELL): "{variant} and {baseline} do not differ by as much as matters, "
    "and whether the finished weights of {variant} depend on the map is open",
    (Side.OPEN, State.DEPENDS): "whether {variant} differs from {baseline} by as much as matters "
    "is open; that its finished weights depend on the map does not decide it",
    (Side.OPEN, State.DOES_NOT): "whether {variant} differs from {baseline} by as much as matters "
    "is open; that its finished weights do without the map does not decide it",
    (Side.OPEN, State.CANNOT_TELL): "neither whether {variant} differs from {baseline} by as much "
    "as matters nor whether its finished weights depend on the map can be told",
    (Side.WORSE, State.DEPENDS): "{claim}, and its finished weights depend on the map: that they "
    "need it now does not mean that training with it served them",
    (Side.WORSE, State.DOES_NOT): "{claim}, and its finished weights do without the map: what is "
    "worse about them does not go through it",
    (Side.WORSE, State.CANNOT_TELL): "{claim}, and whether its finished weights depend on the map "
    "is open",
}
SCAFFOLD = (
    "the block may have been a scaffold, of use in training alone: hold it to {arms}, with "
    "attention in one network"
)
CHANGES = {
    "none": "nothing: the branch left out",
    "uniform": "a uniform map",
    "own-position": "its own position",
    "another-image": "the map of another image",
    "shuffled": "itself, keys shuffled",
    "window": "itself within 3 x 3 keys",
    "temperature-0.5": "itself at temperature 1/2",
    "temperature-2": "itself at temperature 2",
}
"""Intervention -> what a block's map is replaced by."""
WHY_LEFT_OUT = {
    LeftOut.LOST: "diverged or failed, and has no finished weights",
    LeftOut.NOT_PROBED: "was not probed",
    LeftOut.UNREADABLE: "has a probe.json that cannot be read",
    LeftOut.OTHER_WEIGHTS: "has a probe of other weights",
    LeftOut.OTHER_PROTOCOL: "was probed under another protocol",
    LeftOut.NO_MAP: "has no block of G that could be changed by its map",
    LeftOut.NOT_MEASURED: "was probed without this metric (probe --metrics)",
    LeftOut.UNDEFINED: "has a figure that is undefined or not finite",
}


def probed(
    numbers: Probes[Standing], comparisons: Sequence[Comparison[Standing]], metric: Metric
) -> Probed:
    """Return what probes say with a sentence a variant, beside what its comparisons say.

    Args:
        numbers: in figures.
        comparisons: by the study's metric.
        metric: that.
    """
    worded = tuple(
        Dependence(**{**vars(each), "standing": standing(each.standing, "probe")})
        for each in numbers.dependences
    )
    sentences = tuple(
        sentence(each, comparisons, metric, numbers.in_one_network) for each in worded
    )
    return Probed(**{**vars(numbers), "dependences": worded, "sentences": sentences})


def sentence(
    of: Dependence[str],
    comparisons: Sequence[Comparison[Standing]],
    metric: Metric,
    in_one_network: Sequence[str],
) -> str:
    """Return what is said of a variant: together with its verdicts, then figures and limits."""
    parts = [*_words(of, comparisons, in_one_network), _in_figures(of, metric)]
    parts += (
        f"{plural(count, 'run')} left out, which {WHY_LEFT_OUT[why]}"
        if count == 1
        else f"{count} {many('run')} left out, each of which {WHY_LEFT_OUT[why]}"
        for why, count in of.left_out.items()
    )
    if metric.blind_to and of.state in (State.DOES_NOT, State.CANNOT_TELL):
        parts.append(f"{metric.label} hardly sees {metric.blind_to}: of that this says nothing")
    return "; ".join(filter(None, parts))


def _words(
    of: Dependence[str], comparisons: Sequence[Comparison[Standing]], in_one_network: Sequence[str]
) -> Iterator[str]:
    if of.state is None:
        yield f"the map of {of.variant} ({of.standing}, no word)"
        return
    pairs = [in_words(each) for each in comparisons if each.variant == of.variant]
    told = [(each, TOGETHER.get((Side.of(each.verdict), of.state))) for each in pairs]
    if not any(text for _, text in told):
        yield STATES[of.state].format(variant=of.variant)
    for pair, text in told:
        if text:
            names = {"variant": pair.variant, "baseline": pair.baseline}
            yield text.format(claim=claimed(pair), **names)
    is_better = any(Side.of(each.verdict) is Side.BETTER for each in pairs)
    if is_better and of.state is State.DOES_NOT and in_one_network:
        yield SCAFFOLD.format(arms=" and ".join(in_one_network))


def _in_figures(of: Dependence[str], metric: Metric) -> str:
    """Return the figures behind the words; empty where no run has any."""
    if of.excess is None or of.effect is None or of.sham_effect is None:
        return ""
    interval = " [{:.3g}, {:.3g}]".format(*of.interval) if of.interval else ""
    return (
        f"{metric.label} {of.untouched:.3g} untouched; a uniform map changes it by "
        f"{of.effect:+.3g}, a sham of that size by {of.sham_effect:+.3g}: excess "
        f"{of.excess:+.3g}{interval} "
        f"({of.excess_frozen:+.3g} with frozen statistics), n = {of.n}"
    )
