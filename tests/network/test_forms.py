"""Every form of a convolution against torch's own, image by image: outputs and gradients."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from nas.blocks.forms import Case, Choose, convolve_each, depthwise, forms_of, pointwise_each, usual

DEPTHWISE = Case("depthwise", "bfloat16", 8)
EACH = DEPTHWISE._replace(operation="depthwise per image")
POINTWISE = DEPTHWISE._replace(operation="pointwise per image")
MEMORY_FORMATS = (torch.contiguous_format, torch.channels_last)


def always(form: str) -> Choose:
    return lambda case: form


def leaves(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.detach().clone(memory_format=torch.preserve_format).requires_grad_() for tensor in tensors)


def learned(out: Tensor, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The output, and the gradients of a loss that weighs every value of it differently."""
    weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view(out.shape)
    return out, *torch.autograd.grad((out * weights).sum(), given)


def images(n: int, channels: int, side: int, memory_format: torch.memory_format) -> Tensor:
    torch.manual_seed(side)
    return torch.randn(n, channels, side, side, dtype=torch.double).contiguous(memory_format=memory_format)


@pytest.mark.parametrize("form", forms_of(DEPTHWISE))
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
@pytest.mark.parametrize(("kernel", "stride"), list(itertools.product((3, 5, 7), (1, 2))))
@pytest.mark.parametrize("side", [1, 2, 3, 4, 9])
def test_depthwise(form: str, memory_format: torch.memory_format, kernel: int, stride: int, side: int) -> None:
    """Also where the image is smaller than the kernel."""
    place = {"stride": stride, "padding": kernel // 2}
    given = leaves(
        images(3, 6, side, memory_format), torch.randn(6, 1, kernel, kernel).double(), torch.randn(6).double()
    )
    ours = learned(depthwise(*given, **place, choose=always(form.removesuffix(" in float32"))), given)
    torch.testing.assert_close(ours, learned(F.conv2d(*given, **place, groups=6), given))


@pytest.mark.parametrize("padding", [0, 1])
def test_depthwise_with_less_padding(padding: int) -> None:
    given = leaves(images(3, 6, 5, torch.channels_last), torch.randn(6, 1, 5, 5).double())
    ours = learned(depthwise(*given, None, stride=1, padding=padding, choose=always("split")), given)
    torch.testing.assert_close(ours, learned(F.conv2d(*given, padding=padding, groups=6), given))


@pytest.mark.parametrize("form", [None, *forms_of(EACH)])
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
@pytest.mark.parametrize(("kernel", "stride"), list(itertools.product((3, 5), (1, 2))))
@pytest.mark.parametrize("side", [1, 2, 9])
@pytest.mark.parametrize("n", [1, 3])
def test_depthwise_per_image(
    form: str | None, memory_format: torch.memory_format, kernel: int, stride: int, side: int, n: int
) -> None:
    place = {"stride": stride, "padding": kernel // 2, "groups": 6}
    given = leaves(images(n, 6, side, memory_format), torch.randn(n, 6, 1, kernel, kernel).double())
    choose = None if form is None else always(form.removesuffix(" in float32"))
    separate = [F.conv2d(x[None], weight, **place) for x, weight in zip(*given, strict=True)]  # type: ignore[arg-type]
    expected = learned(torch.cat(separate), given)
    torch.testing.assert_close(learned(convolve_each(*given, **place, choose=choose), given), expected)
    with torch.no_grad():
        torch.testing.assert_close(convolve_each(*given, **place, choose=choose), expected[0].detach())


@pytest.mark.parametrize("form", [None, *forms_of(POINTWISE)])
@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
@pytest.mark.parametrize("side", [1, 2, 5])  # few pixels have another usual form
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(("before", "after"), [(4, 10), (10, 4)])
def test_pointwise_per_image(
    form: str | None, memory_format: torch.memory_format, side: int, n: int, before: int, after: int
) -> None:
    x = images(n, before, side, memory_format)
    given = leaves(x, torch.rand(n, 4).double(), torch.randn(4, after, before).double())

    def separate(x: Tensor, routing: Tensor, experts: Tensor) -> Tensor:
        kernels = [sum(part * expert for part, expert in zip(shares, experts, strict=True)) for shares in routing]
        return torch.cat(
            [F.conv2d(image[None], kernel[:, :, None, None]) for image, kernel in zip(x, kernels, strict=True)]
        )

    choose = None if form is None else always(form)
    torch.testing.assert_close(learned(pointwise_each(*given, choose=choose), given), learned(separate(*given), given))


@pytest.mark.parametrize("case", [DEPTHWISE, EACH])
@pytest.mark.parametrize("kernel", [3, 5])
def test_low_precision_is_kept_to_the_form(case: Case, kernel: int) -> None:
    """Under autocast every form gives what autocast would, up to bfloat16's rounding (8 bits)."""
    x = images(2, 6, 8, torch.channels_last).float()
    weight = torch.randn(*(() if case is DEPTHWISE else (2,)), 6, 1, kernel, kernel)
    place = {"stride": 2, "padding": kernel // 2}
    met: list[Case] = []

    def run(form: str) -> tuple[Tensor, ...]:
        def choose(case: Case) -> str:
            met.append(case)
            return form

        given = leaves(x, weight)
        with torch.autocast("cpu", torch.bfloat16):
            if case is DEPTHWISE:
                out = depthwise(*given, None, **place, choose=choose)
            else:
                out = convolve_each(*given, **place, groups=6, choose=choose)
        assert out.dtype is torch.bfloat16
        return learned(out, given)

    forms = forms_of(case)
    assert len(forms) == len(set(forms)) and forms[0] == usual(case)
    expected = run("plain in float32" if case is DEPTHWISE else "groups in float32")
    for form in forms:
        for ours, theirs in zip(run(form), expected, strict=True):
            assert (ours - theirs).abs().max() <= 0.03 * theirs.abs().max()
    assert {(item.dtype, item.side, item.kernel, item.stride) for item in met} == {("bfloat16", 8, kernel, 2)}


def test_float32_has_no_form_in_float32() -> None:
    assert forms_of(DEPTHWISE._replace(dtype="float32")) == ("plain", "split")


@pytest.mark.parametrize(("side", "kernel"), [(1, None), (2, 3), (3, 5), (4, 7), (9, 7)])
def test_a_case_has_the_part_of_the_kernel_that_meets_the_image(side: int, kernel: int | None) -> None:
    met: list[Case] = []

    def choose(case: Case) -> str:
        met.append(case)
        return "plain"

    x, weight = torch.randn(2, 4, side, side), torch.randn(4, 1, 7, 7)
    out = depthwise(x, weight, None, stride=1, padding=3, choose=choose)
    assert [case.kernel for case in met] == ([] if kernel is None else [kernel])
    torch.testing.assert_close(out, F.conv2d(x, weight, padding=3, groups=4))
