"""The next network to train: samplers by name (:mod:`nas.driver.sampler.registry`)."""
