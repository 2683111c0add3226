"""What probes say together, in words: one sentence for each verdict and state."""

import json
from typing import Any

import pytest
from example_findings import run_of
from example_probes import findings_of

from sagan_bench.analysis.dependence import State
from sagan_bench.analysis.probed_runs import LeftOut
from sagan_bench.analysis.question import Measure
from sagan_bench.analysis.verdicts import Verdict
from sagan_bench.report import probed
from sagan_bench.report.findings import findings as in_words

NOISE = (-0.02, -0.01, 0.0, 0.01, 0.02)
VALUES = {
    probed.Side.BETTER: [0.52, 0.49, 0.55, 0.50, 0.56],
    probed.Side.SAME: [0.301, 0.303, 0.299, 0.302, 0.298],
    probed.Side.OPEN: [0.2, 0.45, 0.31, 0.25, 0.4],
    probed.Side.WORSE: [0.12, 0.09, 0.05, 0.10, 0.06],
}
THEIRS = [0.302, 0.298, 0.3, 0.297, 0.303]
PROBES: dict[State, list[dict[str, Any]]] = {
    State.DEPENDS: [{"applied": 0.1 + x} for x in NOISE],
    State.DOES_NOT: [{"applied": 0.5 + x} for x in NOISE],
    State.CANNOT_TELL: [{"applied": 0.45 + x} for x in NOISE],
    State.AGAINST: [{"applied": 0.9 + x} for x in NOISE],
    State.NORMALISATION: [{"applied": 0.1 + x, "frozen": 0.5} for x in NOISE],
}
SAID = {
    (
        "better",
        "depends on the map",
    ): "sagan is better than no-attention by as much as matters, and "
    "its finished weights depend on the map; that the map is why training went better is not shown",
    ("better", "does not depend on the map"): "sagan is better than no-attention by as much as "
    "matters, and its finished weights do without the map: what is better about them does not go",
    ("better", "cannot tell"): "sagan is better than no-attention by as much as matters, and "
    "whether its finished weights depend on the map is open",
    ("same", "depends on the map"): "sagan and no-attention do not differ by as much as matters, "
    "and yet the finished weights of sagan depend on the map",
    ("same", "does not depend on the map"): "sagan and no-attention do not differ by as much as "
    "matters, and the finished weights of sagan do without the map",
    ("same", "cannot tell"): "sagan and no-attention do not differ by as much as matters, and "
    "whether the finished weights of sagan depend on the map is open",
    ("open", "depends on the map"): "whether sagan differs from no-attention by as much as matters "
    "is open; that its finished weights depend on the map does not decide it",
    ("open", "does not depend on the map"): "whether sagan differs from no-attention by as much as "
    "matters is open; that its finished weights do without the map does not decide it",
    (
        "open",
        "cannot tell",
    ): "neither whether sagan differs from no-attention by as much as matters "
    "nor whether its finished weights depend on the map can be told",
    ("worse", "depends on the map"): "sagan is worse than no-attention by as much as matters, and "
    "its finished weights depend on the map: that they need it now does not mean",
    ("worse", "does not depend on the map"): "sagan is worse than no-attention by as much as "
    "matters, and its finished weights do without the map: what is worse about them",
    ("worse", "cannot tell"): "sagan is worse than no-attention by as much as matters, and whether "
    "its finished weights depend on the map is open",
}


def said(side: probed.Side, state: State, **changed: Any) -> str:
    numbers = findings_of(VALUES[side], THEIRS, PROBES[state], **changed)
    verdict = numbers.primary.comparisons[0].verdict
    assert probed.Side.of(verdict) is side or changed
    told = in_words(numbers).probes
    assert told is not None
    return told.sentences[0]


@pytest.mark.parametrize("key", SAID, ids=" x ".join)
def test_each_verdict_with_each_state_has_its_sentence(key: tuple[str, str]) -> None:
    text = said(probed.Side(key[0]), State(key[1]))
    assert text.startswith(SAID[key])
    assert "n = 5" in text


