"""What a study's probes say together, in the terminal: of ``probe`` and ``compare``."""

from typing import TYPE_CHECKING

from sagan_bench.cli.console import say
from sagan_bench.cli.tables import number, print_table

if TYPE_CHECKING:
    from sagan_bench.analysis.verdicts import Interval
    from sagan_bench.report.readings import Probed

HEADER = ("variant", "runs", "untouched", "uniform map", "sham", "excess", "frozen", "says")
CONTROLS = ("variant", "control", "side", "left out", "control's", "difference", "interval")


def print_probed(probed: "Probed | None") -> None:
    """Print a table of the primary probe over training seeds, its sentences, and controls."""
    if probed is None:
        return
    rows = [
        (
            each.variant,
            str(each.n),
            number(each.untouched),
            _signed(each.effect),
            _signed(each.sham_effect),
            f"{_signed(each.excess)} {_span(each.interval)}".strip(),
            _signed(each.excess_frozen),
            each.state or each.standing,
        )
        for each in probed.dependences
    ]
    if rows:
        print_table(f"Finished weights and their map in G, by {probed.label}:", HEADER, rows)
    for sentence in probed.sentences:
        say(f"{sentence[0].upper()}{sentence[1:]}.")
    beside = [
        (
            each.variant,
            each.control,
            str(each.side),
            _signed(each.without),
            _signed(each.control_without),
            _signed(each.difference),
            _span(each.interval),
        )
        for each in probed.beside_controls
    ]
    if beside:
        print_table("A block of G left out, excess over the sham:", CONTROLS, beside)


def _signed(value: float | None) -> str:
    return "—" if value is None else f"{value:+.3g}"


def _span(interval: "Interval | None") -> str:
    return "[{:.3g}, {:.3g}]".format(*interval) if interval else ""
