"""What is trained next: :class:`KnownCostSampler`, and samplers by name (:mod:`nas.search.sampler.by_name`)."""

from nas.search.sampler.known_cost import KnownCostSampler

__all__ = ["KnownCostSampler"]
