"""The conformance kit: shipped and odd components pass, planted bugs are caught by name."""

import json
import logging
import re
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from command_line import run

from sagan_bench.cli import signals
from sagan_bench.cli.init import FOLDER, TEMPLATES
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.core.extensions import KINDS
from sagan_bench.experiments import conformance
from sagan_bench.experiments.conformance import Finding, Severity, Subject, examined

TESTS = Path(__file__).parents[1]
PLANTED = {
    "wrong_axis": "axis",
    "wrong_sign": "sign",
    "scale_after_softmax": "scale",
    "lost_residual": "state",
    "no_residual": "identity",
    "gamma_not_reached": "gamma",
    "ignored_by_d": "blocks",
    "four_at_a_side": "blocks",
    "changed_in_evaluation": "state",
    "batch_dependent_map": "batch",
    "keys_pooled_only": "axis",
    "overflow": "bf16",
    "projection_without_gradient": "gradients",
    "detached_values": "gradients",
    "gamma_twice": "gamma",
    "heads_by_batch": "batch",
    "heads_merged": "axis",
    "not_divided": "axis",
    "other_maps": "axis",
    "pooled_in_a_row": "axis",
    "rolled_twice": "own_position",
    "seeds": "state",
    "softmax_over_heads": "scale",
    "root_without_epsilon": "gradients",
    "transposed": "own_position",
    "unit_channels": "rows",
}
"""A file of `tests/planted/broken` -> the check that names its bug."""
SHIPPED = [(kind, name) for kind in conformance.CHECKS for name in list(KINDS[kind])]
BLOCK = """
import torch
from torch import nn
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention

class Plain(SelfAttention):
    def branch(self, x):
        return (self.maps(x) @ self.value(x).flatten(2).mT).mT.unflatten(2, x.shape[2:])
    def maps(self, x):
        q, k = self.query(x).flatten(2), self.key(x).flatten(2)
        return (q.mT @ k).softmax(-1)

class Mine(Plain):
    pass
{more}
@ATTENTION.register("mine")
class Kind(Attention):
    {facts}
    def block(self, site):
        return Mine(site.channels, self.config)
"""


def written(folder: Path, text: str, name: str = "mine.py") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def findings_of(file: Path, *severities: str) -> dict[str, Finding]:
    """Return the findings of a file of some severities, errors and warnings by default."""
    wanted = severities or ("error", "warning")
    findings = conformance.check(extensions.load(file))
    return {finding.check: finding for finding in findings if finding.severity in wanted}


def by(check: str, file: Path) -> Finding:
    """Return what a check alone finds of a file's only component."""
    ((kind, name),) = extensions.load(file).components
    checks = [each for each in conformance.CHECKS[kind] if each.__name__ == check]
    return next(iter(examined(Subject(kind, name), checks)))


def of_block(folder: Path, more: str = "", facts: str = "pass") -> dict[str, Finding]:
    return findings_of(written(folder, BLOCK.format(more=more, facts=facts)))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_shipped_components_have_no_error_and_no_warning(kind: str, name: str) -> None:
    wrong = [
        finding.text
        for finding in conformance.check_component(kind, name)
        if finding.severity not in ("ok", "skipped")
    ]
    assert not wrong


@pytest.mark.parametrize("stem", sorted(PLANTED))
def test_planted_bugs_are_caught_by_the_check_of_their_name(stem: str) -> None:
    finding = by(PLANTED[stem], TESTS / f"planted/broken/{stem}.py")
    assert finding.severity == Severity.ERROR, finding
    if stem == "four_at_a_side":
        assert "model.attention.discriminator = [16]" in finding.text
        assert "has blocks at [4, 8, 16]" in finding.text


def test_every_planted_bug_is_looked_for() -> None:
    assert {file.stem for file in TESTS.glob("planted/broken/*.py")} == set(PLANTED)
    assert len(list(TESTS.glob("planted/odd/*.py"))) == 24


