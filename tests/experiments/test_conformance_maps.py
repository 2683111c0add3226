"""How the kit looks at maps: in any order and of any heads; and what it says of what it saw."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from sagan_bench.core import extensions
from sagan_bench.experiments import conformance
from sagan_bench.experiments.conformance import Finding, Severity, Subject, examined
from sagan_bench.experiments.conformance._findings import Unusual
from sagan_bench.experiments.conformance._looking import Looking, _of_numbers, summed
from sagan_bench.experiments.conformance._maps import MAPS
from sagan_bench.experiments.conformance._networks import require_norms

TESTS = Path(__file__).parents[1]
BLOCK = """
import torch
from torch import nn
from sagan_bench.core.registry import ATTENTION
from sagan_bench.models.attention._base import Attention
from sagan_bench.models.attention._blocks import SelfAttention

class Mine(SelfAttention):
    def branch(self, x):
        return {o}
    def used(self, x):
        return self.maps(x) @ self.rows(self.value(x))
    def rows(self, x):
        return x.flatten(2).mT
    def shaped(self, rows, x):
        return rows.mT.unflatten(2, x.shape[2:])
    def maps(self, x):
        q, k = self.rows(self.query(x)), self.rows(self.key(x))
        return {maps}

@ATTENTION.register("mine")
class Kind(Attention):
    positions = True
    {facts}
    def block(self, site):
        return Mine(site.channels, self.config)
