"""What a paper says of how it was done, ready to be taken away."""

from collections.abc import Iterator

from sagan_bench.core.registry import SECTIONS
from sagan_bench.report.document import AnyDocument
from sagan_bench.report.methods import methods
from sagan_bench.report.sections._base import Block, Code, Export, Fold, Section
from sagan_bench.report.svg import Theme

FILE = "methods.md"


@SECTIONS.register("methods")
class Methods(Section):
    """Methods, limits and references, of the data of the page alone."""

    order = 95
    title = "For a paper"
    of = ("study", "lengths", "tuning")

    def render(self, document: AnyDocument, theme: Theme) -> Iterator[Block]:
        """Yield the text, and leave it as a file."""
        text = methods(document)
        fold = Fold("Methods, limits and references, as Markdown and BibTeX", (Code(text),))
        files = (Export({FILE: text}, "how it was done, for a paper: methods, limits, references"),)
        yield self.block(fold, exports=files)
