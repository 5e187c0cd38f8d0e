"""The next network to train: :class:`KnownCostSampler`, and samplers by name (:mod:`nas.driver.sampler.registry`)."""

from nas.driver.sampler.known_cost import KnownCostSampler

__all__ = ["KnownCostSampler"]
