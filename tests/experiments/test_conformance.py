"""The conformance kit: shipped and odd components pass, planted bugs are caught by name."""

import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from sagan_bench import cli
from sagan_bench.cli import signals
from sagan_bench.cli.init import FOLDER, TEMPLATES
from sagan_bench.core import extensions
from sagan_bench.core.errors import UserError
from sagan_bench.core.extensions import KINDS
from sagan_bench.experiments import conformance
from sagan_bench.experiments.conformance import Finding, Severity

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
}
"""A file of `tests/planted/broken` -> the check that names its bug."""
SHIPPED = [(kind, name) for kind in conformance.CHECKS for name in list(KINDS[kind])]
BLOCK = """
import torch
from torch import nn
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import Block, SelfAttention

class Mine(SelfAttention):
    def branch(self, x):
        return (self.maps(x) @ self.value(x).flatten(2).mT).mT.unflatten(2, x.shape[2:])
    def maps(self, x):
        q, k = self.query(x).flatten(2), self.key(x).flatten(2)
        return (q.mT @ k).softmax(-1)
{more}
@ATTENTION.register("mine")
class Kind(Attention):
    {facts}
    def block(self, channels, *, bias=True, needs_double_backward=False):
        return Mine(channels, self.config)
"""


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    for name in list(extensions._known):
        extensions.forget(name)


def written(folder: Path, text: str, name: str = "mine.py") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def found(file: Path, *severities: str) -> dict[str, Finding]:
    """Return the findings of a file of some severities, errors and warnings by default."""
    wanted = severities or ("error", "warning")
    findings = conformance.check(extensions.load(file))
    return {finding.check: finding for finding in findings if finding.severity in wanted}


def of_block(folder: Path, more: str = "", facts: str = "pass") -> dict[str, Finding]:
    return found(written(folder, BLOCK.format(more=more, facts=facts)))


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
    errors = found(TESTS / f"planted/broken/{stem}.py", "error")
    assert PLANTED[stem] in errors, errors


def test_every_planted_bug_is_looked_for() -> None:
    assert {file.stem for file in TESTS.glob("planted/broken/*.py")} == set(PLANTED)
    assert len(list(TESTS.glob("planted/odd/*.py"))) == 8


@pytest.mark.parametrize("file", sorted(TESTS.glob("planted/odd/*.py")), ids=lambda f: f.stem)
def test_odd_but_right_blocks_have_no_error_and_no_warning(file: Path) -> None:
    assert not found(file)


@pytest.mark.parametrize("file", sorted(TESTS.glob("own/*.py")), ids=lambda f: f.stem)
def test_components_of_ones_own_have_no_error(file: Path) -> None:
    if file.stem == "colour_distance":
        extensions.load(TESTS / "own/mean_colours.py")
    assert not found(file, "error")


def test_a_block_of_four_at_a_side_is_told_with_the_sides() -> None:
    text = found(TESTS / "planted/broken/four_at_a_side.py", "error")["blocks"].text
    assert "model.attention.discriminator = [16]" in text
    assert "has blocks at [4, 8, 16]" in text


MAPS = """
    def maps(self, x):
        q, k = self.query(x).flatten(2), self.key(x).flatten(2)
        return {}
"""


