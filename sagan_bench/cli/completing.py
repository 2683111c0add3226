"""What a shell completes: names of variants, presets, studies, spaces, metrics and runs.

Each takes what was typed so far and returns the names that begin so; a completion never fails.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

RUNS = Path("runs")
"""Where runs are looked for: what `--runs` says is not known yet."""

Completion = Callable[[str], list[str]]


def _from(names: Callable[[], Iterable[str]]) -> Completion:
    """Return what completes names; none where they cannot be had."""

    def complete(incomplete: str) -> list[str]:
        try:
            return [name for name in names() if name.startswith(incomplete)]
        except Exception:  # noqa: BLE001  # amid a line that is being typed
            return []

    return complete


def _variants() -> Iterable[str]:
    from sagan_bench.config.variants import variants

    return variants()


def _presets() -> Iterable[str]:
    from sagan_bench.config.variants import presets

    return presets()


def _studies() -> Iterable[str]:
    from sagan_bench.experiments import studies

    return studies.shipped()


def _spaces() -> Iterable[str]:
    from sagan_bench.experiments.tuning.space import spaces

    return spaces()


def _runs() -> Iterable[str]:
    from sagan_bench.runs.finding import find_runs

    return [path.name for path in find_runs(RUNS)] if RUNS.is_dir() else []


def _places() -> Iterable[str]:
    from sagan_bench.cli.places import experiments

    return [*experiments(RUNS), *_runs()] if RUNS.is_dir() else []


def _tunings() -> Iterable[str]:
    from sagan_bench.experiments.tuning.definition import MEMORY

    return [file.parent.name for file in sorted(RUNS.glob(f"*/{MEMORY}"))]


variant, preset, study, space = map(_from, (_variants, _presets, _studies, _spaces))
run, place, tuning = map(_from, (_runs, _places, _tunings))


def shown(incomplete: str) -> list[str]:
    """Complete what `show` takes."""
    words = [word for word in ("config", "model", "variant") if word.startswith(incomplete)]
    return [*words, *place(incomplete)]


def combined(incomplete: str) -> list[str]:
    """Complete a variant, the last of several that are combined by ``+``."""
    *before, last = incomplete.split("+")
    return ["+".join([*before, name]) for name in variant(last)]
