"""What a check says, and how one is made: whatever a user's component does, a finding comes out."""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch

from sagan_bench.core.errors import UserError
from sagan_bench.core.extensions import KINDS, where
from sagan_bench.core.names import closest

UNUSUAL = {
    "softmax over queries": "the columns of its maps are distributions, not the rows",
    "null key": "its maps have more columns than the feature map has positions",
    "no distribution": "what it sums values by are no distributions over positions",
    "rows depend on each other": "what a position looks at depends on the queries of others",
    "columns depend on each other": "how a position shares between two keys depends on a third",
    "positions not seen": "positions = True, and permuted positions give permuted results",
    "own position not seen": "a position's o does not depend on what stands there",
    "no gamma": "gamma does nothing in it",
    "batch statistics": "in training, an image's result depends on the others of its batch",
    "randomness": "in training, the same images give another result each time",
    "training differs": "in training it computes something else than in evaluation",
    "altered gradients": "its gradients are not those of what it computes",
    "stacked blocks": "a block holds others",
    "another dtype": "of maps in bf16 it makes others",
    "another memory format": "of channels-last maps it makes others, which slows all that follows",
    "square maps": "it takes square feature maps only",
    "far is better": "a metric finds features far from the real ones better",
    "bounded logits": "D's logits stay within [-1, 1] whatever it is shown",
    "no spectral norm": "a layer has none where all layers of a network have it",
    "unused": "it is told something at each call that it never uses",
}
"""What a component may be if it says so in ``deliberate``: word -> what it means."""
LONGEST = 300
"""Characters of an error of the user's that are told."""


class Severity(StrEnum):
    """What a finding means for the runs to come."""

    ERROR = "error"
    WARNING = "warning"
    OK = "ok"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """What a check of a component found.

    Attributes:
        kind: of the component, in words.
        component: its name.
        check: its name.
        severity: an ``error`` makes figures wrong; a ``warning`` is unusual, and was not declared.
        what: was seen, and where.
        do: what to do about it.
    """

    kind: str
    component: str
    check: str
    severity: Severity
    what: str
    do: str = ""

    @property
    def text(self) -> str:
        """What was seen, and what to do about it."""
        return "; ".join(part for part in (self.what, self.do) if part)


class Broken(Exception):
    """The component is wrong: what was seen, and what to do."""

    def __init__(self, what: str, do: str = "") -> None:
        super().__init__(what)
        self.what, self.do = what, do


class Unusual(Exception):
    """The component is one of `UNUSUAL`, a ``word``; right if it is meant."""

    def __init__(self, word: str, what: str = "") -> None:
        super().__init__(word)
        self.word, self.what = word, what or UNUSUAL[word]


class Skipped(Exception):
    """There is nothing to check, and why."""


class Subject:
    """The component under examination.

    Args:
        registry: the name of its kind, e.g. ``ATTENTION``.
        name: its own.
    """

    def __init__(self, registry: str, name: str) -> None:
        self.registry, self.name = registry, name
        self.kind = KINDS[registry].what
        self.component: Any = KINDS[registry][name]
        self.file = Path(str(getattr(sys.modules[self.component.__module__], "__file__", name)))
        self.seen = set[str]()

    @property
    def deliberate(self) -> tuple[str, ...]:
        """What it declares to be meant.

        Raises:
            Broken: that is no tuple of words of `UNUSUAL`.
        """
        words = getattr(self.component, "deliberate", ())
        if not isinstance(words, tuple) or not all(isinstance(word, str) for word in words):
            raise Broken(
                f"deliberate = {words!r} is no tuple of words", "write deliberate = ('null key',)"
            )
        for word in words:
            if word not in UNUSUAL:
                raise Broken(
                    f"deliberate: {word!r} is no word of the kit", closest(word, list(UNUSUAL))
                )
        return words

    def says(self, word: str) -> bool:
        """Return whether something is declared, and was seen now."""
        self.seen.add(word)
        return word in self.deliberate


Check = Callable[[Subject], str]
"""Returns what it saw where that is right, else raises `Broken`, `Unusual` or `Skipped`."""


def examined(subject: Subject, checks: Sequence[Check]) -> Iterator[Finding]:
    """Yield what checks find, and whether what is declared was seen."""
    errors = dict[str, str]()
    for check in checks:
        finding = _outcome(subject, check)
        if finding.severity is Severity.ERROR:
            first = errors.setdefault(finding.what, finding.check)
            if first != finding.check:
                again = f"the same error as of {first}"
                finding = replace(finding, severity=Severity.SKIPPED, what=again, do="")
        yield finding
    if not errors:
        yield from _declared(subject)


def _outcome(subject: Subject, check: Check) -> Finding:
    name = check.__name__.strip("_").replace("_", " ")

    def finding(severity: Severity, what: str, do: str = "") -> Finding:
        return Finding(subject.kind, subject.name, name, severity, what, do)

    try:
        with _undisturbed():
            return finding(Severity.OK, check(subject))
    except Skipped as error:
        return finding(Severity.SKIPPED, str(error))
    except Broken as error:
        return finding(Severity.ERROR, error.what, error.do)
    except Unusual as error:
        if subject.says(error.word):
            return finding(Severity.OK, f"deliberate: {error.what}")
        do = f"if that is meant, declare deliberate = ({error.word!r},)"
        return finding(Severity.WARNING, error.what, do)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # it is the user's, and a finding
        return finding(Severity.ERROR, f"{where(error, subject.file)}: {_words(error)}")


def _declared(subject: Subject) -> Iterator[Finding]:
    """Yield that what is declared is no word of the kit, or was not seen."""
    try:
        unseen = [word for word in subject.deliberate if word not in subject.seen]
        severity, what = Severity.WARNING, f"it declares {unseen}, and no check saw that"
        do = "leave that out"
    except Broken as error:
        unseen, severity, what, do = [""], Severity.ERROR, error.what, error.do
    if unseen:
        yield Finding(subject.kind, subject.name, "deliberate", severity, what, do)


def _words(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    said = lines[0][:LONGEST] if lines else ""
    return said if isinstance(error, UserError) else f"{type(error).__name__}: {said}"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Draw the same for each check; leave torch's random state and threads as they were."""
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            yield
    finally:
        torch.set_num_threads(threads)