"""
SOFTMAX = "(q @ k.mT).softmax(-1)"


def seen(
    folder: Path,
    *checks: str,
    o: str = "self.shaped(self.used(x), x)",
    maps: str = SOFTMAX,
    facts: str = "",
) -> Sequence[Finding]:
    """Return what some checks find of a block."""
    file = folder / "mine.py"
    file.write_text(BLOCK.format(o=o, maps=maps, facts=facts))
    extensions.load(file)
    wanted = [each for each in conformance.CHECKS["ATTENTION"] if each.__name__ in checks]
    return [f for f in examined(Subject("ATTENTION", "mine"), wanted) if f.check != "deliberate"]


def planted(stem: str) -> Subject:
    ((kind, name),) = extensions.load(TESTS / f"planted/{stem}.py").components
    return Subject(kind, name)


@pytest.mark.parametrize(
    ("stem", "heads"),
    [("odd/talking_heads", 2), ("odd/cosine_heads", 1), ("odd/shifted_windows", 1)],
)
@torch.no_grad()
def test_maps_of_heads_each_or_their_mean_explain_o(stem: str, heads: int) -> None:
    torch.manual_seed(0)
    looking = Looking(planted(stem))
    maps = looking.maps()
    assert len(maps) == heads
    assert summed(looking, maps).fit().residual < 1e-9
    assert summed(looking, maps.roll(1, 2)).fit().residual > 0.1


@torch.no_grad()
def test_windows_are_found_where_a_layer_is_given_them() -> None:
    torch.manual_seed(0)
    looking = Looking(planted("odd/shifted_windows"))
    places = looking.places[id(looking.layer("query")), torch.Size((4, 64, 4, 4))]
    assert places[0].tolist() == [
        [8 * row + column for column in range(2, 6)] for row in range(2, 6)
    ]
    assert sorted(places.flatten().tolist()) == list(range(64))


@pytest.mark.parametrize("factor", [2.0, -3.0])
def test_positions_are_known_by_their_numbers_but_for_a_factor_and_a_constant(
    factor: float,
) -> None:
    numbers = torch.linspace(0, 1, 64, dtype=torch.float64)[torch.randperm(64)] ** 3
    order = torch.randperm(64)
    places = _of_numbers((factor * numbers[order] + 5).view(4, 16), numbers)
    assert places is not None
    assert places.flatten().equal(order)
    assert _of_numbers(torch.randn(4, 16, dtype=torch.float64), numbers) is None


@pytest.mark.parametrize(
    ("o", "maps", "check", "text"),
    [
        ("self.shaped(self.used(x), x).flip(3)", SOFTMAX, "axis", "not the sum of values"),
        ("self.shaped(self.used(x), x) * x[:, :1].sigmoid()", SOFTMAX, "axis", "of each position"),
        ("self.shaped(self.used(x) * self.maps(x).amax(-1, True), x)", SOFTMAX, "axis",
         "times a factor of each position"),
        ("self.shaped(self.used(x), x)", "(q.roll(1, 1) @ k.mT).softmax(-1)", "rows", "row 1 of"),
        ("self.shaped(self.used(x), x)", "(q / q.norm(dim=1, keepdim=True) @ k.mT).softmax(-1)",
         "rows", "64 rows"),
        ("self.shaped(self.used(x), x)", "(q @ nn.functional.normalize(k, dim=1).mT).softmax(-1)",
         "columns", "depends on a third"),
        ("self.shaped(self.used(x), x).roll((2, 1), (2, 3))", SOFTMAX, "own_position",
         "rows and"),
        ("nn.functional.avg_pool2d(self.value(x), 3, 1, 1).roll((3, 0), (2, 3))", "None",
         "own_position", "+3.0 rows and"),
    ],
)  # fmt: skip
def test_what_a_look_from_outside_says(
    tmp_path: Path, o: str, maps: str, check: str, text: str
) -> None:
    (finding,) = seen(tmp_path, check, o=o, maps=maps)
    assert text in finding.text, finding


@pytest.mark.parametrize(
    ("o", "maps"),
    [
        ("self.shaped(self.used(x), x) * self.value(x[:, :, :1, :1]).sigmoid()", SOFTMAX),
        ("nn.functional.avg_pool2d(self.value(x), 3, 1, 1)", "None"),
        ("nn.functional.max_pool2d(self.value(x), 9, 1, 4)", "None"),
        ("self.value(x).cumsum(3)", "None"),
    ],
)
def test_what_is_seen_at_its_own_place_is_right(tmp_path: Path, o: str, maps: str) -> None:
    (finding,) = seen(tmp_path, "own_position", o=o, maps=maps)
    assert finding.severity == Severity.OK, finding


@pytest.mark.parametrize(
    ("facts", "check", "o", "maps"),
    [
        ("('own position not seen',)", "own_position", "self.value(x).roll(1, 3)", "None"),
        ("('rows depend on each other',)", "rows", "self.shaped(self.used(x), x)",
         "(q.softmax(1) @ k.mT).softmax(-1)"),
        ("('no distribution',)", "axis", "self.shaped(self.used(x), x)", "q @ k.mT"),
    ],
)  # fmt: skip
def test_what_is_an_error_may_be_meant(
    tmp_path: Path, facts: str, check: str, o: str, maps: str
) -> None:
    (finding,) = seen(tmp_path, check, o=o, maps=maps)
    assert finding.severity == Severity.ERROR
    (finding,) = seen(tmp_path, check, o=o, maps=maps, facts=f"deliberate = {facts}")
    assert finding.severity == Severity.OK


def test_positions_that_are_declared_and_not_seen_are_a_warning(tmp_path: Path) -> None:
    (finding,) = seen(tmp_path, "positions")
    assert (finding.severity, "positions not seen" in finding.do) == (Severity.WARNING, True)


def test_a_missing_layer_is_an_error_once(tmp_path: Path) -> None:
    o = "self.shaped(self.used(x), x)"
    maps = SOFTMAX.replace("q", "self.rows(self.asks(x))")
    file = tmp_path / "mine.py"
    text = BLOCK.format(o=o, maps=maps, facts="").replace(
        "q, k = self.rows(self.query(x)), ", "k = "
    )
    init = "def __init__(self, *given):\n        super().__init__(*given)\n        "
    text = text.replace(
        "    def branch", f"    {init}self.asks = self.query; del self.query\n    def branch"
    )
    file.write_text(text)
    extensions.load(file)
    checks = [c for c in conformance.CHECKS["ATTENTION"] if c in MAPS]
    findings = {f.check: f.severity.value for f in examined(Subject("ATTENTION", "mine"), checks)}
    assert findings == {"axis": "ok", "rows": "skipped", "columns": "skipped", "sign": "error",
                        "scale": "skipped"}  # fmt: skip


def test_maps_of_what_stands_instead_of_a_layer_are_not_looked_at(tmp_path: Path) -> None:
    names = [check.__name__ for check in MAPS]
    findings = seen(tmp_path, *names, facts='place = "instead"')
    assert {finding.severity for finding in findings} == {Severity.SKIPPED}


def test_all_layers_without_spectral_norm_are_counted() -> None:
    block = nn.Sequential(*(nn.Linear(2, 2) for _ in range(6)))
    with pytest.raises(Unusual) as caught:
        require_norms(block)
    assert caught.value.what.startswith("0, 1, 2, 3 and 2 more: no spectral norm")


def test_gamma_that_is_applied_twice_is_told_as_such(tmp_path: Path) -> None:
    (finding,) = seen(tmp_path, "gamma", o="self.gamma * self.shaped(self.used(x), x)")
    assert "gamma is applied twice" in finding.text


def test_a_step_that_seeds_torch_is_told(tmp_path: Path) -> None:
    o = "self.value(x) if torch.manual_seed(1) else x"
    (finding,) = seen(tmp_path, "state", o=o, maps="None")
    assert "random numbers" in finding.text