@pytest.mark.parametrize(
    ("more", "check"),
    [
        (MAPS.format("(-(q.mT @ k)).softmax(-1)"), "sign"),
        (MAPS.format("(q.mT @ k).softmax(-1) / 8"), "scale"),
        (MAPS.format("(q.mT @ k).sigmoid()"), "axis"),
        (MAPS.format("(q.mT @ k).softmax(-1)[:, :32]"), "axis"),
        (MAPS.format("(q.mT @ k).softmax(-1)[..., :7]"), "axis"),
        (MAPS.format("(q.mT @ k).softmax(-1).roll(1, 0)"), "batch"),
        (MAPS.format("(0 * (q.mT @ k) + x[:, :1].flatten(2)).softmax(-1)"), "sign"),
        ("    def forward(self, x):\n        return x + self.branch(x)\n", "identity"),
        ("    def forward(self, x):\n        return x + self.gamma.item() * self.branch(x)\n", "gamma"),
        (
            "    def forward(self, x):\n"
            "        return nn.functional.dropout(x + self.gamma * self.branch(x), 0.5, True)\n",
            "state",
        ),
        (
            "    def forward(self, x):\n        o = self.branch(x)\n"
            "        return x + self.gamma * o.flatten(1).view(o.mT.shape).mT\n",
            "positions",
        ),
        (
            "    def forward(self, x):\n        o = self.branch(x)\n"
            "        return x + self.gamma * (o.detach() + o * 1e-3)\n",
            "gradients",
        ),
        (
            "    def forward(self, x):\n        return (x.contiguous() + self.gamma * self.branch(x))\n",
            "shape",
        ),
        ("    def forward(self, x):\n        return x.float() + self.gamma * self.branch(x)\n", ""),
        (
            "    def __init__(self, channels, config):\n        super().__init__(channels, config)\n"
            "        self.more = [nn.Conv2d(channels, channels, 1)]\n",
            "gradients",
        ),
        (
            "    def __init__(self, channels, config):\n        super().__init__(channels, config)\n"
            "        self.more = nn.Conv2d(channels, channels, 1)\n",
            "gradients",
        ),
        (
            "    def __init__(self, channels, config):\n        super().__init__(channels)\n",
            "gamma",
        ),
        (
            "    def __init__(self, channels, config):\n        super().__init__(channels, config)\n"
            "        self.own = nn.Parameter(torch.empty(3))\n",
            "shape",
        ),
        (
            "    def __init__(self, channels, config):\n        super().__init__(channels, config)\n"
            "        self.asks = self.query\n        del self.query\n"
            "    def maps(self, x):\n"
            "        q, k = self.asks(x).flatten(2), self.key(x).flatten(2)\n"
            "        return (q.mT @ k).softmax(-1)\n",
            "axis",
        ),
    ],
)  # fmt: skip
def test_what_breaks_mathematics_is_an_error(tmp_path: Path, more: str, check: str) -> None:
    wrong = of_block(tmp_path, more)
    if not check:
        assert not wrong
        return
    assert wrong[check].severity == Severity.ERROR, wrong


UNUSUAL = {
    "softmax over queries": MAPS.format("(q.mT @ k).softmax(1)"),
    "batch statistics": """
    def __init__(self, channels, config):
        super().__init__(channels, config)
        self.norm = nn.BatchNorm2d(channels)
    def forward(self, x):
        return x + self.gamma * self.norm(self.branch(x))
""",
    "randomness": """
    def forward(self, x):
        return x + self.gamma * nn.functional.dropout(self.branch(x), 0.5, self.training)
""",
    "training differs": """
    def forward(self, x):
        return x + self.gamma * self.branch(x) * (2 if self.training else 1)
""",
    "stacked blocks": """
    def __init__(self, channels, config):
        super().__init__(channels, config)
        self.inner = SelfAttention(channels, config)
    def forward(self, x):
        return x + self.gamma * self.inner(self.branch(x))
""",
    "square maps": """
    def forward(self, x):
        y = x + self.gamma * self.branch(x)
        return y.view(*y.shape[:2], y.shape[2], y.shape[2])
""",
    "no spectral norm": """
    def __init__(self, channels, config):
        super().__init__(channels, config)
        self.out = nn.Sequential(nn.Conv2d(channels, channels, 1))
    def branch(self, x):
        return self.out(super().branch(x))
""",
}


@pytest.mark.parametrize("word", sorted(UNUSUAL))
def test_what_is_unusual_is_a_warning_unless_declared(tmp_path: Path, word: str) -> None:
    words = {word} | ({"no spectral norm"} if word == "stacked blocks" else set())
    warned = of_block(tmp_path, UNUSUAL[word])
    assert {finding.severity for finding in warned.values()} == {Severity.WARNING}
    assert {w for w in words if any(w in finding.do for finding in warned.values())} == words
    declared = f"deliberate = {tuple(sorted(words))!r}"
    assert not of_block(tmp_path, UNUSUAL[word], declared)