PUBLISHED = {
    "axial",
    "convolutional",
    "cosine_heads",
    "dot_products",
    "external",
    "gated_rope",
    "others_only",
    "shifted_windows",
    "slots",
    "talking_heads",
}
"""Of `tests/planted/odd`, those of papers: in the slow tier."""


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, marks=[pytest.mark.slow] * (file.stem in PUBLISHED), id=file.stem)
        for file in sorted(TESTS.glob("planted/odd/*.py"))
    ],
)
def test_odd_but_right_blocks_have_no_error_and_no_warning(file: Path) -> None:
    assert not findings_of(file)


@pytest.mark.parametrize(
    ("stem", "fact", "check", "severity"),
    [
        ("null_key", "deliberate", "axis", "warning"),
        ("dot_products", "deliberate", "axis", "error"),
        ("others_only", "is_attention, positions, deliberate", "own_position", "warning"),
        ("slots", "deliberate", "rows", "error"),
        ("softmax_over_queries", "deliberate", "axis", "warning"),
        ("replacing", "deliberate", "batch", "warning"),
        ("replacing", "title, place", "shape", "error"),
        ("modulated", "knows", "shape", "error"),
        ("annealed", "knows", "in_networks", "error"),
        ("coordinates", "positions", "positions", "error"),
        ("without_gamma", "deliberate", "identity", "error"),
        ("without_gamma", "deliberate", "batch", "warning"),
    ],
)
def test_what_is_odd_must_be_said(
    tmp_path: Path, stem: str, fact: str, check: str, severity: str
) -> None:
    lines = (TESTS / f"planted/odd/{stem}.py").read_text().splitlines(keepends=True)
    silent = "".join(line for line in lines if not line.startswith(f"    {fact} ="))
    assert by(check, written(tmp_path, silent)).severity == severity


@pytest.mark.parametrize("file", sorted(TESTS.glob("own/*.py")), ids=lambda f: f.stem)
def test_components_of_ones_own_have_no_error(file: Path) -> None:
    if file.stem == "colour_distance":
        extensions.load(TESTS / "own/mean_colours.py")
    assert not findings_of(file, "error")


THROUGH = """
    def through(self, maps, x):
        return {} * (maps @ self.value(x).flatten(2).mT).mT.unflatten(2, x.shape[2:])
"""
LOGITS = """
    def logits(self, x):
        return {} * (self.query(x).flatten(2).mT @ self.key(x).flatten(2))
"""


@pytest.mark.parametrize(("hook", "check"), [(THROUGH, "through"), (LOGITS, "logits")])
def test_what_a_block_offers_to_be_looked_into_by_is_held_to_it(
    tmp_path: Path, hook: str, check: str
) -> None:
    def found(factor: int) -> Finding:
        text = BLOCK.format(more=hook.format(factor), facts="pass")
        return by(
            check, written(tmp_path, text.replace('"mine"', f'"mine-{factor}"'), f"own_{factor}.py")
        )

    assert found(1).severity == "ok"
    wrong = found(2)
    assert wrong.severity == "error"
    assert " off" in wrong.text


def test_what_is_inherited_of_another_block_is_not_held_against_it(tmp_path: Path) -> None:
    file = written(tmp_path, BLOCK.format(more=BRANCH_BESIDE, facts="pass"))
    found = findings_of(file, "skipped", "error")
    assert found["through"].severity == "skipped"
    assert "its branch alone" in found["through"].text
    assert found["logits"].severity == "skipped"


