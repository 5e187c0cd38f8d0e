"""One trial as Ray Tune runs it: a worker process that trains one network after another."""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from ray import tune

from nas.architecture.document import Architecture
from nas.errors import UserError
from nas.export.shipping import ship
from nas.files import write_atomic
from nas.targets import target as target_named
from nas.training.checkpoint import Checkpoint
from nas.training.cpu import ClaimedCores, available_cores, claim_cores, set_threads
from nas.training.data import Dataset
from nas.training.evaluate import pack_hits
from nas.training.evaluator import TrainingEvaluator
from nas.training.failures import OutOfTimeError
from nas.training.loop import Epoch
from nas.training.pace import rehearse
from nas.training.parents import load_parent
from nas.training.per_class import judge, with_pictures
from nas.training.recipe import Recipe


class NetworkTrainable(tune.Trainable):
    """Trains the network of its configuration, an epoch per step, and reports ``epoch`` (a mapping), ``failure`` or
    ``late`` (the step at which its time was over); or lets one that is trained judge the test images, and reports
    ``test`` (accuracies and hits) and ``judgement``; or takes a few steps, and reports ``pace`` (seconds of each, and
    of validating).

    On an int8 target the last epoch has the int8 network's accuracies too, and the test images are judged by it.

    The process is reused from trial to trial (``reuse_actors=True``): imports, data and the device's context are paid
    once. A network that cannot be trained is a result like any other, since an exception costs the process: Tune ends
    it and starts another. That is right for an error after which the device is of no more use.

    Configuration: ``number``, ``document``, ``seed``, ``split`` (seed, or None: as the data set is), ``checkpoint``
    (path or None), ``tested``, ``rehearsed``, ``epochs`` (None: those of the recipe), ``seconds`` (None: no limit).
    """

    def setup(  # type: ignore[override]  # tune.with_parameters adds what follows the configuration
        self,
        config: dict[str, Any],
        dataset: Dataset,
        recipe: dict[str, Any],
        device: str,
        gpu_share: float,
        threads: int,
        epoch_timeout: float | None,
        target: str,
        init: str | None,
    ) -> None:
        set_threads(threads)
        if device == "cuda" and gpu_share < 1:
            # A share of the card is a share of its memory: else a large network would end its neighbours' trainings.
            torch.cuda.set_per_process_memory_fraction(gpu_share)
        self._threads = threads
        self._on_cpu = device == "cpu"
        self._cores: ClaimedCores | None = None
        self._epochs: Iterator[Epoch] = iter(())
        self._tested: Path | None = None
        self._rehearsed: Architecture | None = None
        self._target = target_named(target)
        self._int8: dict[str, float] = {}
        self._int8_seconds = 0.0
        self._recipe = Recipe.from_dict(recipe)
        self._evaluator = TrainingEvaluator(
            dataset,
            self._recipe,
            device=device,
            epoch_timeout=epoch_timeout,
            parent=None if init is None else load_parent(init),
        )
        self._start(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._start(new_config)
        return True

    def step(self) -> dict[str, Any]:
        started = time.perf_counter()
        try:
            if self._tested is not None:
                return {**self._test(self._tested), "done": True}
            if self._rehearsed is not None:
                return {"pace": self._rehearse(self._rehearsed), "done": True}
            epoch = next(self._epochs, None)
        except torch.AcceleratorError:  # such as an illegal access: CUDA answers nothing else in this process any more
            raise
        except OutOfTimeError as error:
            self._epochs = iter(())
            return {"late": str(error), "done": True}
        except Exception as error:  # whatever else a network breaks is this trial's failure, never the worker's
            self._epochs = iter(())
            return {"failure": explain(error), "done": True}
        if epoch is None:
            return {"failure": "trained to the end already", "done": True}
        done = epoch.epoch >= self._evaluator.recipe.epochs
        figures = asdict(epoch)
        if done and self._target.int8:
            figures |= self._int8 | {"seconds_eval": epoch.seconds_eval + self._int8_seconds}
        return {"epoch": {**figures, "seconds": time.perf_counter() - started}, "done": done}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the study and the run's own checkpoints are the record."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing; see :meth:`save_checkpoint`."""

    def _start(self, config: dict[str, Any]) -> None:
        self._pin()
        checkpoint, epochs, seconds = config["checkpoint"], config["epochs"], config["seconds"]
        deadline = math.inf if seconds is None else time.monotonic() + seconds
        self._evaluator.recipe = self._recipe if epochs is None else self._recipe.with_epochs(epochs)
        self._evaluator.split = config["split"]
        self._tested = Path(checkpoint) if config["tested"] else None
        self._rehearsed = Architecture.from_dict(config["document"]) if config["rehearsed"] else None
        file = Path(checkpoint) if checkpoint else None
        self._epochs = self._train(config["document"], config["seed"], file, deadline)

    def _pin(self) -> None:
        """Stay on cores of one's own. A worker before this one may not quite have ended: so every trial asks again."""
        if self._on_cpu and self._cores is None:
            self._cores = claim_cores(self._threads, available_cores())
            if self._cores is not None:
                set_threads(self._threads, self._cores.numbers)

    def _rehearse(self, architecture: Architecture) -> tuple[float, float]:
        trainer = self._evaluator.trainer(architecture, seed=0)
        trainer.time_step()  # the first one takes longer
        return rehearse(trainer)

    def _train(self, document: dict[str, Any], seed: int, checkpoint: Path | None, deadline: float) -> Iterator[Epoch]:
        # A generator, so that an error in building the network too is raised in step() and not in Ray's set-up.
        architecture = Architecture.from_dict(document)
        on_end = self._judge_int8 if self._target.int8 else None
        yield from self._evaluator.run(architecture, seed=seed, checkpoint=checkpoint, on_end=on_end, deadline=deadline)

    def _judge_int8(self, trained: Checkpoint, dataset: Dataset) -> None:
        started = time.perf_counter()
        scores = ship(self._target, trained, dataset).judge(dataset, "validation")
        self._int8_seconds = time.perf_counter() - started
        self._int8 = {"int8_accuracy": scores.accuracy, "int8_balanced_accuracy": scores.balanced_accuracy}

    def _test(self, checkpoint: Path) -> dict[str, Any]:
        """Judge the test images as what ships; measure that, and leave it beside the checkpoint."""
        scores, trained, images = self._evaluator.test(checkpoint)
        figures: dict[str, Any] = {}
        if self._target.form is not None:
            shipment = ship(self._target, trained, images, str(checkpoint))
            write_atomic(checkpoint.with_name(f"{checkpoint.stem}{shipment.ending}"), shipment.content)
            figures |= {"file_bytes": shipment.file_bytes, "memory_bytes": shipment.memory_bytes()}
            if self._target.int8:
                figures |= {"fp32_test_accuracy": scores.accuracy}
                scores = shipment.judge(images, "test")
        judgement = with_pictures(judge(images.test, scores, images.classes), images.test)
        figures |= {"test_accuracy": scores.accuracy, "test_balanced_accuracy": scores.balanced_accuracy}
        return {"test": {**figures, "test_hits": pack_hits(scores.hits)}, "judgement": judgement}


def explain(error: BaseException) -> str:
    """An exception as one line."""
    text = (str(error).splitlines() or [""])[0][:200]
    if isinstance(error, UserError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
