"""What a worker process of a test loads before anything else (as ``sitecustomize``): networks that break.

A network with a convolution of so many output channels does in its forward what stands here. The search knows nothing
of it: the faults are real ones, in real worker processes.
"""

import os
import signal
import sys
import time
from pathlib import Path

LIKE_NAN, RAISES, HUGE_TENSOR, HUGE_LIST, KILLED, HANGS = 41, 43, 47, 53, 59, 61

if any(argument.endswith("default_worker.py") for argument in sys.orig_argv):
    import torch
    from torch.nn.modules.module import register_module_forward_hook

    def break_down(module, _inputs, output):
        channels = getattr(module, "out_channels", None)
        if channels is not None and "PIDS" in os.environ:
            (Path(os.environ["PIDS"]) / str(os.getpid())).touch()
        if channels == LIKE_NAN:
            return output * float("nan")
        if channels == RAISES:
            raise ZeroDivisionError("a network that divides by zero")
        if channels == HUGE_TENSOR:
            return torch.empty(10**14)
        if channels == HUGE_LIST:
            bytearray(10**15)
        if channels == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        if channels == HANGS:
            time.sleep(1e6)
        return None

    register_module_forward_hook(break_down)