BRANCH_BESIDE = """
    def branch(self, x):
        return super().branch(x) + x
"""
MAPS = """
    def maps(self, x):
        q, k = self.query(x).flatten(2), self.key(x).flatten(2)
        return {}
"""
FORWARD = """
    def forward(self, x):
        o = self.branch(x)
        return ({}).to(x.dtype)
"""
INIT = """
    def __init__(self, channels, config):
        super().__init__(channels, config)
        {}
"""
BROKEN = {
    "negative": ("sign", MAPS.format("(-(q.mT @ k)).softmax(-1)")),
    "of x alone": ("sign", MAPS.format("(0 * (q.mT @ k) + x[:, :1].flatten(2)).softmax(-1)")),
    "an eighth": ("scale", MAPS.format("(q.mT @ k).softmax(-1) / 8")),
    "no distribution": ("axis", MAPS.format("(q.mT @ k).sigmoid()")),
    "half of the rows": ("axis", MAPS.format("(q.mT @ k).softmax(-1)[:, :32]")),
    "seven columns": ("axis", MAPS.format("(q.mT @ k).softmax(-1)[..., :7]")),
    "another image's": ("batch", MAPS.format("(q.mT @ k).softmax(-1).roll(1, 0)")),
    "no query": (
        "sign",
        INIT.format("self.asks = self.query; del self.query")
        + MAPS.format("(self.asks(x).flatten(2).mT @ k).softmax(-1)").replace(
            "q, k = self.query(x).flatten(2), ", "k = "
        ),
    ),
    "no gamma": ("identity", FORWARD.format("x + o")),
    "gamma is a number": ("gamma", FORWARD.format("x + self.gamma.item() * o")),
    "chance": ("state", FORWARD.format("x + self.gamma * nn.functional.dropout(o, 0.5, True)")),
    "scrambled": (
        "positions", FORWARD.format("x + self.gamma * o.flatten(1).view(o.mT.shape).mT")
    ),
    "another gradient": (
        "gradients", FORWARD.format("x + self.gamma * (o.detach() + (o - o.detach()) / 2)")
    ),
    "a list": ("gradients", INIT.format("self.more = [nn.Conv2d(channels, channels, 1)]")),
    "not used": ("gradients", INIT.format("self.more = nn.Conv2d(channels, channels, 1)")),
    "no config": ("gamma", INIT.format("").replace("super().__init__(channels, config)",
                                                   "super().__init__(channels)")),
    "not set": ("shape", INIT.format("self.more = nn.Parameter(torch.empty(3))")),
    "another shape": ("shape", FORWARD.format("(x + self.gamma * o)[..., :2]")),
    "not finite": ("shape", FORWARD.format("x + self.gamma * o / 0")),
    "gammas": ("gamma", INIT.format("self.gamma = nn.Parameter(torch.empty(channels, 1, 1))")),
}  # fmt: skip
"""What is wrong -> the check that says so, and the lines."""


def test_the_block_that_is_broken_below_is_right(tmp_path: Path) -> None:
    assert not of_block(tmp_path)


@pytest.mark.parametrize("what", sorted(BROKEN))
def test_what_breaks_mathematics_is_an_error(tmp_path: Path, what: str) -> None:
    check, more = BROKEN[what]
    finding = by(check, written(tmp_path, BLOCK.format(more=more, facts="pass")))
    assert finding.severity == Severity.ERROR, finding


UNUSUAL = {
    "softmax over queries": ("axis", MAPS.format("(q.mT @ k).softmax(1)")),
    "columns depend on each other": (
        "columns",
        MAPS.format("(q.mT @ nn.functional.normalize(k, dim=-1)).softmax(-1)"),
    ),
    "no distribution": (
        "axis",
        FORWARD.format("x + self.gamma * o").replace("self.branch(x)", "self.weighed(x)")
        + MAPS.format("None")
        + """
    def weighed(self, x):
        q, k, v = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        return (v @ (k.mT @ q) / q.shape[2]).unflatten(2, x.shape[2:])
""",
    ),
    "batch statistics": (
        "batch",
        INIT.format("self.norm = nn.BatchNorm2d(channels)")
        + FORWARD.format("x + self.gamma * self.norm(o)"),
    ),
    "randomness": (
        "batch",
        FORWARD.format("x + self.gamma * nn.functional.dropout(o, 0.5, self.training)"),
    ),
    "training differs": (
        "batch",
        FORWARD.format("x + self.gamma * o * (2 if self.training else 1)"),
    ),
    "stacked blocks": (
        "in_networks",
        INIT.format("self.inner = SelfAttention(channels, config)")
        + FORWARD.format("x + self.gamma * self.inner(o)"),
    ),
    "square maps": (
        "shape",
        FORWARD.format("(x + self.gamma * o).unflatten(2, (x.shape[3], -1))[..., 0, :]"),
    ),
    "another dtype": (
        "bf16",
        FORWARD.format("x + self.gamma * o").replace(".to(x.dtype)", ""),
    ),
    "another memory format": ("shape", FORWARD.format("x.contiguous() + self.gamma * o")),
}
"""A word of the kit -> the check that says it, and the lines that it names."""


