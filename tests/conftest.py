"""Beside the tests, so that they find `checks` and each other's helpers here."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several processes of several threads each wait for one another on few cores. Read when torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
