"""How finished weights depend on the maps of attention: what probes say, and what they show."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from sagan_bench.analysis import probed_arms
from sagan_bench.core.registry import SECTIONS
from sagan_bench.report.compared import VARIANT
from sagan_bench.report.document import Document, Series
from sagan_bench.report.formats import MISSING, command, decimals, number, span
from sagan_bench.report.frames import Cell, Column, Frame, Row, Values
from sagan_bench.report.pictures import shown
from sagan_bench.report.probed import CHANGES
from sagan_bench.report.readings import Probed
from sagan_bench.report.sections import _curves
from sagan_bench.report.sections._base import (
    Block,
    Charts,
    Code,
    Export,
    Fold,
    Heading,
    Part,
    Pictures,
    Section,
    Text,
)
from sagan_bench.report.svg import Drawn, Theme

WHAT = (
    "Finished weights and every noise are kept, and only what a block of attention does is "
    "changed. That says how the finished weights depend on its map, and nothing of why training "
    "went better. What counts of a change is its excess over a sham: a change as large that has "
    "nothing to do with the map."
)
NOT_PROBED = "No run was probed. What follows is from training alone; this measures the rest:"
ROW = (
    "The same place in each row is the same noise. Sham: a change of the branch as large as that "
    "by a uniform map, which has nothing to do with the map."
)
MASS = (
    "Of what the queries of one shape take in, the share that comes from its twin, less the same "
    "by the map of another image: above 0 the block looks there because of this image. "
    "One thin line a seed; thick: the median."
)
EXCESS = "the figure less that of the sham"
SHORT = {"generator": "G", "discriminator": "D"}
FROZEN = "likewise, with BatchNorm's statistics of the untouched network"


def _plain(key: str, title: str, about: str = "") -> Column:
    return Column(key, title, lambda row: number(row[key], row["places"]), help=about)


def _signed(key: str, title: str, about: str = "") -> Column:
    return Column(key, title, lambda row: number(row[key], row["places"], signed=True), help=about)


def _share(key: str, title: str, about: str) -> Column:
    def show(row: Values) -> str:
        return MISSING if row[key] is None else f"{row[key]:.0%}"

    return Column(key, title, show, help=about)


def _interval(about: str) -> Column:
    def show(row: Values) -> Cell:
        return Cell(span(row["interval"], row["places"]), row["interval"] and row["interval"][0])

    return Column("interval", "95 % interval", show, help=about)


PRIMARY = (
    VARIANT,
    Column("says", "Finished weights", numeric=False),
    Column("n", "Runs"),
    _plain("untouched", "Untouched"),
    _signed("effect", "Uniform map", "the figure less the untouched one"),
    _signed("sham_effect", "Sham", "likewise"),
    _signed("excess", "Excess", EXCESS),
    _interval("of the excess, over training seeds"),
    _signed("excess_frozen", "Frozen", FROZEN),
)
CONTROLS = (
    VARIANT,
    Column("control", "Control", numeric=False),
    Column("side", "Side, px", help="of the block's feature map"),
    _signed("without", "Left out", "excess over the sham without the variant's block"),
    _signed("control_without", "Control's", "likewise, without the control's"),
    _signed("difference", "Difference"),
    _interval("Welch's, of this one alone"),
)
MASSES = (
    VARIANT,
    Column("block", "Block of G", numeric=False),
    Column("n", "Runs"),
    _share("mass", "On the twin", "of what a shape takes in, weighted by |βv|"),
    _share("chance", "Chance", "by the map of another image: what places and values give"),
)
ARMS = (
    VARIANT,
    Column("place", "Block", numeric=False),
    Column("intervention", "Map replaced by", lambda row: _change(row), numeric=False),
    Column("keeps_rms", "RMS", lambda row: "kept" * row["keeps_rms"], numeric=False,
           help="whether each image's branch keeps its size"),
    Column("n", "Runs"),
    Column("figure", "Figure", help="of G by the study's metric; of D the share of pairs in which "
           "it ranks the real image higher"),
    _signed("excess", "Excess", EXCESS),
    _signed("excess_frozen", "Frozen", FROZEN),
    _share("changed", "Pixels", "that are off by more than 1/255"),
    Column("breaks", "Breaks most", lambda row: _breaks(row), numeric=False,
           help="condition of the rule, and the share of images that met it untouched"),
)  # fmt: skip
ARMS_FILED = (
    "variant", "network", "block", "intervention", "keeps_rms", "primary", "n", "untouched",
    "figure", "sham", "excess", "excess_frozen", "changed", "breaks", "breaks_share", "reason",
)  # fmt: skip


@SECTIONS.register("used")
class Used(Section):
    """How finished weights depend on the maps of attention."""

    order = 52
    title = "Is it used?"
    of = ("study",)

    def collect(self, source: Any) -> dict[str, Any]:
        """Return the means of every arm and of the masses, where runs were probed."""
        probed = source.findings.probes
        if probed is None:
            return {}
        probes = probed_arms.probes_of(source.collection, probed.fingerprint)
        return {
            "arms": [asdict(arm) for arm in probed_arms.arms(probes, probed.metric)],
            "masses": [asdict(mass) for mass in probed_arms.masses(probes)],
        }

    def render(self, document: Document, theme: Theme) -> Iterator[Block]:
        """Yield what probes say, a picture at the same noise, and the mass on the twin."""
        probed = document.findings.probes
        charts = Charts(list(_mass_charts(document, theme)))
        if probed is None and not charts.charts:
            return
        parts: list[Part] = [Text(WHAT)]
        exports = list[Export]()
        if probed is None:
            parts += [Text(NOT_PROBED), Code(command("probe", document.called))]
        else:
            parts += _said(probed)
            if drawn := shown(document, theme.content, "probe"):
                parts += [Heading("At the same noise", "same-noise"), Text(ROW), Pictures(drawn)]
        data = document.sections.get(self.name, {})
        if masses := data.get("masses"):
            caption = "What a shape takes in from its twin, at the end: means over runs"
            parts.append(Frame("masses", caption, MASSES, _rows(masses)))
        parts.append(charts)
        if arms := data.get("arms"):
            caption = "Every change of every block: means over runs"
            rows = _rows(map(_arm, arms))
            table = Frame("arms", caption, ARMS, rows, filed=ARMS_FILED)
            parts.append(Fold("Every intervention", [table]))
            exports.append(Export({"arms.csv": table.to_csv()}, caption))
        yield self.block(*parts, exports=exports)


def _said(probed: Probed) -> Iterator[Part]:
    for sentence in probed.sentences:
        yield Text(f"{sentence[0].upper()}{sentence[1:]}.")
    if probed.dependences:
        places = decimals(each.untouched for each in probed.dependences)
        rows = [
            {**asdict(each), "says": each.state or each.standing, "places": places}
            for each in probed.dependences
        ]
        caption = f"{probed.label} with uniform maps in G, the branch's size kept, and its sham"
        yield Frame("used", caption, PRIMARY, _rows(rows))
    if probed.beside_controls:
        rows = [
            {**asdict(each), "places": decimals((each.without, each.control_without))}
            for each in probed.beside_controls
        ]
        caption = f"{probed.label} a block of G left out, excess over the sham"
        yield Frame("used-controls", caption, CONTROLS, _rows(rows))


def _rows(rows: Iterable[dict[str, Any]]) -> list[Row]:
    return [Row(row, variant=row["variant"]) for row in rows]


def _change(row: Values) -> str:
    name = str(row["intervention"])
    return CHANGES.get(name, name)


def _breaks(row: Values) -> str:
    if row["reason"]:
        return f"not made: {row['reason']}"
    return f"{row['breaks']} {row['breaks_share']:.0%}" if row["breaks"] else MISSING


def _arm(arm: dict[str, Any]) -> dict[str, Any]:
    places = decimals((arm["figure"], arm["untouched"]))
    return {**arm, "place": f"{SHORT[arm['network']]} {arm['block']}", "places": places}


def _mass_charts(document: Document, theme: Theme) -> Iterator[Drawn]:
    beyond = list(beyond_chance(document.series))
    label = "attention on the twin, beyond chance"
    yield from _curves.charts(beyond, "mass", label, theme, MASS)


def beyond_chance(series: tuple[Series, ...]) -> Iterator[Series]:
    """Yield the curves of the mass on the twin less chance, of each block and run."""
    by_key = {(of.name, of.variant, of.seed): of for of in series}
    for (name, variant, seed), mass in by_key.items():
        reading, _, block = name.partition(".")
        chance = by_key.get((f"chance.{block}", variant, seed))
        if reading == "mass" and chance is not None:
            at = dict(zip(chance.steps, chance.values, strict=True))
            values = (
                None if value is None or (there := at.get(step)) is None else value - there
                for step, value in zip(mass.steps, mass.values, strict=True)
            )
            yield mass.model_copy(update={"values": tuple(values)})
