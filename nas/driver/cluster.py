"""Ray, started on this machine or joined elsewhere, and how many workers it holds.

It is imported when it is started: that takes seconds, needs a home, and nothing but a search needs Ray.
"""

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from nas.driver.options import Resources
from nas.driver.processes import descendants, watched
from nas.errors import UserError, first_line
from nas.files import home_folder
from nas.hardware import memory_bytes
from nas.training.cpu import available_cores, worker_environment

LONGEST_FOLDER = 35
"""Bytes of the path of Ray's folder: what follows is as long as
``/ray/session_2026-11-28_19-04-46_123456_1234567/sockets/plasma_store``."""


class Card(NamedTuple):
    """A GPU that workers train on."""

    name: str
    memory: int
    """In bytes, all of it."""


@dataclass(frozen=True)
class Workers:
    """Resources, decided; `card` is known once Ray runs."""

    count: int
    cpus: int
    gpus: float
    card: Card | None = None

    @property
    def device(self) -> str:
        return "cuda" if self.gpus else "cpu"

    @property
    def memory(self) -> int | None:
        """Bytes that one worker's network may take."""
        return int(self.card.memory * self.gpus) if self.card else memory_bytes("cpu")


class Node(NamedTuple):
    """One machine of the cluster."""

    cpus: int
    gpus: int


