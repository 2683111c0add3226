"""Trackers, as far as that can be seen without telling them of a run, which they would show."""

import inspect

from sagan_bench.experiments.conformance._findings import Broken, Subject
from sagan_bench.session.trackers import Tracker

CALLED_WITH = {"begin": 1, "scalars": 2, "pictures": 2, "end": 1}
"""What a tracker is told by -> arguments beside itself."""


def made(subject: Subject) -> str:
    """It is made without arguments, where what it needs is installed."""
    subject.component.require()
    subject.component()
    return "it is made without arguments"


def calls(subject: Subject) -> str:
    """Each of its functions takes what it is called with."""
    for name, count in CALLED_WITH.items():
        takes = inspect.signature(getattr(subject.component, name))
        try:
            takes.bind(*range(1 + count))
        except TypeError as error:
            usual = inspect.signature(getattr(Tracker, name))
            raise Broken(f"{name}{takes}: {error}", f"write def {name}{usual}") from error
    known = subject.component
    said = [name for name in CALLED_WITH if getattr(known, name) is not getattr(Tracker, name)]
    if not said:
        raise Broken("it takes notice of nothing", f"write one of {', '.join(CALLED_WITH)}")
    return f"it is told by {', '.join(said)}"


TRACKER = (made, calls)
