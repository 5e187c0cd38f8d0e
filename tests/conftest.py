"""Beside the tests, so that they find `checks` and each other's helpers here."""

import os

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several processes of several threads each wait for one another on few cores. Read when torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def shared_ray() -> None:
    """Ray, running: searches of this process share it, whose start and end take seconds, until one needs its own."""
    from nas.driver.cluster import start_ray
    from nas.driver.options import Resources

    start_ray(Resources())


@pytest.fixture
def own_ray() -> None:
    """No Ray runs, so that a search of this process starts its own."""
    import ray

    ray.shutdown()