@pytest.mark.parametrize("word", sorted(UNUSUAL))
def test_what_is_unusual_is_a_warning_unless_declared(tmp_path: Path, word: str) -> None:
    check, more = UNUSUAL[word]
    warning = by(check, written(tmp_path, BLOCK.format(more=more, facts="pass")))
    declaration = f"deliberate = ({word!r},)"
    assert (warning.severity, declaration in warning.do) == (Severity.WARNING, True), warning
    declared = by(check, written(tmp_path, BLOCK.format(more=more, facts=declaration)))
    assert declared.severity == Severity.OK


EXTRA = """
    def extra_loss(self):
        return {}
"""
KEPT = """
    def branch(self, x):
        o = super().branch(x)
        self.kept = {}
        return o
"""
CONTRACT = {
    "unused": ("knows = ('step',)", "", "knows", "warning", "whatever it is; .*'unused'"),
    "unknown": ("knows = ('noise',)", "", "shape", "error", "'noise' is no word of"),
    "undeclared": ("pass", KEPT.format("self.call.z"), "shape", "error", "declares no knows"),
    "kept": ("pass", KEPT.format("o"), "state", "error", "keeps a tensor as kept"),
    "nowhere": ("place = 'before'", "", "in_networks", "error", "place = 'before'"),
    "gamma": ("place = 'instead'", "", "shape", "error", "gamma that nothing reads"),
    "infinite": (
        "pass", EXTRA.format("self.query.weight.sum() / 0"), "extra_loss", "error", "is -?inf"),
    "cut": ("pass", EXTRA.format("torch.ones(())"), "extra_loss", "error", "no gradient of"),
    "of many": ("pass", EXTRA.format("torch.ones(3)"), "extra_loss", "error", "return a scalar"),
    "a sum": (
        "pass", KEPT.format("o.square().sum() if self.training else None")
        + EXTRA.format("self.kept"), "extra_loss", "error", "take the mean"),
    "by values": (
        "pass", KEPT.format("o.max().item() * 0"), "in_networks", "error", "mine.py, line"),
}  # fmt: skip
"""What is not of the contract -> the facts and lines, the check, how bad it is, and the words."""


@pytest.mark.parametrize("what", sorted(CONTRACT))
def test_the_contract_of_a_block_is_checked(tmp_path: Path, what: str) -> None:
    facts, more, check, severity, text = CONTRACT[what]
    finding = by(check, written(tmp_path, BLOCK.format(more=more, facts=facts)))
    assert finding.severity == severity, finding
    assert re.search(text, finding.text), finding.text


def test_altered_gradients_may_be_meant(tmp_path: Path) -> None:
    facts = "deliberate = ('altered gradients',)"
    text = BLOCK.format(more=BROKEN["another gradient"][1], facts=facts)
    assert by("gradients", written(tmp_path, text)).severity == Severity.OK


@pytest.mark.parametrize(
    ("facts", "severity", "text"),
    [
        ("deliberate = ('null keys',)", "error", "did you mean 'null key'"),
        ("deliberate = 'null key'", "error", "is no tuple of words"),
        ("deliberate = ('null key',)", "warning", "no check saw that"),
    ],
)
def test_what_is_declared_must_be_so(tmp_path: Path, facts: str, severity: str, text: str) -> None:
    extensions.load(written(tmp_path, BLOCK.format(more="", facts=facts)))
    *_, finding = examined(Subject("ATTENTION", "mine"), conformance.CHECKS["ATTENTION"][:1])
    assert (finding.check, finding.severity) == ("deliberate", severity)
    assert text in finding.text


