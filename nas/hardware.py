"""Describe this machine, as far as its figures depend on it."""

import os
import platform
import re
from pathlib import Path

import torch

from nas.errors import UserError

CPU_INFO = Path("/proc/cpuinfo")


def check_device(device: str) -> None:
    """Raise UserError unless torch knows the device and sees it on this machine."""
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
        raise UserError(f"device {device!r}: allowed are cpu, cuda, cuda:INDEX and mps")
    if device == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps': torch sees no Apple GPU here; use cpu")
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= (count := torch.cuda.device_count()):
        raise UserError(f"device {device!r}: torch sees {count or 'no'} GPU{'s' * (count > 1)} here; use cpu")


def choose_device(device: str | None) -> str:
    """The device to train on: the one asked for, else a GPU where there is one.

    Raises:
        UserError: it is not here.
    """
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    check_device(device)
    return device


def memory_bytes(device: str) -> int | None:
    """Memory of the device, or None where the system does not tell."""
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def device_name(device: str) -> str:
    """The name of the processor, or of the graphics card for ``cuda``; Apple's ``mps`` is part of the processor."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    if device != "cpu":
        return f"{device} of {device_name('cpu')}"
    for field in ("model name", "Model", "Hardware"):
        name = cpu_info(field)
        if name:
            family = " ".join(f"{field.removeprefix('cpu ')} {cpu_info(field)}" for field in _FAMILY if cpu_info(field))
            return f"{name} ({family})" if family else name
    return platform.processor() or platform.machine()


def cpu_info(wanted: str) -> str:
    """A field of the first processor, as Linux tells it; empty where it does not."""
    for line in read_system(CPU_INFO).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == wanted:
            return value.strip()
    return ""


def read_system(path: Path) -> str:
    """The text of one of the system's own files; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


_FAMILY = ("cpu family", "model", "stepping")
