"""How each kind of report was judged, what it does not claim, and what its words mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sagan_bench.evaluation.metrics import shown


@dataclass(frozen=True)
class Method:
    """The method of a kind of report in words."""

    judged: Sequence[str]
    not_claimed: Sequence[str]
    glossary: Mapping[str, str]


JUDGED = (
    "The unit is one training run: figures over sampling seeds are averaged within it. n is the "
    "number of training seeds.",
    "The endpoint is the last step's averaged weights, never the best of the run.",
    "“Better” or “worse” needs an interval without 0 (Welch's t, Bonferroni over the family) and a "
    "difference beyond the smallest that matters; “by as much as matters”, all of the interval "
    "beyond it; “by divergence”, a rank test in which diverged runs are worst.",
    "A diverged or failed run stays an attempted one: it can weaken a claim, and never drops out.",
    "“Per step, not per FLOP shown” stands where the variant computes more a step and as much is "
    "shown neither at equal FLOPs nor against a control without attention of as many FLOPs.",
    "Verdicts need five runs a variant, three or four give intervals only, fewer give points.",
)
NOT_CLAIMED = (
    "“Inconclusive” does not say that there is no difference.",
    "Nothing is said about other data, sizes, budgets or learning rates than those here.",
    "Secondary readings are described, not tested; no ranking follows from them.",
    "Two variants better than a baseline are not compared with each other.",
    "Maps of attention show where a block looks, not that looking there helps.",
)
GLOSSARY = {
    **dict(metric.glossary for metric in shown().values() if metric.glossary),
    "γ": "The learned weight of an attention block in y = x + γ o; 0 at the start.",
    "pairs ahead": "Of all pairs of a run of the variant and one of its baseline, those in which "
    "it is better; ties count half, diverged runs as worst. In brackets the 95 % interval of that "
    "chance (Newcombe).",
    "95 % interval": "Of the difference of means (Welch). All intervals of the study hold at once.",
    "smallest difference that matters": "Fixed before the runs; smaller ones are never a verdict.",
}
THEIR_UNIT = "The unit is one training run. n is the number of training seeds."
THEIR_ENDPOINT = (
    "The endpoint is the figure that the program or the table gives; of which weights and images "
    "it is, only they know."
)
TUNING_JUDGED = (
    "Every trial of a search trains at the search's one seed; trial 0 has the preset's own values.",
    "The best three and the preset's own values train again on fresh seeds (set A), and the best "
    "of them there is chosen.",
    "It and the preset's own train once more on other fresh seeds (set B), on which nothing is "
    "chosen: that counts, and shows what the search brought.",
    "Several variants have equally many trials, one budget and pruner, and one space minus what "
    "they lack.",
    "The unit of a comparison is a search, not a run; verdicts need five searches a variant. They "
    "are given at looks after 5, 8, 12, ... searches, each at a price fixed beforehand; searches "
    "end where each pair has its answer, or little hope of it.",
    "A diverged trial counts as the worst value so far and teaches the sampler where not to go.",
)
TUNING_NOT_CLAIMED = (
    "What one search found, another may not have: of fewer than five nothing is claimed.",
    "Nothing is said about longer trainings: values were found at the budget of a trial.",
    "Importance says what varied the objective in this search, not what matters elsewhere.",
    "Nothing is said about values outside the space.",
)
TUNING_GLOSSARY = {
    "trial": "One training run with values that the sampler proposed.",
    "pruned": "Ended early, because its scores on the way were among the worst.",
    "set A, set B": "Training seeds that the search never saw: to choose on, and to report.",
    "too optimistic": "By how much the search's own figure flatters the winner: the best of many "
    "noisy figures is partly luck.",
}
METHODS = {
    "study": Method(JUDGED, NOT_CLAIMED, GLOSSARY),
    "program": Method(
        (THEIR_UNIT, THEIR_ENDPOINT, *JUDGED[2:4], *JUDGED[5:]),
        NOT_CLAIMED[:-1],
        {term: GLOSSARY[term] for term in ("pairs ahead", "95 % interval")},
    ),
    "lengths": Method(
        (
            "The unit is one training run: figures over sampling seeds are averaged within it.",
            "Runs of different length stand side by side: every final figure is of its run's last "
            "step, by averaged weights.",
            "At equal step stand scores on the way, of fewer images than the final ones. A column "
            "is one metric by one protocol: figures of two protocols are never put together.",
            "A diverged or failed run stays: it has no figure, and is counted.",
        ),
        (
            "Nothing is said about which runs to prefer: a longer run had more steps, and what "
            "else differs is listed.",
            "Nothing is said about what a shorter run would have come to.",
        ),
        {
            "score on the way": "A score made while a run trained, of averaged weights and of as "
            "many images as run.eval_images says.",
            "protocol": "All that makes two figures comparable: extractor, images, sampling, "
            "settings. Its fingerprint stands beside each figure.",
        },
    ),
    "tuning": Method(TUNING_JUDGED, TUNING_NOT_CLAIMED, TUNING_GLOSSARY),
}
"""By the kind of report; ``program``: of runs that another program made."""
