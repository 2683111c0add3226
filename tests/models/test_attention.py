"""The attention block against its equations, and its fast paths against the plain one."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sagan_bench.config.schema import AttentionConfig, AttentionKind
from sagan_bench.core import system
from sagan_bench.core.registry import ATTENTION
from sagan_bench.core.seeding import generator
from sagan_bench.models.attention import _blocks
from sagan_bench.models.attention import _paths as attention
from sagan_bench.models.attention._blocks import Block, Residual, SelfAttention, UniformAttention
from sagan_bench.models.attention._paths import attend, attention_maps, path
from sagan_bench.models.placed import Site

FORMATS = [torch.contiguous_format, torch.channels_last]
FAST = [attention.chunked, attention.fused, attention.recomputed]
BOUNDED = [attention.fused, attention.recomputed]
Rows = tuple[Tensor, Tensor, Tensor]


KINDS: list[AttentionKind] = ["full", "icml", "pooled", "uniform", "residual"]


def of_kind(kind: AttentionKind, channels: int) -> Block:
    made: Block = ATTENTION[kind](AttentionConfig(kind=kind)).block(Site("generator", 8, channels))
    return made


def block(
    channels: int = 8,
    gamma: float = 0.7,
    dtype: torch.dtype = torch.float64,
    kind: AttentionKind = "full",
) -> Block:
    """A block whose weights are large enough for maps that are far from uniform."""
    made = of_kind(kind, channels).double()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.normal_(std=0.3, generator=generator(0, name))
        made.gamma.fill_(gamma)
    return made.to(dtype)


def features(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=generator(1, "x"), dtype=torch.float64).to(dtype)


def rows(images: int, positions: int, channels: int, dtype: torch.dtype) -> Rows:
    """Queries, keys and values whose scores s_ij have a standard deviation near 2."""
    drawn = [
        torch.randn(images, positions, width, generator=generator(2, name), dtype=torch.float64)
        for name, width in (("query", channels // 8), ("key", channels // 8), ("value", channels))
    ]
    drawn[0] *= 2 / math.sqrt(channels // 8)
    return tuple(tensor.to(dtype).requires_grad_() for tensor in drawn)  # type: ignore[return-value]


def by_hand(module: Block, x: Tensor) -> tuple[Tensor, Tensor]:
    """beta and y by the equations, a position at a time, row by row, for autograd to follow."""
    betas, outputs = [], []
    for image in x:
        pixels = image.flatten(1).unbind(1)
        if isinstance(module, Residual):
            o = [linear(module.expand, linear(module.squeeze, p).clamp(min=0)) for p in pixels]
        elif isinstance(module, UniformAttention):
            mean = torch.stack([linear(module.value, p) for p in pixels]).mean(dim=0)
            o = [mean] * len(pixels)
        else:
            assert isinstance(module, SelfAttention)
            beta, o = looked_up(module, image)
            betas.append(beta)
        outputs.append(image + module.gamma * torch.stack(o, dim=1).view_as(image))
    return torch.stack(betas) if betas else x, torch.stack(outputs)


def looked_up(module: SelfAttention, image: Tensor) -> tuple[Tensor, list[Tensor]]:
    """beta and o of SAGAN, section 3, and of its authors' code, which pools keys and values."""
    rows, columns = image.shape[1:]
    pooled = isinstance(module.pool, torch.nn.MaxPool2d)
    size = 2 if pooled else 1
    f, h = [], []
    for row in range(0, rows, size):
        for column in range(0, columns, size):
            window = image[:, row : row + size, column : column + size].flatten(1).unbind(1)
            f.append(torch.stack([linear(module.key, p) for p in window]).amax(dim=0))
            h.append(torch.stack([linear(module.value, p) for p in window]).amax(dim=0))
    betas, outputs = [], []
    for pixel in image.flatten(1).unbind(1):
        g_j = linear(module.query, pixel)
        weights = torch.stack([f_i.dot(g_j) for f_i in f]).exp()
        betas.append(weights / weights.sum())
        o_j = sum(b * h_i for b, h_i in zip(betas[-1], h, strict=True))
        assert isinstance(o_j, Tensor)
        has_out = isinstance(module.out, torch.nn.Conv2d)
        outputs.append(linear(module.out, o_j) if has_out else o_j)
    return torch.stack(betas), outputs


