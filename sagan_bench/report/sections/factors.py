"""The primary metric by what stands where, and beside a published table."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from sagan_bench.core.registry import ATTENTION, SECTIONS
from sagan_bench.evaluation.protocol import label
from sagan_bench.report import compared
from sagan_bench.report.document import Document, Placed
from sagan_bench.report.formats import MISSING, compact, number
from sagan_bench.report.frames import Column, Frame, Row
from sagan_bench.report.sections._base import Block, Charts, Part, Section, Text
from sagan_bench.report.svg import Drawn, Theme, drawn, panel, wrapped


@SECTIONS.register("factors")
class Factors(Section):
    """The primary metric by what stands where, and beside a published table."""

    order = 60
    title = "Factors"
    of = ("study",)
    fields = True

    def collect(self, source: Any) -> dict[str, Any]:
        """Return where each variant has what, and the published table."""
        placed = {}
        for run in source.runs:
            if attention := run.attention:
                placed[run.variant] = Placed(
                    kind=attention.kind,
                    generator=attention.generator,
                    discriminator=attention.discriminator,
                )
        paper = source.memory.study.paper if source.memory else None
        return {"placed": placed, "paper": paper.model_dump(mode="json") if paper else None}

    def render(self, document: Document, theme: Theme) -> Iterator[Block]:
        """Yield the map of means, and the published table."""
        parts: list[Part] = [Charts(charts)] if (charts := list(_charts(document))) else []
        if document.findings.paper:
            parts.append(_paper(document))
        if paper := document.findings.paper and document.paper:
            size, budget = document.config["data"]["image_size"], document.findings.budget
            note = (
                f"The paper's figures: {paper['title']}; {paper['remark']}. {paper['source']}. "
                f"Here: {size} px, {budget}, {document.findings.primary.label}. Two recipes, two "
                "scales: compare the order within a column, never across."
            )
            parts.append(Text(note, "note"))
        if parts:
            yield self.block(*parts)


def _paper(document: Document) -> Frame:
    """Return the study beside the published table, matched by side of map / side of image."""
    figures, rows = compared.paper(document.findings)
    columns = (
        compared.VARIANT,
        Column("block", "Block", numeric=False),
        Column("side", "Side, px"),
        Column("share", "Side / image",
               lambda row: f"1/{round(1 / row['share'])}" if row["share"] else MISSING),
        Column("mean", f"{document.findings.primary.label} here"),
        *(Column(key, f"paper's {label(key, 'inception')}", places=2) for key in figures),
        Column("channels", "C", help="channels of the feature map"),
        Column("queries", "C/8", help="of queries and keys"),
        Column("parameters", "Parameters", lambda row: compact(row["parameters"])),
        Column("flops_per_step", "FLOPs a step", lambda row: compact(row["flops_per_step"])),
    )  # fmt: skip
    lines = [Row(row, variant=row["variant"]) for row in rows]
    return Frame("paper", "Beside the published table", columns, lines)


def _charts(document: Document) -> Iterator[Drawn]:
    """Yield the primary metric by kind, network and side of the blocks, where sides vary."""
    primary = document.findings.primary
    means: dict[tuple[str, str], float] = {}
    for variant in document.findings.variants:
        placed, mean = document.placed.get(variant.name), variant.summary.mean
        changes = document.findings.differences.get(variant.name, ())
        blocks_only = all(key.startswith("model.attention.") for key, *_ in changes)
        if placed and mean is not None and blocks_only and (where := _where(placed)):
            means.setdefault(where, mean)
    rows = list(dict.fromkeys(row for row, _ in means))
    columns = sorted({column for _, column in means}, key=lambda text: int(text.split()[0]))
    if len(columns) < 2:
        return
    best = max(means, key=lambda where: means[where] * (1 if primary.better == "higher" else -1))
    yield drawn(
        heat(means, rows, columns, primary.label),
        "factors",
        f"Best mean {primary.label}: {number(means[best])}, {best[0]} at side {best[1]}",
        f"Mean {primary.label} by what stands where, at which side of the feature map, of "
        "variants that change nothing else. Means alone: the intervals are in the results.",
    )


def _where(placed: Placed) -> tuple[str, str] | None:
    """Return what stands where, and at which side; none where it stands at several."""
    sides = {*placed.generator, *placed.discriminator}
    known = placed.kind in ATTENTION  # else the report is of somebody else's kind
    kind = ATTENTION[placed.kind] if known else None
    if len(sides) != 1 or (kind and not kind.has_block):
        return None
    networks = {"G": placed.generator, "D": placed.discriminator}
    where = " and ".join(name for name, of in networks.items() if of)
    return f"{(kind and kind.label) or placed.kind} in {where}", f"{sides.pop()} px"


def heat(
    means: Mapping[tuple[str, str], float], rows: Sequence[str], columns: Sequence[str], label: str
) -> Figure:
    """A map of means, the number written into each cell."""
    import seaborn as sns

    table = [[means.get((row, column), float("nan")) for column in columns] for row in rows]
    with panel(1.0 + 0.45 * len(rows)) as (figure, axes):
        sns.heatmap(
            table, annot=True, fmt=".3g", cmap="cividis", ax=axes, linewidths=1,
            xticklabels=list(columns), yticklabels=[wrapped(row) for row in rows],
            cbar_kws={"label": label},
        )  # fmt: skip
        axes.tick_params(axis="y", rotation=0)
        axes.grid(visible=False)
    return figure
