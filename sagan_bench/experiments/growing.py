"""The runs of a study that grows until it is conclusive: which it needs, look after look."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from sagan_bench.analysis.design import Cell, Design
from sagan_bench.analysis.sequential import Course
from sagan_bench.execution.engine import Ended
from sagan_bench.experiments.grid import GridPoint
from sagan_bench.runs.run_directory import move_aside

if TYPE_CHECKING:
    from sagan_bench.experiments.driver import What


class Growing:
    """Points that the open pairs need, until no pair is open.

    Those of a look come first, in the order of seeds; while the last of them are under way, those
    of the look that would follow, if all that this one waits for is to be run here.

    Args:
        points: all that are to be run if need be.
        courses: returns how far each pair has come, by what is on the disk.
        design: of the study.
        seeds: in the order in which it takes them.
    """

    def __init__(
        self,
        points: Sequence[GridPoint],
        courses: Callable[[], Sequence[Course]],
        design: Design,
        seeds: Sequence[int],
    ) -> None:
        self.waiting = {(point.variant, point.seed): point for point in points}
        self.ours = {*self.waiting}
        self.see, self.courses, self.is_known = courses, courses(), True
        self.design, self.seeds = design, seeds

    def next(self) -> GridPoint | None:
        """Return the next; one whose record is damaged is begun anew."""
        cell = next((cell for cell in self._wanted() if cell in self.waiting), None)
        if cell is None:
            return None
        point = self.waiting.pop(cell)
        if point.trouble:  # retried: nothing is lost
            move_aside(point.path)
        return point

    def take(self, run: GridPoint, what: "What") -> None:
        """Where a run is over, how far pairs have come is looked at before the next is begun."""
        if isinstance(what, Ended):
            self.is_known = False

    def _wanted(self) -> Iterator[Cell]:
        if not self.is_known:  # once for all that ended meanwhile: every record is read
            self.courses, self.is_known = self.see(), True
        yield from wanted(self.courses, self.design, self.seeds)
        comes = [course for course in self.courses if self.ours.issuperset(course.missing)]
        yield from wanted(comes, self.design, self.seeds, ahead=1)


def wanted(
    courses: Sequence[Course], design: Design, seeds: Sequence[int], ahead: int = 0
) -> list[Cell]:
    """Return the cells of the next look of each open pair, or of one ``ahead``, by seed.

    Args:
        courses: of all pairs.
        design: of the study.
        seeds: in the order in which it takes them.
        ahead: looks.
    """
    groups = dict[str, int]()
    for course in courses:
        goes_on = course.is_open and not (ahead and course.waiting)
        following = design.looks[len(course.looks) + ahead :] if goes_on else []
        for name in reversed(course.pair):
            groups[name] = max(groups.get(name, 0), *following[:1], 0)
    most = max(groups.values(), default=0)
    return [
        (name, seed)
        for place, seed in enumerate(seeds[:most])
        for name, n in groups.items()
        if place < n
    ]
