"""A search from start to end: settings, the study, the sampler, early stopping, trials on Ray Tune, runs on disk."""
