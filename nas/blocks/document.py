"""The parts of an architecture document that are checked as they are read: fields, their types, and their errors."""

import difflib
import functools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Activation = Literal["relu", "relu6", "hard_swish", "silu"]
Norm = Literal["batch", "none"]


def _odd(kernel: Any) -> Any:
    if isinstance(kernel, int) and kernel % 2 == 0:
        raise ValueError(f"kernel {kernel} is even; kernels are odd, such as 3, 5 or 7")
    return kernel


def _kernel_set(kernels: Any) -> Any:
    if not isinstance(kernels, list | tuple):
        raise ValueError(f"{kernels!r} is not a list of odd kernels, such as [3] or [3, 5, 7]")
    if len(kernels) != len({str(kernel) for kernel in kernels}):
        raise ValueError(f"kernels {list(kernels)} name one kernel twice")
    return tuple(kernels)


Channels = Annotated[int, Field(ge=1, le=65_536)]
Count = Annotated[int, Field(ge=1, le=64)]
Stride = Annotated[int, Field(ge=1, le=4)]
Ratio = Annotated[int | float, Field(gt=0, le=64, allow_inf_nan=False)]
Kernel = Annotated[int, Field(ge=1, le=31), BeforeValidator(_odd)]
Kernels = Annotated[tuple[Kernel, ...], Field(min_length=1, max_length=8), BeforeValidator(_kernel_set)]
SeRatio = Annotated[int | float, Field(ge=0, le=1, allow_inf_nan=False)]


class Part(BaseModel):
    """A part of the document: unknown fields are errors that name the known ones, values are never converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @functools.cached_property
    def _hash(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in type(self).model_fields)))

    def __hash__(self) -> int:
        """Hash the fields, once: a search looks the same stages up over and over."""
        return self._hash

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            for key in value:
                if key not in cls.model_fields:
                    close = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                    hint = f"did you mean {close[0]!r}? " if close else ""
                    raise ValueError(f"unknown field {key!r}; {hint}allowed: {', '.join(cls.model_fields)}")
        return value

    def without_defaults(self) -> dict[str, Any]:
        """Return the fields as plain values, those at their default left out."""
        return {
            name: plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if field.is_required() or getattr(self, name) != field.default
        }


def plain(value: Any) -> Any:
    """Return a field's value as YAML has it: lists for tuples, and a whole number without its point."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
