"""What is trained next: :class:`KnownCostSampler`, and samplers by name (:mod:`nas.driver.sampler.by_name`)."""

from nas.driver.sampler.known_cost import KnownCostSampler

__all__ = ["KnownCostSampler"]
