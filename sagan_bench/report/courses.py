"""Studies that grow until they are conclusive, in words: each pair from look to look."""

from dataclasses import dataclass

from sagan_bench.analysis import sequential
from sagan_bench.analysis.design import MOST_LOOKED, Design
from sagan_bench.analysis.design import looks as looks_of
from sagan_bench.analysis.sequential import Stop
from sagan_bench.analysis.verdicts import Comparison, Interval, Verdict
from sagan_bench.report.formats import by_variant, many, plural


@dataclass(frozen=True)
class Look:
    """A pair after n seeds a side.

    Attributes:
        n: seeds a side.
        price: level of its interval.
        chance: of a verdict at the horizon, as it seemed then; null where that was not asked.
    """

    n: int
    price: float
    effect: float | None
    interval: Interval | None
    verdict: Verdict | None
    chance: float | None = None


@dataclass(frozen=True)
class Course:
    """A pair from look to look.

    Attributes:
        looks: all that runs allow, also beyond the stop.
        stopped: the place of the decisive one; null while the pair is open.
        why: it stopped.
        sentence: how it went.
    """

    variant: str
    baseline: str
    looks: tuple[Look, ...]
    stopped: int | None
    why: str | None
    margin: float
    sentence: str


@dataclass(frozen=True)
class Words:
    """What a side is made of, and the options by which there are more, and by which it goes on."""

    unit: str = "seed"
    more: str = "--max-seeds"
    runs: str = "run"


OF_SEARCHES = Words("search", "--searches", "search")


def in_words(
    course: sequential.Course,
    design: Design,
    margin: float,
    words: Words = Words(),
    withheld: str = "",
) -> Course:
    """Return a course with its sentence.

    Args:
        course: of a pair.
        design: of the study or tuning.
        margin: the smallest difference that matters.
        words: what a side is made of.
        withheld: why the pair has no verdict though it stopped; then no look has.
    """
    looks = tuple(
        Look(
            look.n,
            look.price,
            look.comparison.effect,
            look.comparison.interval,
            None if withheld else look.comparison.verdict,
            look.chance,
        )
        for look in course.looks
    )
    why = course.why and course.why.value
    how = _how(course, design, words)
    if withheld and course.decisive:
        how = f"seen up to {course.decisive.n} {many(words.unit)} a side; no verdict: {withheld}"
    said = f"{' against '.join(course.pair)}: {how}"
    return Course(*course.pair, looks, course.stopped, why, margin, said)


def of_pair(course: sequential.Course, design: Design, compared: Comparison[str]) -> Course:
    """Return the course of a pair of a study in words, beside its comparison."""
    is_withheld = not course.is_open and compared.verdict is None
    withheld = compared.standing if is_withheld else ""
    return in_words(course, design, compared.min_effect, withheld=withheld)


def _how(course: sequential.Course, design: Design, words: Words) -> str:
    look, units = course.decisive, many(words.unit)
    match course.why:
        case Stop.VERDICT if look:
            level = f"at {100 * look.price:.2g} % for this look"
            text = f"decided after {look.n} {units} a side, {level}"
            verdict = look.comparison.verdict
            if verdict and verdict.is_claim and look.n < design.horizon and look.comparison.effect:
                text += "; it stopped early: the difference is likely a little smaller"
        case Stop.FUTILE if look:
            further = f"going on to {design.horizon} would decide with chance {look.chance:.2g}"
            text = f"given up after {look.n} {units} a side: {further} (--no-futility goes on)"
        case Stop.SPENT if look:
            last = f"not decided after {look.n} {units} a side, the last look"
            text = f"{last}; the next would be {words.more} {following(design)}"
        case _:
            text = _open(course, design, words)
    if later := course.contradiction:
        text += f"; the look after {later.n} {units} lies on the other side of 0"
    return text


def following(design: Design) -> int:
    """Return after how many the look beyond the last would be."""
    return next(n for n in looks_of(design.horizon, 2 * MOST_LOOKED) if n > design.most)


def _open(course: sequential.Course, design: Design, words: Words) -> str:
    units, following = many(words.unit), design.looks[len(course.looks)]
    seen = "not yet looked at"
    if course.looks:
        seen = f"open after {course.looks[-1].n} {units} a side"
    waits = f"the look after {following} waits for {plural(len(course.missing), words.runs)}"
    if course.waiting:
        count: dict[str, int] = {}
        for variant, _ in course.waiting:
            count[variant] = count.get(variant, 0) + 1
        waits = f"the look after {following} waits for what failed or has no figure: "
        waits += f"{by_variant(count)} (--retry-failed makes what failed again)"
    return f"{seen}; {waits}"
