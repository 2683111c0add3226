"""What a paper says of how it was done, and whom it cites: made of a report's data alone."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from sagan_bench.config.schema import TrainingConfig
from sagan_bench.core.registry import EXTRACTORS, LOSSES, METRICS, SAMPLERS, SOURCES
from sagan_bench.evaluation.metrics import of_key
from sagan_bench.evaluation.protocol import suffix
from sagan_bench.report.document import AnyDocument, Document, LengthsDocument, TuningDocument
from sagan_bench.report.formats import plural, shown
from sagan_bench.report.method import METHODS
from sagan_bench.runs.program import PROGRAM
from sagan_bench.runs.records import Status

ALWAYS = ("zhang2019self",)
"""What is cited by whoever trains anything here."""
PARTS = {"all": "in all layers", "hidden": "in all but the last layer and attention's"}
"""Of a network, by the value of ``model.spectral_norm``."""


def methods(document: AnyDocument) -> str:
    """Return the methods, limits and references of a report as Markdown."""
    theirs = PROGRAM in document.config
    paragraphs = [
        *([] if theirs else [_data(document), _networks(document), _training(document)]),
        _runs(document),
        *([] if theirs else [_scoring(document)]),
        _statistics(document),
    ]
    said = "\n\n".join(" ".join(paragraph) for paragraph in map(list, paragraphs) if paragraph)
    kind = "program" if theirs and document.kind == "study" else document.kind
    limits = "\n".join(f"- {line}" for line in (*document.warnings, *METHODS[kind].not_claimed))
    references = "\n\n".join(map(_entry, dict.fromkeys(_cited(document))))
    return (
        f"# Methods: {document.name}\n\n{said}\n\n## Limits\n\n{limits}\n\n"
        f"## References\n\n```bibtex\n{references}\n```\n"
    )


# --- How it was done ---------------------------------------------------------------------------


def _data(document: AnyDocument) -> Iterator[str]:
    data, size = document.data, document.config["data"]["image_size"]
    of_kind = f"{data.get('kind', 'unknown')}{_selected(data)}"
    images = (data.get("train") or {}).get("images")
    count = f"{images:,} training images" if images else "images"
    classes = data.get("classes") or ()
    among = f" in {len(classes)} classes" if len(classes) > 1 else ""
    yield f"Data: {of_kind}, {count} of {size} × {size} px{among}."
    if document.config["data"].get("flip"):
        yield "Images were flipped at random."


def _selected(data: Mapping[str, Any]) -> str:
    return f" ({data['selection']})" if data.get("selection") else ""


def _networks(document: AnyDocument) -> Iterator[str]:
    config, model = document.config, document.config["model"]
    norms = model["spectral_norm"]
    both = " and ".join(
        f"{PARTS[norms[side]]} of {letter}"
        for side, letter in (("generator", "G"), ("discriminator", "D"))
        if norms[side] in PARTS
    )
    yield (
        f"Settings are those of the preset {config['preset']}: networks {model['architecture']} of "
        f"width {model['width']}, noise of {model['z_dim']} components, spectral norm "
        f"{both or 'in no layer'}."
    )
    if isinstance(document, Document):
        yield from _differing(document)
    elif isinstance(document, LengthsDocument):
        for key, values in document.findings.differing.items():
            each = ", ".join(f"{shown(value)} in {name}" for name, value in values.items())
            yield f"{key} was {each}."
    else:
        yield f"Searched: {', '.join(document.findings.variants)}."


def _differing(document: Document) -> Iterator[str]:
    """Yield in what each variant differs from its baseline."""
    baselines = {c.variant: c.baseline for c in document.findings.primary.comparisons}
    for variant, changes in document.findings.differences.items():
        each = ", ".join(f"{key} ({shown(a)} → {shown(b)})" for key, a, b in changes)
        yield (
            f"{variant} differs from {baselines[variant]} in {each or 'nothing that is known'}; "
            "all else is equal."
        )
    if not document.findings.differences:
        yield f"Trained: {', '.join(variant.name for variant in document.findings.variants)}."


def _training(document: AnyDocument) -> Iterator[str]:
    training = document.config["training"]
    lr_g, lr_d = _rates(training)
    steps = document.config["run"]["steps"]
    length = f"{steps:,}"
    if isinstance(document, LengthsDocument):
        *shorter, longest = (f"{n:,}" for n in sorted({run.steps for run in document.runs}))
        length = " and ".join(filter(None, (", ".join(shorter), longest)))
    elif isinstance(document, TuningDocument):
        length = f"{document.findings.steps:,}"
    critic = training["n_critic"]
    yield (
        f"Training: {training['loss']} loss, Adam (β₁ {training['beta1']:g}, β₂ "
        f"{training['beta2']:g}) with learning rates {lr_g:g} (G) and {lr_d:g} (D), batches of "
        f"{training['batch_size']}, {length} updates of G with {plural(critic, 'update')} of D "
        f"each, {training['precision']}. G's weights were averaged with decay "
        f"{training['ema_decay']:g} a step."
    )
    if isinstance(document, Document) and " or " in document.findings.budget:
        yield f"Learning rates differ between variants: {document.findings.budget}."


def _rates(training: Mapping[str, Any]) -> tuple[float, float]:
    return TrainingConfig.model_construct(None, **training).learning_rates


def _runs(document: AnyDocument) -> Iterator[str]:
    if isinstance(document, TuningDocument):
        yield f"{plural(document.runs_over, 'run')} ended, of trials and on fresh seeds."
    else:
        seeds = sorted({run.seed for run in document.runs})
        counts = Counter(run.status for run in document.runs)
        ended = ", ".join(
            f"{counts[status]} {status}"
            for status in Status
            if counts[status] or status.is_lost or status is Status.FINISHED
        )
        listed = ", ".join(map(str, seeds))
        each = plural(len(seeds), "training seed")
        yield f"Runs: {len(document.runs)} ({ended}) at {each} ({listed})."
        if isinstance(document, Document) and document.to_come:
            yield f"{sum(document.to_come.values())} more were planned and have not run."
    for on in document.environments:
        yield f"{_made_on(on)}."


def _made_on(on: Mapping[str, Any]) -> str:
    versions = {"sagan_bench": "sagan_bench", "torch": "PyTorch", "cuda": "CUDA"}
    named = [
        f"{name} {on[key]}"
        for key, name in versions.items()
        if on.get(key) and (key != "cuda" or str(on["device"]).startswith("cuda"))
    ]
    commit = f", commit {on['git_commit'][:12]}" if on.get("git_commit") else ""
    dirty = " with changes that no commit holds" if on.get("git_dirty") else ""
    where = on.get("device_name") or on["device"]
    return f"Made on {where} with {', '.join([*named, 'Python ' + on['python']])}{commit}{dirty}"


# --- How it was measured -----------------------------------------------------------------------


def _scoring(document: AnyDocument) -> Iterator[str]:
    if isinstance(document, LengthsDocument):
        for of in document.findings.final:
            yield f"{of.label} at the end: {of.how}, {of.n_real or 0:,} real images."
        for of in document.findings.on_the_way:
            yield f"{of.label} at step {document.findings.at_step or 0:,}: {of.how}."
        return
    protocol = document.findings.protocol if isinstance(document, Document) else document.protocol
    if "n_fake" not in protocol:
        yield "No run was scored."
        return
    seeds = protocol.get("sampling_seed", [0])
    drawn = len(seeds) if isinstance(seeds, list) else 1
    split = f" of the {protocol['split']} split" if "split" in protocol else ""
    by = f", by torch-fidelity {protocol['torch_fidelity']}" if "torch_fidelity" in protocol else ""
    yield (
        f"Scores are of the averaged weights after the last step: {protocol['n_fake']:,} generated "
        f"images against {protocol['n_real']:,} real ones{split}, the mean of "
        f"{plural(drawn, 'sampling seed')}{by}."
    )
    if name := protocol.get("extractor"):
        other = "; they are not Inception's, so figures bear that name and another scale"
        yield f"Features are those of {name}{other if suffix(name) else ''}."
    if isinstance(document, Document):
        prints = dict.fromkeys(filter(None, (run.fingerprint for run in document.runs)))
        reported = ", ".join(document.labels.get(name, name) for name in _reported(document))
        yield f"Reported: {reported}; protocol {', '.join(prints) or 'not known'}."


def _statistics(document: AnyDocument) -> Iterator[str]:
    if isinstance(document, LengthsDocument):
        yield (
            "Runs of different length stand side by side, each figure with its step; they are not "
            "compared, and nothing is tested."
        )
    elif isinstance(document, TuningDocument):
        yield from _of_searches(document)
    else:
        yield from _of_comparisons(document)


def _of_comparisons(document: Document) -> Iterator[str]:
    findings, rule = document.findings, document.findings.rule
    pairs = len(findings.primary.comparisons)
    if not pairs:
        yield "Nothing was compared."
        return
    paired = bool(rule and rule.paired)
    test = "of paired runs, by the t interval of differences at a seed" if paired else "Welch's t"
    yield (
        f"The primary metric was {findings.primary.label} ({findings.primary.better} is better). "
        f"Each variant was compared with its baseline by the difference of means ({test}) in "
        f"{plural(pairs, 'comparison')}, whose 95 % intervals hold simultaneously (Bonferroni)."
    )
    when = "fixed before the runs" if findings.declared else "chosen after the runs"
    when = f"as declared {findings.where}" if findings.where else when
    yield (
        f"The smallest difference that matters was {findings.matters or 'not stored'}, {when}; a "
        "diverged run counts as attempted, never as missing."
    )
    if rule and (design := rule.design):
        looks = ", ".join(map(str, design.looks))
        yield (
            f"Seeds were added until each comparison had its answer, at looks after {looks} seeds "
            f"a side at most, each at a price fixed beforehand for {design.horizon} seeds."
        )
    elif rule and rule.looks:
        yield f"Results were looked at {plural(rule.looks, 'time')} before more seeds were added."
    if rule and not rule.comparable:
        yield "The study says beforehand that its runs are too small to compare."
    if rule and rule.lost:
        yield f"A finished run with {rule.lost} counts as diverged."


def _of_searches(document: TuningDocument) -> Iterator[str]:
    findings = document.findings
    searches = plural(len(findings.searches), "search")
    trials = sum(len(search.trials) for search in findings.searches)
    seeds = {seed for search in findings.searches for c in search.candidates for seed in c.on_b}
    yield (
        f"{searches} of {plural(trials, 'trial')} by {findings.sampler.upper()} (Optuna), pruner "
        f"{findings.pruner}, over the space {findings.space}; objective "
        f"{' and '.join(findings.labels)}."
    )
    if document.confirm:
        fresh = ", ".join(map(str, sorted(seeds))) or "none yet"
        yield (
            "The best trials and the preset's own values were trained again on fresh seeds, on "
            f"which one was chosen; it is reported on others (set B: {fresh}), on which nothing "
            "was."
        )
    if pairs := len(findings.comparisons):
        yield (
            f"The unit of {plural(pairs, 'comparison')} is a search; the smallest difference that "
            f"matters was {findings.matters or f'{findings.min_effect:.3g}'}."
        )


# --- Whom to cite ------------------------------------------------------------------------------


def _cited(document: AnyDocument) -> Iterator[str]:
    """Yield the keys, or BibTeX entries, of what was used, in the order in which it is said."""
    yield from ALWAYS
    if PROGRAM in document.config:
        yield from _of_each(METRICS, _reported(document))
        return
    config = document.config
    yield from _of_each(SOURCES, [document.data.get("kind", "")])
    if any(value != "none" for side in ("generator", "discriminator")
           for value in _values(document, f"model.spectral_norm.{side}")):  # fmt: skip
        yield "miyato2018spectral"
    yield from _of_each(LOSSES, map(str, _values(document, "training.loss")))
    yield "kingma2015adam"
    lr_g, lr_d = _rates(config["training"])
    if lr_g != lr_d:
        yield "heusel2017gans"
    reported = _reported(document)
    yield from _of_each(METRICS, reported)
    extractors = [config["evaluation"]["extractor"]]
    if any((metric := of_key(name)) and metric.extractor for name in reported):
        yield from _of_each(EXTRACTORS, extractors)
        yield "obukhov2020torchfidelity"
    if isinstance(document, TuningDocument):
        yield "akiba2019optuna"
        yield from _of_each(SAMPLERS, [document.findings.sampler])


def _values(document: AnyDocument, key: str) -> list[Any]:
    """Return the values that a setting has in all variants."""
    of = document.config
    for part in key.split("."):
        of = of[part]
    values: list[Any] = [of]
    if isinstance(document, Document):
        for changes in document.findings.differences.values():
            values += [value for k, *both in changes if k == key for value in both]
    elif isinstance(document, LengthsDocument):
        values += document.findings.differing.get(key, {}).values()
    return list(dict.fromkeys(values))


def _reported(document: AnyDocument) -> list[str]:
    """Return the metrics of which a report has figures."""
    if isinstance(document, TuningDocument):
        return list(document.findings.objectives)
    if isinstance(document, LengthsDocument):
        of = document.findings
        return list(dict.fromkeys(figures.metric for figures in (*of.final, *of.on_the_way)))
    known = (
        key for run in document.runs for key, value in run.metrics.items() if value is not None
    )
    return [key for key in dict.fromkeys(known) if key in METRICS]


def _of_each(registry: Mapping[str, Any], names: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name in registry:
            yield from getattr(registry[name], "cites", ())


def _entry(key: str) -> str:
    """Return a BibTeX entry by its key; an entry is itself."""
    return key if key.startswith("@") else references()[key]


@cache
def references() -> dict[str, str]:
    """Return the shipped BibTeX entries by key."""
    text = files("sagan_bench.report").joinpath("references.bib").read_text(encoding="utf-8")
    entries = (entry.strip() for entry in text.split("\n\n"))
    return {_key(entry): entry for entry in entries if entry}


def _key(entry: str) -> str:
    if not (said := re.match(r"@\w+\{([^,\s]+),", entry)):
        raise ValueError(f"no BibTeX entry: {entry[:80]}")
    return said[1]
