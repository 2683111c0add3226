"""What other studies asked of the same data."""

from collections.abc import Iterator

from sagan_bench.analysis.question import Entry
from sagan_bench.core.registry import SECTIONS
from sagan_bench.report import caveats
from sagan_bench.report.document import Document
from sagan_bench.report.formats import MISSING
from sagan_bench.report.frames import Cell, Column, Frame, Row
from sagan_bench.report.sections._base import Block, Section, Text
from sagan_bench.report.svg import Theme

COLUMNS = (
    Column("study", "Study", numeric=False),
    Column("question", "Question", numeric=False),
    Column("pairs", "Comparisons", help="the family that shares its 5 % of false claims"),
    Column("seeds", "Seeds"),
    Column("looks", "Looks", help="how often it was looked at: paid for, or extended after"),
    Column("begun", "First run began", numeric=False),
    Column("before", "Before this one", numeric=False),
)
BEFORE = {True: "yes", False: "no", None: "not known"}


@SECTIONS.register("ledger")
class OtherQuestions(Section):
    """What other studies asked of the same data."""

    order = 75
    title = "Other questions"
    of = ("study",)

    def render(self, document: Document, theme: Theme) -> Iterator[Block]:
        """Yield how many there were, and each of them."""
        ledger = document.findings.ledger
        if ledger is None:
            return
        said = map(Text, caveats.other_questions(document.findings))
        caption = "Other studies by the same metric, in the order in which they began"
        if not ledger.entries:
            yield self.block(*said)
            return
        table = Frame("ledger", caption, COLUMNS, [Row(_row(entry)) for entry in ledger.entries])
        yield self.block(*said, table)


def _row(entry: Entry) -> dict[str, Cell]:
    begun = entry.begun and f"{entry.begun[:16].replace('T', ' ')} UTC"
    return {
        "study": Cell(entry.folder),
        "question": Cell(entry.question),
        "pairs": Cell(f"{entry.pairs}", entry.pairs),
        "seeds": Cell(f"{entry.seeds}", entry.seeds),
        "looks": Cell(f"{entry.looks}", entry.looks),
        "begun": Cell(begun or MISSING, entry.begun),
        "before": Cell(BEFORE[entry.before]),
    }
