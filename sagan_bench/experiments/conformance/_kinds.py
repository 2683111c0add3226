"""A block within both networks of the shipped families: where it stands, gradients, norms."""

from sagan_bench.config.schema import RunConfig
from sagan_bench.core.errors import UserError
from sagan_bench.core.registry import FAMILIES
from sagan_bench.experiments.conformance._findings import Skipped, Subject, Unusual
from sagan_bench.experiments.conformance._networks import (
    WIDTHS,
    after_a_step,
    configured,
    outermost,
    require_at,
    require_begun,
    require_gradients,
    require_norms,
    require_reached,
)
from sagan_bench.experiments.conformance._parts import CLASSES
from sagan_bench.models.build import Networks, attention_blocks, build, layout

SIDES = {"dcgan": (8, 8), "resnet": (8, 4)}
"""Where, in G and in D: the maps there have 64 channels."""


def with_kind(subject: Subject, family: str) -> RunConfig:
    """Return the configuration of a shipped family with a kind of attention at `SIDES`.

    It has classes where it knows them, and blocks are told of them.
    """
    kind = subject.component
    begins = {"gamma_init": 0.5} if kind.has_block and kind.place == "after" else {}
    g, d = SIDES[family]
    attention = {"kind": subject.name, "generator": [g], "discriminator": [d], **begins}
    classes = CLASSES if "labels" in kind.knows and "classes" in FAMILIES[family].knows else 0
    return configured(family, attention, classes=classes)


def _families(subject: Subject) -> list[str]:
    """Return the shipped families that a kind can stand in: a conditional one may need classes."""
    taken = []
    for family in WIDTHS:
        try:
            build(with_kind(subject, family))
        except UserError:
            if "labels" not in subject.component.knows or "classes" in FAMILIES[family].knows:
                raise
        else:
            taken.append(family)
    return taken


def in_networks(subject: Subject) -> str:
    """A block trains within both networks of the shipped families, and stands where asked."""
    no_gamma, families = subject.says("no gamma"), _families(subject)
    for family in families:
        config = with_kind(subject, family)
        layout(config)  # by shapes alone, on the meta device, as before each run
        state = after_a_step(config)
        networks = Networks(state.generator, state.discriminator)
        require_at(config, networks)
        for network in networks:
            for block in outermost(network).values():
                block.gamma.detach().fill_(0.5 if block.has_gamma else 1.0)
        require_gradients(config, networks, no_gamma=no_gamma)
        if not no_gamma:
            require_reached(config, networks)
            require_begun(config, networks)
    stacked = {len(attention_blocks(network)) for network in networks}
    if stacked != {1}:
        raise Unusual("stacked blocks", f"a block holds {max(stacked) - 1} others")
    return f"in G and D of {' and '.join(families)}: at its side, trained, not ignored"


def spectral_norm(subject: Subject) -> str:
    """The spectral norms of a block's layers are about 1."""
    if subject.component.own_spectral_norm:
        raise Skipped("it sees to that itself")
    for network in build(with_kind(subject, _families(subject)[0])):
        for block in outermost(network).values():
            require_norms(block)
    return "about 1"


def widths(subject: Subject) -> str:
    """The widths that a kind gives both networks are finite, and they can be built."""
    for family in WIDTHS:
        build(with_kind(subject, family))
    return "can be built"


KIND = (in_networks, spectral_norm)
