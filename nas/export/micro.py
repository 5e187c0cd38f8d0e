"""TensorFlow Lite Micro: the int8 .tflite as a C array, and all that a firmware's author has to know of it."""

import logging
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nas.export.check import ExportError
from nas.export.litert import Session
from nas.extras import muted, require
from nas.files import write_file
from nas.network.tflite_file import operators, pack
from nas.training.card import Card

log = logging.getLogger(__name__)


class Arena(NamedTuple):
    """Memory that TensorFlow Lite Micro needs to run a model, in bytes.

    `head`: the activations alive at once, planned. `tail`: what is kept from the start on, such as the scales of each
    output channel; of a 64-bit interpreter, whose pointers are twice a microcontroller's.
    """

    head: int
    tail: int
    total: int


def arena(model: bytes) -> Arena:
    """Measure the arena of a .tflite by TensorFlow Lite Micro's own interpreter, with its reference kernels.

    Raises:
        UserError: tflite-micro is missing.
        ExportError: it does not run the model.
    """
    require("--format tflite-micro", "tflite_micro", extra="litert")
    from tflite_micro.python.tflite_micro import runtime

    failure: Exception | None = None
    for size in (2**22, 2**26, 2**30):
        with muted() as printed:
            try:
                interpreter = runtime.Interpreter.from_bytes(model, arena_size=size)
                details = interpreter.get_input_details(0)
                interpreter.set_input(np.zeros(details["shape"], details["dtype"]), 0)
                interpreter.invoke()
                interpreter.print_allocations()
            except Exception as error:  # its errors have no common base
                failure = error
                continue
            printed.seek(0)
            said = printed.read().decode(errors="replace")
        total, head, tail = (
            int(re.findall(rf"allocation {part} (\d+)", said)[0]) for part in ("total", "head", "tail")
        )
        return Arena(head, tail, total)
    reason = (str(failure).splitlines() or ["out of memory"])[0]
    raise ExportError(f"TensorFlow Lite Micro does not run this model: {reason}") from failure


def write_micro(model: bytes, card: Card, folder: Path) -> tuple[Path, ...]:
    """Write an int8 .tflite for a microcontroller: itself, ``model_data.cc``, ``model_data.h`` and ``README.md``.

    The C array is the same model without the card, which nobody reads on the device.

    Raises:
        UserError: tflite-micro is missing, a file cannot be written.
        ExportError: TensorFlow Lite Micro does not run the model.
    """
    flash = pack(model)
    measured = arena(flash)
    log.info("flash %d bytes, arena %d bytes (%d of them for activations)", len(flash), measured.total, measured.head)
    texts = {
        "model_data.h": _header(card),
        "model_data.cc": _source(flash, card),
        "README.md": _readme(model, len(flash), card, measured),
    }
    paths = (folder / f"{card.architecture.name}.tflite", *(folder / name for name in texts))
    for path, content in zip(paths, (model, *(text.encode() for text in texts.values())), strict=True):
        write_file(path, content, new_folder=True)
    return paths


def _header(card: Card) -> str:
    return f"""// {card.architecture.name}, int8, for TensorFlow Lite Micro; README.md says how to use it.
#ifndef MODEL_DATA_H_
#define MODEL_DATA_H_

extern const unsigned char g_model_data[];
extern const unsigned int g_model_data_size;

#endif  // MODEL_DATA_H_
"""


def _source(model: bytes, card: Card) -> str:
    rows = (model[first : first + 16].hex(" ") for first in range(0, len(model), 16))
    lines = "\n".join("    " + "".join(f"0x{byte}, " for byte in row.split()).rstrip() for row in rows)
    return f"""// {card.architecture.name}, int8, for TensorFlow Lite Micro; README.md says how to use it.
#include "model_data.h"

alignas(16) const unsigned char g_model_data[] = {{
{lines}
}};
const unsigned int g_model_data_size = {len(model)};
"""


def _readme(model: bytes, flash: int, card: Card, measured: Arena) -> str:
    session = Session(model)
    (scale, zero), (out_scale, out_zero) = session.input["quantization"], session.output["quantization"]
    channels, side, _ = card.shape
    *steps, _ = card.preprocessing.steps()  # the last one divides by 255
    steps.append("Subtract 128 from every value (or flip its highest bit), which makes it int8.")
    numbered = "\n".join(f"{number}. {step}" for number, step in enumerate(steps, 1))
    names = operators(model)
    resolver = "\n".join(f"resolver.Add{_method(name)}();" for name in names)
    classes = "\n".join(f"{number}. {name}" for number, name in enumerate(card.classes))
    return f"""# {card.architecture.name} for TensorFlow Lite Micro

Flash: {flash:,} bytes (`model_data.cc`, the same model as the `.tflite` here without nas's metadata).

Arena: {measured.total:,} bytes, of which {measured.head:,} for activations and {measured.tail:,} kept from the start
on. Measured by the interpreter of the tflite-micro wheel, on 64 bits with reference kernels: a 32-bit board needs less
of the second part, optimised kernels (CMSIS-NN, ESP-NN) may ask for scratch buffers besides. `AllocateTensors` fails
where the arena is too small; `interpreter.arena_used_bytes()` says what the board needs.

## Input

int8, (1, {side}, {side}, {channels}): rows from the top, in each row its pixels, of each pixel its channels.
Scale {scale:.10g}, zero point {zero}: the value is the 8-bit pixel minus 128. The normalisation is inside the model.

{numbered}

## Output

int8, (1, {len(card.classes)}): a logit for each class, scale {out_scale:.10g}, zero point {out_zero}.
The largest is the class, counted from 0:

{classes}

## Code

```cpp
#include "model_data.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

constexpr int kArenaSize = {-(-measured.total // 1024)} * 1024;
alignas(16) static uint8_t arena[kArenaSize];

tflite::MicroMutableOpResolver<{len(names)}> resolver;
{resolver}
tflite::MicroInterpreter interpreter(tflite::GetModel(g_model_data), resolver, arena, kArenaSize);
interpreter.AllocateTensors();
// interpreter.input(0)->data.int8, interpreter.Invoke(), interpreter.output(0)->data.int8
```
"""


def _method(operator: str) -> str:
    """The resolver's name of an operator: CONV_2D -> Conv2D, FULLY_CONNECTED -> FullyConnected, PADV2 -> PadV2."""
    name = "".join(part if part[0].isdigit() else part.capitalize() for part in operator.split("_"))
    return re.sub("v2$", "V2", name)