LOSS = """
import torch
from sagan_bench.core.registry import LOSSES
from sagan_bench.training.losses._base import Loss

@LOSSES.register("mine")
class Mine(Loss):
    def d(self, real, fake):
        return {d}
    def g(self, fake):
        return {g}
    def penalty(self, critic, real, fake, share):
        {penalty}
"""
R1 = """real = real.detach().requires_grad_()
        (g,) = torch.autograd.grad(critic(real).sum(), real, create_graph=True)
        return g.square().sum()"""
SOFTPLUS = "torch.nn.functional.softplus(-real).mean() + torch.nn.functional.softplus(fake).mean()"


@pytest.mark.parametrize(
    ("d", "g", "penalty", "check", "text"),
    [
        ("real.mean() - fake.mean()", "-fake.mean()", "return None", "signs", "real logits"),
        (SOFTPLUS, "fake.mean()", "return None", "signs", "g()'s slope"),
        (SOFTPLUS, "-fake.sum()", "return None", "mean", "take the mean"),
        ("fake - real", "-fake.mean()", "return None", "signs", "no finite scalar"),
        (SOFTPLUS, "-fake.mean()", R1, "penalty", "set needs_double_backward = True"),
        (SOFTPLUS, "-fake.mean()", R1.replace(", create_graph=True", ""), "penalty", "mine.py"),
        (SOFTPLUS, "-fake.mean()", "return (share * real).mean()", "penalty", "mine.py, line 13"),
    ],
)
def test_losses_are_checked(
    tmp_path: Path, d: str, g: str, penalty: str, check: str, text: str
) -> None:
    wrong = findings_of(written(tmp_path, LOSS.format(d=d, g=g, penalty=penalty)), "error")
    assert text in wrong[check].text


METRIC = """
import torch
from sagan_bench.core.registry import METRICS
from sagan_bench.evaluation.metrics import Metric

@METRICS.register("mine")
class Mine(Metric):
    better, beyond, extractor = "{better}", 1e9, {extractor}
    def measure(self, evidence):
        away = (evidence.features.pool.mean(0) - evidence.real.mean(0)).norm()
        return {returned}
"""


@pytest.mark.parametrize(
    ("better", "extractor", "returned", "check", "severity"),
    [
        ("higher", "'the run\\'s'", "{'mine': float(away)}", "direction", "warning"),
        ("less", "None", "{'mine': 1.0}", "facts", "error"),
        ("lower", "'nosuch'", "{'mine': 1.0}", "facts", "error"),
        ("lower", "None", "{'other': 1.0}", "figures", "error"),
        ("lower", "None", "{'mine': float(torch.rand(1))}", "figures", "error"),
        ("lower", "None", "{'mine': float(evidence.images.zero_().sum())}", "figures", "error"),
        ("lower", "None", "{'mine': 'many'}", "figures", "error"),
        ("lower", "None", "3", "figures", "error"),
    ],
)
def test_metrics_are_checked(
    tmp_path: Path, better: str, extractor: str, returned: str, check: str, severity: str
) -> None:
    text = METRIC.format(better=better, extractor=extractor, returned=returned)
    assert findings_of(written(tmp_path, text))[check].severity == severity


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        ('usage = "my-source"', 'usage = "PATH"', "described"),
        ("Chunk(images, labels)", "Chunk(images, labels + 1)", "images"),
        ("Chunk(images, labels)", "Chunk(images / 255, labels)", "images"),
        ("Chunk(images, labels)", "Chunk(images[1:], labels[1:])", "images"),
    ],
)
def test_sources_are_checked(tmp_path: Path, old: str, new: str, check: str) -> None:
    text = (FOLDER / "source.py").read_text().replace(old, new)
    assert check in findings_of(written(tmp_path, text), "error")


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        (".tanh()", "* 1", "shapes"),
        ("mean(dim=(1, 2, 3))", "mean(dim=(1, 2, 3)).sigmoid()", "shapes"),
        ("mean(dim=(1, 2, 3))", "mean(dim=(2, 3))", "shapes"),
        ("at_least_fp32(scores)", "at_least_fp32(scores - scores.mean())", "evaluation"),
        ("nn.LeakyReLU(0.1)", "nn.BatchNorm2d(outputs)", "evaluation"),
        ("self, model.spectral_norm.discriminator", "self, 'all'", "penalty"),
        ("norm_layers(self, model.spectral_norm.generator)", "", "norms"),
        ("channels,\n            norm=", "{8: 8, **channels, 4: 64},\n            norm=", "blocks"),
    ],
)  # fmt: skip
def test_families_are_checked(tmp_path: Path, old: str, new: str, check: str) -> None:
    text = (TESTS / "planted/own_networks.py").read_text()
    assert old in text
    assert check in findings_of(written(tmp_path, text.replace(old, new)))