def linear(convolution: torch.nn.Module, pixel: Tensor) -> Tensor:
    weight, bias = convolution.get_parameter("weight"), convolution.get_parameter("bias")
    return weight[:, :, 0, 0] @ pixel + bias


def parameters(module: Block) -> int:
    return sum(weight.numel() for weight in module.parameters())


def outputs_and_gradients(compute: Callable[..., Tensor], inputs: Rows) -> list[Tensor]:
    o = compute(*inputs)
    direction = torch.randn(o.shape, generator=generator(3, "o"), dtype=torch.float64).to(o)
    return [o.detach(), *torch.autograd.grad(o, inputs, direction)]


def relative_error(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().double(), expected.detach()
    return float((found - expected).abs().max() / expected.abs().max())


# The equations


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("compute", [attention.plain, *FAST])
def test_block_computes_the_equations_and_their_gradients(
    kind: AttentionKind,
    memory_format: torch.memory_format,
    compute: Callable[..., Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "path", lambda *_: compute)
    monkeypatch.setattr(attention, "CHUNK_BYTES", 0)  # an image at a time
    module = block(channels=16, kind=kind)
    x = features(3, 16, 4, 2).contiguous(memory_format=memory_format).requires_grad_()
    direction = torch.randn(x.shape, generator=generator(4, "y"), dtype=x.dtype)
    y, expected = module(x), by_hand(module, x)[1]
    assert torch.allclose(y, expected, rtol=0, atol=1e-12)
    assert (y - x).abs().max() > 0.1  # else the comparison would not see the block
    leaves = [x, *module.parameters()]
    found, wanted = (torch.autograd.grad(out, leaves, direction) for out in (y, expected))
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", ["full", "icml", "pooled"])
def test_maps_are_those_of_the_equations(kind: AttentionKind) -> None:
    module, x = block(channels=16, kind=kind), features(2, 16, 4, 6)
    beta = module.maps(x)
    assert beta is not None
    assert beta.shape == (2, 24, 6 if kind == "pooled" else 24)
    assert torch.allclose(beta, by_hand(module, x)[0], rtol=0, atol=1e-12)


def test_uniform_maps_are_equal_and_a_residual_block_has_none() -> None:
    x = features(2, 8, 4, 4)
    beta = block(kind="uniform").maps(x)
    assert beta is not None
    assert torch.equal(beta, torch.full((2, 16, 16), 1 / 16, dtype=x.dtype))
    assert block(kind="residual").maps(x) is None


def test_rows_of_beta_sum_to_one_and_columns_do_not() -> None:
    beta = block().maps(features(3, 8, 4, 4))
    assert beta is not None
    assert torch.allclose(beta.sum(dim=2), torch.ones(3, 16, dtype=beta.dtype), atol=1e-12)
    assert (beta.sum(dim=1) - 1).abs().max() > 0.1
    assert beta.min() >= 0


def test_scores_are_not_scaled_by_the_width() -> None:
    query = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    key = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    expected = torch.tensor([[[math.e**2, 1.0], [1.0, 1.0]]])
    expected = expected / expected.sum(dim=-1, keepdim=True)
    assert torch.allclose(attention_maps(query, key), expected, atol=1e-6)


def test_large_scores_stay_finite() -> None:
    query, key, value = (tensor.detach() for tensor in rows(2, 16, 8, torch.float32))
    for compute in (attention.plain, *FAST):
        assert compute(1e3 * query, 1e3 * key, value).isfinite().all()


# gamma


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_new_block_is_the_identity_bit_for_bit(
    dtype: torch.dtype, memory_format: torch.memory_format, kind: AttentionKind
) -> None:
    x = features(3, 16, 4, 4, dtype=dtype).contiguous(memory_format=memory_format)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        y = of_kind(kind, 16)(x)
    assert torch.equal(y, x)
    assert y.dtype == x.dtype


def test_gamma_starts_where_it_should_and_is_trained_or_a_constant() -> None:
    learned = SelfAttention(8, AttentionConfig(gamma_init=1.0))
    constant = SelfAttention(8, AttentionConfig(gamma_init=1.0, gamma_learned=False))
    for module in (learned, constant):
        module.requires_grad_(False).requires_grad_(True)  # as G's step does with D
        assert module.gamma.item() == 1
        assert "gamma" in module.state_dict()
        module.gamma.data.fill_(5)
        module.reset_parameters()
        assert module.gamma.item() == 1
    assert learned.gamma.requires_grad
    assert "gamma" in dict(learned.named_parameters())
    assert not constant.gamma.requires_grad
    assert "gamma" not in dict(constant.named_parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("autocast", [False, True])
def test_block_keeps_the_memory_format(
    autocast: bool, memory_format: torch.memory_format, kind: AttentionKind
) -> None:
    x = features(3, 16, 4, 6, dtype=torch.float32).contiguous(memory_format=memory_format)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = block(16, dtype=torch.float32, kind=kind)(x)
    assert y.is_contiguous(memory_format=memory_format)
    assert y.stride() == x.stride()


def test_at_gamma_zero_only_gamma_learns() -> None:
    module = block(gamma=0.0)
    module(features(2, 8, 4, 4)).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    moved = {name for name, grad in gradients.items() if grad is not None and grad.any()}
    assert moved == {"gamma"}


def test_otherwise_all_but_the_key_bias_learn() -> None:
    # A key bias adds bias . g(x_j) to s_ij for every i alike, and the softmax over i cancels it.
    # A query bias adds f(x_i) . bias, which differs with i, so it stays.
    module = block(channels=16)
    module(features(2, 16, 4, 4)).square().sum().backward()
    sizes = {
        name: float(parameter.grad.abs().max())
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }
    assert len(sizes) == 7
    assert sizes.pop("key.bias") < 1e-12
    assert min(sizes.values()) > 1e-3, sizes


# Kinds


@pytest.mark.parametrize(
    ("kind", "weights", "biases"),
    [("full", 5 / 4, 5 / 4), ("icml", 1 / 2, 11 / 8), ("pooled", 5 / 4, 7 / 4), ("uniform", 1, 1)],
)
def test_parameter_counts(kind: AttentionKind, weights: float, biases: float) -> None:
    for channels in (64, 512):
        count = parameters(of_kind(kind, channels))
        assert count == weights * channels**2 + biases * channels + 1


def test_a_residual_block_has_as_many_parameters_as_attention() -> None:
    for channels in range(8, 1025, 8):
        with torch.device("meta"):
            full, control = (parameters(of_kind(kind, channels)) for kind in ("full", "residual"))
        assert control == pytest.approx(full, rel=0.04 if channels < 64 else 0.01), channels


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_position_sees(kind: AttentionKind) -> None:
    module, x = block(kind=kind), features(1, 8, 4, 4)
    moved = x.clone()
    moved[:, :, 1, 2] += 3
    changed = (module(moved) != module(x)).any(dim=1)[0]
    assert changed[1, 2]
    assert int(changed.sum()) == (1 if kind == "residual" else 16)


def test_uniform_attention_adds_the_same_everywhere() -> None:
    module, x = block(kind="uniform"), features(2, 8, 4, 4)
    added = (module(x) - x).flatten(2)
    assert (added - added[:, :, :1]).abs().max() < 1e-12
    assert added.abs().min() > 1e-6


# Side effects and refusals


@pytest.mark.parametrize("kind", KINDS)
def test_neither_forward_nor_backward_writes_into_its_input(kind: AttentionKind) -> None:
    x = features(2, 8, 4, 4)
    leaf = x.clone().requires_grad_()
    shortcut = leaf * 1  # not a leaf, so that an in-place write would be allowed
    y = block(kind=kind)(shortcut)
    y.sum().backward()
    assert torch.equal(shortcut, x)
    assert torch.equal(leaf, x)


def test_evaluation_changes_nothing() -> None:
    module = block().eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    x = features(2, 8, 4, 4)
    with torch.no_grad():
        evaluated = module(x)
    assert torch.equal(evaluated, module.train()(x).detach())
    after = module.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize("channels", [-8, 0, 4, 12])
def test_channels_must_be_a_multiple_of_eight(channels: int) -> None:
    with pytest.raises(ValueError, match=rf"C/8.*got C = {channels}$"):
        SelfAttention(channels)


# Paths


@pytest.mark.parametrize("compute", FAST)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_paths_agree_in_outputs_and_gradients(
    compute: Callable[..., Tensor],
    dtype: torch.dtype,
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Two maps at a time, so that five images leave a last chunk of one.
    monkeypatch.setattr(attention, "CHUNK_BYTES", 2 * 36 * 36 * dtype.itemsize)
    inputs = rows(5, 36, 16, dtype)
    expected = outputs_and_gradients(attention.plain, inputs)
    for found, wanted in zip(outputs_and_gradients(compute, inputs), expected, strict=True):
        assert relative_error(found, wanted.double()) < tolerance


@pytest.mark.parametrize("compute", [attention.plain, *FAST])
def test_bf16_paths_stay_near_the_exact_values(
    compute: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "CHUNK_BYTES", 2 * 64 * 64 * 2)
    rounded = rows(5, 64, 32, torch.bfloat16)
    exact: Rows = tuple(t.detach().double().requires_grad_() for t in rounded)  # type: ignore[assignment]
    expected = outputs_and_gradients(attention.plain, exact)
    for found, wanted in zip(outputs_and_gradients(compute, rounded), expected, strict=True):
        assert found.dtype == torch.bfloat16
        assert relative_error(found, wanted) < 0.02


@pytest.mark.parametrize(
    ("images", "positions", "chunks"),
    [(4, 256, [4]), (128, 256, [8] * 16), (19, 256, [8, 8, 3]), (2, 1024, [1, 1])],
)
def test_chunks_are_as_large_as_the_budget_and_never_empty(
    images: int, positions: int, chunks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def first_value(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        assert len(query) == len(key) == len(value)
        seen.append(len(query))
        return value

    monkeypatch.setattr(attention, "plain", first_value)
    query, key, value = rows(images, positions, 8, torch.float32)
    assert torch.equal(attention.chunked(query, key, value), value)
    assert seen == chunks


def test_pooled_keys_make_smaller_maps_and_larger_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def first_value(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        seen.append(len(query))
        return value

    monkeypatch.setattr(attention, "plain", first_value)
    query, key, value = rows(64, 256, 8, torch.float32)
    attention.chunked(query, key[:, :64], value[:, :64])
    assert seen == [32, 32]


@pytest.mark.parametrize("values", [8, attention.FUSED_VALUES, attention.FUSED_VALUES + 1])
def test_path_is_chosen_by_device_and_double_backward(values: int) -> None:
    for entries in (64 * 64, 1024 * 1024, attention.LARGE_MAP - 1):
        assert path("cpu", False, entries, values) is attention.chunked
        assert path("cpu", True, entries, values) is attention.chunked
    for entries in (1, 4096 * 4096):
        assert path("cuda", False, entries, values) is attention.fused
        assert path("cuda", True, entries, values) is attention.plain
        assert path("mps", False, entries, values) is attention.plain


@pytest.mark.parametrize("entries", [4096 * 1024, 4096 * 4096])
def test_path_of_large_maps_depends_on_the_width_too(entries: int) -> None:
    narrow, wide = attention.FUSED_VALUES, attention.FUSED_VALUES + 1
    assert path("cpu", False, entries, narrow) is attention.fused
    assert path("cpu", False, entries, wide) is attention.recomputed
    assert path("cpu", True, entries, narrow) is attention.chunked
    assert path("cpu", True, entries, wide) is attention.chunked


@pytest.mark.parametrize("compute", FAST)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_paths_agree_at_64_by_64_positions(
    compute: Callable[..., Tensor], dtype: torch.dtype, tolerance: float
) -> None:
    inputs = rows(2, 4096, 16, dtype)
    exact: Rows = tuple(t.detach().float().requires_grad_() for t in inputs)  # type: ignore[assignment]
    expected = outputs_and_gradients(attention.plain, exact)
    for found, wanted in zip(outputs_and_gradients(compute, inputs), expected, strict=True):
        assert found.dtype == dtype
        assert relative_error(found, wanted.double()) < tolerance


@pytest.mark.parametrize("kind", ["full", "icml", "pooled"])
@pytest.mark.parametrize("channels", [64, 192])
@pytest.mark.parametrize("memory_format", FORMATS)
def test_no_block_keeps_large_maps_for_its_backward(
    memory_format: torch.memory_format, kind: AttentionKind, channels: int
) -> None:
    module = block(channels, dtype=torch.float32, kind=kind)
    x = features(1, channels, 64, 64, dtype=torch.float32).contiguous(memory_format=memory_format)
    assert largest_saved(lambda: module(x)) <= x.numel()


def test_chunks_are_kept_for_the_backward() -> None:
    # So the test above can fail, and large maps need another path.
    inputs = rows(2, 2048, 8, torch.float32)
    assert largest_saved(lambda: attention.chunked(*inputs)) >= 2048**2


def largest_saved(compute: Callable[[], Tensor]) -> int:
    """The entries of the largest tensor that autograd keeps for the backward."""
    sizes: list[int] = []

    def noted(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(noted, lambda tensor: tensor):
        compute()
    return max(sizes)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak cannot be reset")
@pytest.mark.parametrize("compute", FAST)
def test_peak_memory_grows_by_a_map_for_each_image_only_where_maps_are_kept(
    compute: Callable[..., Tensor],
) -> None:
    few, many = (peak_mib(compute, images) for images in (1, 4))
    map_mib = 4096**2 * 4 / 2**20
    if compute in BOUNDED:
        assert many - few < map_mib
    else:
        assert many - few > 2 * map_mib


def peak_mib(compute: Callable[..., Tensor], images: int) -> float:
    """Peak memory of this process in a forward and backward pass, in MiB."""
    inputs = rows(images, 4096, 8, torch.float32)
    system.forget_peak_memory(torch.device("cpu"))
    outputs_and_gradients(compute, inputs)
    return 1024 * system.peak_memory_gib(torch.device("cpu"))


@pytest.mark.parametrize("needed", [False, True])
def test_block_passes_its_need_of_a_double_backward_on(
    needed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []

    def spy(device_type: str, needs_double_backward: bool, *_: int) -> Callable[..., Tensor]:
        asked.append((device_type, needs_double_backward))
        return attention.plain

    monkeypatch.setattr(attention, "path", spy)
    SelfAttention(8, needs_double_backward=needed)(features(1, 8, 2, 2, dtype=torch.float32))
    assert asked == [("cpu", needed)]


@pytest.mark.parametrize("compute", [attention.plain, attention.chunked, attention.recomputed])
def test_gradients_and_their_gradients(
    compute: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "CHUNK_BYTES", 2 * 4 * 4 * 8)
    inputs = rows(3, 4, 8, torch.float64)
    assert torch.autograd.gradcheck(compute, inputs)
    assert torch.autograd.gradgradcheck(compute, inputs)


def test_gradients_of_the_fused_path() -> None:
    assert torch.autograd.gradcheck(attention.fused, rows(2, 4, 8, torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_the_block_and_their_gradients(kind: AttentionKind) -> None:
    module = block(kind=kind)
    x = features(2, 8, 2, 4).requires_grad_()
    assert torch.autograd.gradcheck(module, (x,))
    assert torch.autograd.gradgradcheck(module, (x,))


# Precision


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_the_maps_are_bf16_and_the_features_keep_their_dtype(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[torch.dtype] = []

    def spy(query: Tensor, key: Tensor, value: Tensor, **rest: bool) -> Tensor:
        o = attend(query, key, value, **rest)
        used.extend(tensor.dtype for tensor in (query, key, value, o, attention_maps(query, key)))
        return o

    monkeypatch.setattr(_blocks, "attend", spy)
    module = block(16, dtype=torch.float32)
    x = features(2, 16, 6, 6, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    assert used == [torch.bfloat16] * 5
    assert y.dtype == dtype
    exact = block(16)(x.double())
    assert 0 < relative_error(y, exact) < 0.02
    y.float().sum().backward()
    assert {
        parameter.grad.dtype for parameter in module.parameters() if parameter.grad is not None
    } == {torch.float32}


def test_bf16_sums_of_the_softmax_do_not_lose_small_terms() -> None:
    # 4,096 equal scores: a sum kept in bf16 stops at 256, and each beta would be 1/256.
    beta = attention_maps(*(torch.zeros(1, 4096, 1, dtype=torch.bfloat16) for _ in range(2)))
    assert torch.equal(beta, torch.full_like(beta, 1 / 4096))


@pytest.mark.gpu
def test_gpu_agrees_with_cpu() -> None:
    inputs = rows(4, 64, 32, torch.float32)
    expected = outputs_and_gradients(attention.plain, inputs)
    on_gpu: Rows = tuple(t.detach().cuda().requires_grad_() for t in inputs)  # type: ignore[assignment]
    for compute in (attention.plain, attention.fused):
        for found, wanted in zip(outputs_and_gradients(compute, on_gpu), expected, strict=True):
            assert relative_error(found.cpu(), wanted.double()) < 1e-4


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_on_a_gpu_agree_with_the_equations(kind: AttentionKind) -> None:
    module, x = block(64, kind=kind), features(3, 64, 8, 4)
    expected = by_hand(module, x)[1]
    y = module.float().cuda()(x.float().cuda().contiguous(memory_format=torch.channels_last))
    assert relative_error(y.cpu(), expected) < 1e-4
