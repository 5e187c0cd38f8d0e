"""The operators of a network as it is shipped: what :mod:`nas.network.fold` makes of a module, from the list alone."""

from collections.abc import Iterable

from nas.blocks.complexity import PLAIN_CONVOLUTIONS, CountedPart, Operator, Tensor


def folded(part: CountedPart) -> tuple[Operator, ...]:
    """Fold the norms and the sums of plain convolutions of one part.

    A convolution that takes a norm has biases. Of a pyramid of plain convolutions that are added, the largest one
    stays. `params` and `macs` of what stays are what the operator had before.
    """
    written: dict[int, Operator] = {}
    renamed: dict[int, Tensor] = {}
    operators = part.record()
    for operator, following in zip(operators, (*operators[1:], None), strict=True):
        reads = tuple(renamed.get(tensor.number, tensor) for tensor in operator.reads)
        writers = [written[tensor.number] for tensor in reads if tensor.number in written]
        if operator.kind == "sum" and all(writer.kind in PLAIN_CONVOLUTIONS for writer in writers):
            for writer in writers:
                del written[writer.writes.number]
            largest = max(writers, key=lambda writer: writer.kernel)
            written[operator.writes.number] = largest._replace(writes=operator.writes)
            continue
        convolutions = list(_convolutions(writers, written)) if operator.kind == "norm" else []
        for convolution in convolutions:
            written[convolution.writes.number] = convolution._replace(biases=convolution.writes.channels)
        into_next = following is not None and following.kind == "conv" and following.kernel == 1
        if operator.kind == "norm" and (convolutions or into_next):
            renamed[operator.writes.number] = reads[0]
            continue
        written[operator.writes.number] = operator._replace(reads=reads)
    return tuple(written.values())


def _convolutions(writers: Iterable[Operator], written: dict[int, Operator]) -> Iterable[Operator]:
    """Yield the convolutions whose outputs, joined or not, these operators are."""
    for writer in writers:
        if writer.is_convolution:
            yield writer
        elif writer.kind in ("sum", "concat"):
            yield from _convolutions((written[tensor.number] for tensor in writer.reads), written)