def test_a_users_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    more = "    def forward(self, x):\n        return x + self.gamma * self.nosuch(x)\n"
    text = by("identity", written(tmp_path, BLOCK.format(more=more, facts="pass"))).text
    line = BLOCK.format(more=more, facts="pass").splitlines().index(more.splitlines()[1]) + 1
    assert text.startswith(f"{tmp_path / 'mine.py'}, line {line}: AttributeError: ")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return Mine(site.channels, self.config)", "raise SystemExit(0)"),
        ("return Mine(site.channels, self.config)", "return nn.Identity()"),
        ("return Mine(site.channels, self.config)", "return None"),
        (
            "return Mine(site.channels, self.config)",
            "return Mine(site.channels, self.config).nosuch",
        ),
        ("class Kind(Attention)", "class Kind"),
        ("self, site", "self"),
    ],
)
def test_whatever_a_component_does_a_finding_comes_out(tmp_path: Path, old: str, new: str) -> None:
    text = BLOCK.format(more="", facts="pass")
    assert old in text
    assert by("shape", written(tmp_path, text.replace(old, new))).severity == Severity.ERROR


def test_checks_leave_chance_and_threads_as_they_were_and_find_the_same_again() -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    findings = [asdict(f) for f in conformance.check_component("ATTENTION", "full")]
    assert torch.equal(before, torch.get_rng_state())
    assert threads == torch.get_num_threads()
    torch.rand(1)
    assert findings == [asdict(f) for f in conformance.check_component("ATTENTION", "full")]


@pytest.mark.slow
def test_what_trains_first_requires_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(
        UserError, match=r"wrong_sign\.py: attention kind planted-wrong-sign, check"
    ):
        conformance.require(extensions.load(TESTS / "planted/broken/wrong_sign.py"))
    more = MAPS.format("(q.mT @ k).softmax(1)")
    with caplog.at_level(logging.WARNING):
        conformance.require(
            extensions.load(written(tmp_path, BLOCK.format(more=more, facts="pass")))
        )
    assert "declare deliberate = ('softmax over queries',)" in caplog.text


@pytest.mark.parametrize("what", sorted(TEMPLATES))
def test_a_template_passes_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    file = tmp_path / f"Own_{what}.py"
    assert run("init", what, str(file)) == 0
    assert f"check {file}" in capsys.readouterr().out
    assert run("check", str(file), "--json") == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert {f["component"].replace("-", "_") for f in findings} == {f"own_{what}"}
    assert {f["severity"] for f in findings} <= {"ok", "skipped"}
    before = file.read_text()
    assert run("init", what, str(file)) == signals.USAGE
    assert file.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("init", "blok", "mine.py"), "did you mean 'block'?"),
        (("init", "block", "my-block.py"), "expected a Python file"),
        (("init", "block", "full.py"), "attention kind 'full' is there already"),
        (("init", "block", "nosuch/mine.py"), "cannot write nosuch/mine.py"),
        (("check", "nosuch.py"), "cannot read nosuch.py"),
        (("check", "atention:full"), "before the colon stands one of attention"),
        (("check", "attention:ful"), "did you mean 'full'?"),
        (("check", "full"), "expected a Python file"),
        (("check",), "Missing argument"),
    ],
)
def test_what_cannot_be_is_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    text: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == signals.USAGE
    assert text in " ".join(capsys.readouterr().err.split())