def test_no_sentence_is_missing_or_said_twice() -> None:
    three = (State.DEPENDS, State.DOES_NOT, State.CANNOT_TELL)
    assert set(probed.TOGETHER) == {(side, state) for side in probed.Side for state in three}
    sentences = [*probed.TOGETHER.values(), *probed.STATES.values()]
    named = [
        text.format(claim=key, variant="v", baseline="b") for key, text in enumerate(sentences)
    ]
    assert len(set(named)) == len(sentences)
    assert set(probed.STATES) == set(State)
    assert set(probed.WHY_LEFT_OUT) == set(LeftOut)


@pytest.mark.parametrize("side", probed.Side)
def test_a_map_that_harms_and_normalisation_are_said_alone(side: probed.Side) -> None:
    harms = said(side, State.AGAINST)
    assert harms.startswith("the finished weights of sagan are worse with their map")
    assert said(side, State.NORMALISATION).startswith("no word on the map of sagan")


def test_differs_is_open_and_so_is_what_has_no_verdict() -> None:
    for verdict in (Verdict.DIFFERS, Verdict.INCONCLUSIVE, None):
        assert probed.Side.of(verdict) is probed.Side.OPEN


def test_no_sentence_says_why_training_went_better() -> None:
    for side, state in probed.TOGETHER:
        text = said(side, state)
        assert "because" not in text
        assert "thanks to" not in text
        assert "scaffold" not in text


@pytest.mark.parametrize(
    ("side", "state", "is_said"),
    [
        (probed.Side.BETTER, State.DOES_NOT, True),
        (probed.Side.BETTER, State.DEPENDS, False),
        (probed.Side.SAME, State.DOES_NOT, False),
    ],
)
def test_scaffold_is_said_where_arms_with_attention_in_one_network_stand_beside(
    side: probed.Side, state: State, is_said: bool
) -> None:
    more = [(run_of("d-only", 0, 0.5), None)]
    numbers = findings_of(VALUES[side], THEIRS, PROBES[state], more=more)
    told = in_words(numbers).probes
    assert told is not None
    assert told.in_one_network == ("d-only",)
    scaffold = "a scaffold, of use in training alone: hold it to d-only"
    assert (scaffold in told.sentences[0]) == is_said


def test_what_is_missing_and_what_a_metric_does_not_see_is_said() -> None:
    probes: list[Any] = [*PROBES[State.DOES_NOT], None]
    numbers = findings_of([*VALUES[probed.Side.BETTER], 0.5], THEIRS, probes)
    told = in_words(numbers).probes
    assert told is not None
    assert told.sentences[0].startswith(
        "the map of sagan (provisional: 1 probe still to come, no word); "
    )
    assert "1 run left out, which was not probed" in told.sentences[0]
    fid = Measure(metric="fid", min_effect=5)
    text = said_of_fid(fid)
    assert "hardly sees" in text


def said_of_fid(measure: Measure) -> str:
    probes = [{"applied": 50 + x, "sham": 50.0, "untouched": 50.0, "metric": "fid"} for x in NOISE]
    told = in_words(
        findings_of([50, 51, 52, 49, 50], [50, 51, 52, 49, 50], probes, measure=measure)
    )
    assert told.probes is not None
    assert told.probes.dependences[0].state is State.DOES_NOT
    return told.probes.sentences[0]


def test_the_figures_stand_behind_the_words() -> None:
    text = said(probed.Side.BETTER, State.DEPENDS)
    assert (
        "0.5 untouched; a uniform map changes it by -0.4, a sham of that size by +0: excess -0.4 "
        "[-0.42, -0.38] (-0.4 with frozen statistics), n = 5" in text
    )


def test_plain_findings_have_probes_only_where_there_are() -> None:
    values = VALUES[probed.Side.BETTER]
    told = in_words(findings_of(values, THEIRS, PROBES[State.DEPENDS])).plain()["probes"]
    (of_sagan,) = json.loads(json.dumps(told))["dependences"]
    assert (of_sagan["state"], of_sagan["standing"]) == ("depends on the map", "confirmatory")
    assert "probes" not in in_words(findings_of(values, THEIRS, [None] * 5)).plain()