@pytest.mark.parametrize(
    ("facts", "severity", "text"),
    [
        ("deliberate = ('null keys',)", "error", "did you mean 'null key'"),
        ("deliberate = 'null key'", "error", "is no tuple of words"),
        ("deliberate = ('null key',)", "warning", "no check saw that"),
        ("positions = True", "error", "permuted positions give permuted results"),
    ],
)
def test_what_is_declared_must_be_so(tmp_path: Path, facts: str, severity: str, text: str) -> None:
    findings = of_block(tmp_path, facts=facts)
    assert any(text in f.text and f.severity == severity for f in findings.values()), findings


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
        (SOFTPLUS, "-fake.mean()", "return (share * real).mean()", "penalty", "mine.py, line 12"),
    ],
)
def test_losses_are_checked(
    tmp_path: Path, d: str, g: str, penalty: str, check: str, text: str
) -> None:
    wrong = found(written(tmp_path, LOSS.format(d=d, g=g, penalty=penalty)), "error")
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
    assert found(written(tmp_path, text))[check].severity == severity


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
    assert check in found(written(tmp_path, text), "error")


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        (".tanh()", "* 1", "shapes"),
        ("mean(dim=(1, 2, 3))", "mean(dim=(1, 2, 3)).sigmoid()", "shapes"),
        ("mean(dim=(1, 2, 3))", "mean(dim=(2, 3))", "shapes"),
        ("at_least_fp32(scores)", "at_least_fp32(scores - scores.mean())", "evaluation"),
        ("nn.LeakyReLU(0.1)", "nn.BatchNorm2d(outputs)", "evaluation"),
        ('"discriminator", model, channels,', '"discriminator", model, {8: 8, **channels, 4: 64},',
         "blocks"),
    ],
)  # fmt: skip
def test_families_are_checked(tmp_path: Path, old: str, new: str, check: str) -> None:
    text = (FOLDER / "family.py").read_text()
    assert old in text
    assert check in found(written(tmp_path, text.replace(old, new)))


def test_a_users_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    more = "    def forward(self, x):\n        return x + self.gamma * self.nosuch(x)\n"
    text = of_block(tmp_path, more)["identity"].text
    line = BLOCK.format(more=more, facts="pass").splitlines().index(more.splitlines()[1]) + 1
    assert text.startswith(f"{tmp_path / 'mine.py'}, line {line}: AttributeError: ")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return Mine(channels, self.config)", "raise SystemExit(0)"),
        ("return Mine(channels, self.config)", "return nn.Identity()"),
        ("return Mine(channels, self.config)", "return None"),
        ("return Mine(channels, self.config)", "return Mine(channels, self.config).nosuch"),
        ("class Kind(Attention)", "class Kind"),
        ("self, channels, *, bias=True, needs_double_backward=False", "self"),
    ],
)
def test_whatever_a_component_does_a_finding_comes_out(tmp_path: Path, old: str, new: str) -> None:
    text = BLOCK.format(more="", facts="pass")
    assert old in text
    assert "shape" in found(written(tmp_path, text.replace(old, new)), "error")


def test_checks_leave_chance_and_threads_as_they_were() -> None:
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    list(conformance.check_component("ATTENTION", "full"))
    assert torch.equal(before, torch.get_rng_state())
    assert threads == torch.get_num_threads()


def test_the_same_is_found_again() -> None:
    both = [[asdict(f) for f in conformance.check_component("ATTENTION", "icml")] for _ in "ab"]
    assert both[0] == both[1]


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


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    return int(exit_.value.code or 0)


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
        (("init", "block", "full.py"), "there is a attention kind 'full' already"),
        (("init", "block", "nosuch/mine.py"), "cannot write nosuch/mine.py"),
        (("check", "nosuch.py"), "cannot read nosuch.py"),
        (("check", "atention:full"), "did you mean 'attention'?"),
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
    assert "errors: 0, warnings: 0, of 18 checks" in out
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
