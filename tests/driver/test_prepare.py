import time
from dataclasses import replace

import pytest

import nas
from nas.architecture.space import Space
from nas.driver.asked import fit_space
from nas.driver.prepare import prepare, queued
from nas.driver.settings import Settings
from nas.errors import UserError
from nas.training.data import load_dataset
from nas.training.recipe import RECIPES


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


def test_a_space_is_fitted_to_the_images(digits):
    fitted = fit_space(nas.load_space("inverted_residual"), digits)
    architecture = fitted.sample(0)
    assert (architecture.input.channels, architecture.input.resolution) == (1, 8)
    assert fit_space(nas.load_space("inverted_residual"), digits, 16).resolutions == (16,)


def test_a_choice_of_resolutions_stays(digits, small_space):
    document = {**small_space.document, "input": {"channels": 3, "resolution": {"choice": [4, 8]}}}
    assert fit_space(Space(document), digits).resolutions == (4, 8)


def test_a_run_of_a_version_without_steps_is_the_same_search(small_space):
    """Its recipe lacks the field, and means what it meant."""
    settings = Settings(space=dict(small_space.document), recipe=RECIPES["search"].for_images(50_000).to_dict())
    document = settings.to_dict()
    del document["recipe"]["steps"]
    assert settings.is_same_search(Settings.from_dict(document))
    document["recipe"]["epochs"] = 8
    assert not settings.is_same_search(Settings.from_dict(document))


def test_a_run_of_a_version_that_took_a_fit_of_any_images_still_opens_its_own(small_space):
    settings = Settings(space=dict(small_space.document), dataset="digits", fit="pad")
    assert load_dataset(settings.dataset, **settings.reading).fit == "crop"
    assert replace(settings, dataset="imagefolder:/photos").reading["fit"] == "pad"


def test_published_networks_that_the_space_contains_are_queued(digits):
    space = fit_space(nas.load_space("inverted_residual"), digits)
    settings = Settings(space=dict(space.document), published="contained")
    names = [a.name for a, _ in queued(settings, space, digits)]
    assert {"mobilenetv2-cifar", "han-a", "han-e", "han-g"} <= set(names)
    assert all(space.contains(a) for a, _ in queued(settings, space, digits))
    assert not queued(Settings(space=dict(space.document), published="none"), space, digits)


def test_own_networks_are_queued_first(digits):
    space = fit_space(nas.load_space("inverted_residual"), digits)
    own = {**nas.load("han-e").to_dict(), "name": "mine", "stem": {"channels": 24}}
    settings = Settings(space=dict(space.document), enqueue=(own,))
    first, origin = queued(settings, space, digits)[0]
    assert (first.name, first.input.resolution, origin) == ("mine", 8, "own")


def test_a_queued_network_is_published_by_what_it_is_and_not_by_its_name(digits):
    space = fit_space(nas.load_space("inverted_residual"), digits)
    renamed = {**nas.load("han-e").to_dict(), "name": "mine"}
    changed = {**nas.load("han-e").to_dict(), "stem": {"channels": 24}}
    settings = Settings(space=dict(space.document), enqueue=(renamed, changed), published="none")
    assert [(a.name, origin) for a, origin in queued(settings, space, digits)] == [
        ("mine", "published"),
        ("han-e", "own"),
    ]


def test_latency_that_is_not_calibrated_in_its_share_of_the_time(digits, small_space, tmp_path, monkeypatch):
    """MACs stand in for it where it is an objective by default; who asked for it is told so."""
    monkeypatch.setenv("NAS_CACHE_DIR", str(tmp_path))
    settings = Settings(space=dict(small_space.document), published="none")
    prepared = prepare(settings, run=tmp_path / "run", dataset=digits, deadline=time.monotonic() + 1)
    assert prepared.table is None and prepared.settings.objectives == ("accuracy", "size", "macs")
    assert replace(prepared.settings, objectives=settings.objectives) == settings
    for asked in ({"objectives": ("accuracy", "latency")}, {"limits": ("latency<=5ms",)}):
        with pytest.raises(UserError, match=r"latency is asked for, and was not calibrated in 0 s, 33% of the time"):
            prepare(replace(settings, **asked), run=tmp_path / "run", dataset=digits, deadline=time.monotonic() + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": "magic"}, "sampler 'magic': should be 'known-cost', 'tpe'"),
        ({"published": "some"}, "unknown published"),
        ({"trials": 0}, "trials 0"),
        ({"trials": True}, "trials True"),
        ({"seed": -1}, "seed -1"),
        ({"objectives": ["size"]}, "need accuracy"),
        ({"limits": ["size<4 bananas"]}, "unknown unit"),
        ({"colour": "red"}, "unknown setting 'colour'"),
    ],
)
def test_wrong_settings(small_space, change, message):
    document = {**Settings(space=dict(small_space.document)).to_dict(), **change}
    with pytest.raises(UserError, match=message):
        Settings.from_dict(document)


def test_settings_survive_yaml(small_space):
    import yaml

    settings = Settings(space=dict(small_space.document), limits=("size<=4MB",), enqueue=(nas.load("han-e").to_dict(),))
    assert Settings.from_dict(yaml.safe_load(yaml.safe_dump(settings.to_dict()))) == settings