def test_check_prints_a_table_costs_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("check", "attention:full", "loss:hinge") == 0
    out = capsys.readouterr().out
    assert "full: 5,200 parameters" in out.replace("5,201", "5,200")
    assert "errors: 0, warnings: 0, of 25 checks" in out
    assert "full: 2 checks do not apply: knows, extra loss\n" in out
    assert "hinge: 1 check does not apply: penalty\n" in out
    assert run("check", str(TESTS / "planted/broken/wrong_axis.py")) == signals.USAGE
    assert "o is not the sum of values by the maps" in " ".join(capsys.readouterr().out.split())


def test_what_a_file_prints_is_no_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path, "print('hello')\n" + LOSS.format(
        d=SOFTPLUS, g="-fake.mean()", penalty="print('there')"))  # fmt: skip
    assert run("check", str(file), "--json") == 0
    assert json.loads(capsys.readouterr().out)["costs"] == {}


@pytest.mark.parametrize("text", ["import sys\nsys.exit(1)\n", "", "\ufeffx = 1\n", "def f(:\n"])
def test_a_file_that_does_not_run_ends_in_2(tmp_path: Path, text: str) -> None:
    assert run("check", str(written(tmp_path, text))) == signals.USAGE
    assert "sagan_bench_own_mine" not in sys.modules


@pytest.mark.parametrize("severity", [Severity.OK, Severity.ERROR])
def test_a_file_is_checked_once_and_one_with_an_error_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, severity: Severity
) -> None:
    monkeypatch.setenv("SAGAN_BENCH_CACHE", str(tmp_path / "cache"))
    calls = []

    def check(extension: extensions.Extension) -> list[Finding]:
        calls.append(extension.sha256)
        return [Finding("block", "mine", "axis", severity, "said")]

    monkeypatch.setattr(conformance, "check", check)
    extension = extensions.Extension(tmp_path / "mine.py", b"", "0" * 64, ())
    for _ in range(2):
        with suppress(UserError):
            conformance.require(extension)
    assert len(calls) == (2 if severity is Severity.ERROR else 1)


def test_an_error_of_one_cause_is_said_once(tmp_path: Path) -> None:
    more = "    def branch(self, x):\n        raise RuntimeError('cannot')\n"
    findings = findings_of(written(tmp_path, BLOCK.format(more=more, facts="pass")), "error")
    assert len(findings) == 1, findings


def test_a_module_that_returns_a_view_of_its_parameter_is_counted(tmp_path: Path) -> None:
    more = (
        "    def __init__(self, *args):\n"
        "        super().__init__(*args)\n"
        "        self.held = Held()\n"
        "    def branch(self, x):\n"
        "        return super().branch(x) + self.held(len(x)).mean()\n"
        "class Held(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.weight = nn.Parameter(torch.empty(1, 3))\n"
        "        self.reset_parameters()\n"
        "    def reset_parameters(self):\n"
        "        nn.init.constant_(self.weight, 0.1)\n"
        "    def forward(self, n):\n"
        "        return self.weight.expand(n, -1)\n"
    )
    file = written(tmp_path, BLOCK.format(more=more, facts="pass"))
    assert by("in_networks", file).severity == Severity.OK


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("class Kind(Attention):", "Kind does not extend Attention"),
        ("    pass\n    def block", "its Settings do not extend Section"),
        ("    pass\n    def block ", "knows = 'z'"),
    ],
)
def test_what_is_none_of_its_kind_is_said_so(tmp_path: Path, text: str, words: str) -> None:
    plain = BLOCK.format(more="", facts="pass")
    settings = "    class Settings:\n        a = 1\n    def block"
    changed = {
        "Kind does": plain.replace(text, "class Kind:"),
        "its Setti": plain.replace("    pass\n    def block", settings),
        "knows = '": plain.replace("    pass\n    def block", "    knows = ('z')\n    def block"),
    }
    (finding,) = findings_of(written(tmp_path, changed[words[:9]]), "error").values()
    assert words in finding.what