def decide(resources: Resources, nodes: Sequence[Node]) -> Workers:
    """Count the workers that fit into the nodes, as Ray packs them: each on one node, its share of a GPU on one GPU.

    Raises:
        UserError: not even one fits.
    """
    share = resources.gpus_per_trial
    if share is None:
        share = 1.0 if any(node.gpus for node in nodes) else 0.0
    slots = [node.gpus * int(1 / share + 1e-9) if share else node.cpus for node in nodes]
    usable = [(node.cpus, places) for node, places in zip(nodes, slots, strict=True) if places]
    if not usable:
        raise UserError(f"gpus-per-trial {share:g}: there are 0 GPUs")
    cpus = resources.cpus_per_trial or (min(max(1, own // places) for own, places in usable) if share else 1)
    count = sum(min(places, own // cpus) for own, places in usable)
    if not count:
        most = max(own for own, _ in usable)
        raise UserError(f"cpus-per-trial {cpus}: there are {most} cores{' beside a GPU' if share else ''}")
    return Workers(count=min(count, resources.max_concurrent or count), cpus=cpus, gpus=share)


def _card() -> Card:
    properties = torch.cuda.get_device_properties(0)
    return Card(properties.name, properties.total_memory)


def card_of(workers: Workers, look: Callable[[], Card] = _card) -> Card | None:
    """Ask a worker for the GPU that it trains on; None where the workers train on CPUs.

    This process never asks its own CUDA: the head of a cluster may have no GPU, and where it has one, a CUDA context
    of the driver's would take some 500 MB of it.

    Raises:
        UserError: Ray counts a GPU where torch sees none.
    """
    if not workers.gpus:
        return None
    import ray
    from ray.exceptions import RayTaskError

    try:
        card: Card = ray.get(ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus)(look).remote())
    except RayTaskError as error:
        reason = first_line(error.cause)
        raise UserError(
            f"gpus-per-trial {workers.gpus:g}: torch sees no GPU on a worker's machine ({reason})"
        ) from error
    return card


def start_ray(resources: Resources) -> None:
    """Start Ray here (loopback, no dashboard) or join a cluster.

    Raises:
        UserError: there is no cluster at that address.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # the study is the record
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "1e9"  # its own snapshot of all trials would be read by nobody
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the progress display is ours
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends the search at once; the study has all but one epoch
    os.environ["TUNE_PRINT_ALL_TRIAL_ERRORS"] = "0"  # a trial's failure is a line in the study, with its reason
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a search tells nobody that it runs
    # Ray's own guard against a full memory kills workers in a way that ends all of Tune; the system's kills one.
    os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")
    import ray
    from ray.exceptions import RayError

    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if ray.is_initialized() and resources.address in (None, "auto"):
        return  # a cluster that the caller's program is connected to
    options: dict[str, Any] = {
        "logging_level": logging.ERROR,
        "log_to_driver": False,
        # OpenMP reads its environment once, so it is set before a worker begins; the threads are set again in it.
        "runtime_env": {"env_vars": worker_environment(resources.cpus_per_trial or 1)},
    }
    if resources.address is None:
        with _clusters_off(), _signals_kept(), _all_or_nothing():
            ray.init(
                address="local",  # even where a cluster runs on this machine
                num_cpus=len(available_cores()),
                num_gpus=torch.cuda.device_count(),
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                _temp_dir=short_folder(),
                **options,
            )
        return
    try:
        with _signals_kept():
            ray.init(address=resources.address, **options)
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        raise UserError(f"--address {resources.address}: no Ray cluster answers ({first_line(error)})") from error


@contextmanager
def _clusters_off() -> Iterator[None]:
    """Lets Ray listen on loopback alone.

    On Linux it takes a loopback address to mean the machine's public one, and listens on all interfaces; on macOS,
    where this constant (of an environment variable that is read with Ray's import) is off, it does as it is told.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _all_or_nothing() -> Iterator[None]:
    """End what Ray began to start here when that is broken off: its agents outlive a raylet that was killed."""
    process = os.getpid()
    before = set(descendants(process))
    try:
        yield
    except BaseException:
        for number in (signal.SIGSTOP, signal.SIGKILL):  # what has stopped starts no more
            for child in set(descendants(process)) - before:
                with suppress(ProcessLookupError):
                    os.kill(child, number)
        raise


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keeps whoever listens for signals listening: Ray ends the process on SIGTERM, after a dump of its stack."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                if callable(handler):  # else Ray's own serves better: it ends Ray's processes
                    signal.signal(number, handler)


@contextmanager
def ray_started(resources: Resources) -> Iterator[Workers]:
    """Ray, started or joined as by :func:`start_ray`, and shut down at the end unless it ran before.

    Raises:
        UserError: see :func:`start_ray`; or not even one worker fits.
        nas.driver.processes.RayLostError: it died.
    """
    with _home():
        import ray

        ours = not ray.is_initialized()
        start_ray(resources)
        with watched(_addresses()):  # over the end too, which hangs where the head is gone
            try:
                found = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
                nodes = [Node(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in found]
                yield decide(resources, nodes)
            finally:
                if ours:
                    ray.shutdown()


def _addresses() -> list[tuple[str, int]]:
    """Return where the head and this process's raylet answer. Ray must have been started."""
    import ray

    context = ray.get_runtime_context()
    host, _, port = context.gcs_address.rpartition(":")
    raylets = [node for node in ray.nodes() if node["NodeID"] == context.get_node_id()]  # type: ignore[no-untyped-call]
    return [(host, int(port)), *((node["NodeManagerAddress"], node["NodeManagerPort"]) for node in raylets)]


@contextmanager
def _home() -> Iterator[None]:
    """Give Ray a home, which its import looks up and its start writes to.

    In a container the user often has none: ``HOME`` is unset and no entry of passwd tells it, or it is the root folder.
    """
    if home_folder() is not None:
        yield
        return
    before = os.environ.get("HOME")
    with tempfile.TemporaryDirectory(prefix="nas-home-", ignore_cleanup_errors=True) as folder:
        os.environ["HOME"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["HOME"]
            else:
                os.environ["HOME"] = before


def short_folder() -> str | None:
    """Find a folder for Ray's sockets, whose paths a system limits to 103 bytes (macOS) or 107.

    Returns:
        None: Ray's own choice is short enough.

    Raises:
        UserError: no short folder can be written to.
    """
    asked = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR", "/tmp")
    if len(os.fsencode(asked)) <= LONGEST_FOLDER:
        return None
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        if os.access(folder, os.W_OK):
            return f"{folder}/ray"
    raise UserError(
        f"TMPDIR {asked}: too long for Ray's sockets; set RAY_TMPDIR to a folder of at most {LONGEST_FOLDER} characters"
    )
