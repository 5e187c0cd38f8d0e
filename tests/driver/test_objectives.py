import pytest

from nas.driver.objectives import losses, parse_limit, parse_objectives
from nas.errors import UserError


def test_objectives_keep_their_order():
    names = [objective.name for objective in parse_objectives("accuracy, latency,size")]
    assert names == ["accuracy", "latency", "size"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy,speed", "unknown objective 'speed'"),
        ("size,latency", "need accuracy"),
        ("accuracy,balanced_accuracy", "need one of accuracy and balanced_accuracy"),
        ("accuracy,size,size", "given twice"),
        ("accuracy,size,latency,macs,params", "at most 4"),
        ("", "unknown objective ''"),
    ],
)
def test_wrong_objectives(text, message):
    with pytest.raises(UserError, match=message):
        parse_objectives(text)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("size<=4MB", "size", 4e6),
        ("size <= 512 KiB", "size", 512 * 1024),
        ("latency<=5ms", "latency", 5),
        ("latency<2s", "latency", 2000),
        ("macs<=90M", "macs", 90e6),
        ("params<=1e6", "params", 1e6),
    ],
)
def test_limits(text, name, value):
    limit = parse_limit(text)
    assert (limit.objective.name, limit.value) == (name, value)
    assert parse_limit(str(limit)) == parse_limit(limit.text) == limit


def test_a_limit_below_a_megabyte_is_told_in_kilobytes():
    limits = [parse_limit(text) for text in ("memory<=64kB", "size<=2MB", "latency<=0.5ms")]
    assert [limit.text for limit in limits] == ["memory<=64kB", "size<=2MB", "latency<=0.5ms"]
    assert str(limits[0]) == "memory<=0.064MB"  # its name in the studies of older runs
    assert (limits[0].show({"memory": 11_520}), limits[1].show({"size": 2.5e6})) == ("11.52 kB", "2.5 MB")


def test_excess_is_positive_where_a_limit_is_broken():
    limit = parse_limit("size<=4MB")
    assert limit.excess({"size": 5e6}) == pytest.approx(0.25)
    assert limit.excess({"size": 4e6}) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size=4MB", "write it as"),
        ("accuracy<=90%", "cannot be limited"),
        ("balanced_accuracy<=90%", "cannot be limited"),
        ("size<=4ms", "unknown unit 'ms'; allowed: B, kB, MB, KiB, MiB"),
        ("size<=-4MB", "must be a positive number"),
        ("size<=1e999", "must be a positive number"),
        ("size<=MB", "write it as"),
        ("size<=1e-MB", "must be a positive number"),
    ],
)
def test_wrong_limits(text, message):
    with pytest.raises(UserError, match=message):
        parse_limit(text)


def test_losses_turn_accuracy_round():
    assert losses(parse_objectives("accuracy,size"), [0.9, 1e6]) == [-0.9, 1e6]
