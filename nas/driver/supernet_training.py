"""Training of a search's supernet: here on a CPU, on Ray's workers on GPUs, each with its share of every batch."""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nas.architecture.document import Architecture
from nas.architecture.space import Space
from nas.driver.cluster import Workers
from nas.driver.region import Region
from nas.training.checkpoint import checkpoint_bytes
from nas.training.cpu import set_threads
from nas.training.data import Dataset
from nas.training.distributed import ALONE, Ranks, connected, meeting_point
from nas.training.evaluator import TrainingEvaluator
from nas.training.loop import Epoch
from nas.training.pace import epochs_within
from nas.training.recipe import Recipe
from nas.training.supernet import SupernetTrainer, supernet_extra

LEAST_SHARE = 32
"""Images of a batch that a process normalises by themselves; see :class:`nas.training.distributed.Ranks`."""

Step = tuple[Epoch, int, bytes]
"""An epoch, how many there will be, and the content of the supernet's file after it."""


@dataclass(frozen=True)
class Task:
    """All that a process needs to train a supernet, or to go on.

    Attributes:
        space: whose supernet.
        dataset: in the search's own format.
        recipe: the whole one.
        seed: of the training.
        among: networks to draw random members from; none: all of the space.
        region: that these are drawn in.
        state: of the trainer, where the training was interrupted; its recipe may have been cut to its time.
        seconds: in which it ends; None: the recipe's epochs.
    """

    space: Space
    dataset: Dataset
    recipe: Recipe
    seed: int
    among: tuple[Architecture, ...] = ()
    region: Region = field(default_factory=Region)
    state: Mapping[str, Any] | None = None
    seconds: float | None = None


def train_supernet(task: Task, workers: Workers) -> Iterator[Step]:
    """Train on as many GPUs as the workers have, as far as batches can be shared; without any, in this process."""
    if workers.device == "cpu":
        return train(task)
    gpus = math.ceil(workers.count * workers.gpus - 1e-9)
    count = max(1, min(gpus, task.recipe.batch_size // LEAST_SHARE))
    return train_on_workers(task, count, device="cuda", cpus=workers.cpus)


def train(task: Task, ranks: Ranks = ALONE, device: str = "cpu") -> Iterator[Step]:
    """Train in this process, together with others where there are such."""
    deadline = None if task.seconds is None else time.monotonic() + task.seconds
    recipe = task.recipe if task.state is None else Recipe.from_dict(task.state["recipe"])
    data = task.dataset.for_network(task.dataset.channels, max(task.space.resolutions), device)
    trainer = SupernetTrainer(task.space, data, recipe, seed=task.seed, among=task.among, ranks=ranks)
    if task.state is not None:
        trainer.load_state_dict(task.state)
    describe = TrainingEvaluator(task.dataset, recipe)
    for epoch in epochs_within(deadline, trainer, describe, task.recipe, ranks):
        if ranks.leads:
            supernet = {**supernet_extra(trainer.supernet, task.space), "region": task.region.model_dump()}
            extra = {"supernet": supernet, "seed": task.seed, "epochs": [asdict(epoch)]}
            content = checkpoint_bytes(describe.checkpoint(trainer.supernet.architecture, trainer, **extra))
            yield epoch, trainer.recipe.epochs, content


def train_on_workers(task: Task, count: int, *, device: str, cpus: int) -> Iterator[Step]:
    """Train in so many processes of Ray's, which must run; what breaks one of them ends all."""
    import ray
    from ray.exceptions import RayTaskError

    host = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    store = meeting_point(host)
    run: Any = ray.remote(num_cpus=cpus, num_gpus=int(device == "cuda"), max_retries=0)(_train_on_worker)
    shared = ray.put(task)
    ranks = [run.remote(shared, Ranks(index, count), device, cpus, host, store.port) for index in range(count)]
    running = list(ranks)
    try:
        while running:
            ready: Any = ray.wait(running, num_returns=1)[0][0]
            try:
                step: Step = ray.get(next(ready))
            except StopIteration:
                running.remove(ready)
            else:
                yield step
    except RayTaskError as error:
        raise error.cause from None
    finally:
        for rank in running:
            ray.cancel(rank, force=True)


def _train_on_worker(task: Task, ranks: Ranks, device: str, cpus: int, host: str, port: int) -> Iterator[Step]:
    set_threads(cpus)
    if ranks.count == 1:
        yield from train(task, device=device)
        return
    with connected(ranks, device, host, port):
        yield from train(task, ranks, device)
