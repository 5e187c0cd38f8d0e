"""How many workers fit into a machine or a cluster."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nas.driver.cluster import Node, Workers, card_of, decide
from nas.driver.options import Resources
from nas.errors import UserError


def packed(nodes, cpus, share):
    """Bundles that Ray can place at once: each on one node, and its share of a GPU on one GPU of that node."""
    count = 0
    for node in nodes:
        free_cpus, free = node.cpus, [10_000] * node.gpus  # Ray's unit is 1/10,000
        while free_cpus >= cpus and (not share or any(left >= round(share * 10_000) for left in free)):
            free_cpus -= cpus
            count += 1
            if share:
                free[next(i for i, left in enumerate(free) if left >= round(share * 10_000))] -= round(share * 10_000)
    return count


def test_two_cards_hold_two_workers_each_of_four_tenths():
    assert decide(Resources(gpus_per_trial=0.4), [Node(16, 2)]).count == 4


@settings(max_examples=200, deadline=None)
@example(nodes=[Node(1, 1), Node(2, 0)], share=None, cpus=2)
@given(
    nodes=st.lists(st.builds(Node, st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=4),
    share=st.sampled_from([None, 0.0, 0.2, 0.25, 0.3333, 0.4, 0.5, 0.7, 1.0]),
    cpus=st.sampled_from([None, 1, 2, 5]),
)
def test_workers_are_as_many_as_ray_can_place(nodes, share, cpus):
    wanted = share if share is not None else float(any(node.gpus for node in nodes))
    try:
        workers = decide(Resources(gpus_per_trial=share, cpus_per_trial=cpus), nodes)
    except UserError as error:
        assert packed(nodes, cpus or 1, wanted) == 0
        assert "there are" in str(error)
        return
    assert workers.count == packed(nodes, workers.cpus, workers.gpus) > 0
    assert workers.gpus == wanted
    assert workers.device == ("cuda" if workers.gpus else "cpu")
    if cpus is None and not workers.gpus:
        assert workers.cpus == 1


def test_cores_beside_a_gpu_are_shared_out():
    assert decide(Resources(), [Node(16, 2)]) == Workers(count=2, cpus=8, gpus=1.0)
    assert decide(Resources(gpus_per_trial=0.25), [Node(4, 0), Node(16, 1)]) == Workers(count=4, cpus=4, gpus=0.25)
    assert decide(Resources(max_concurrent=3), [Node(16, 0)]).count == 3


@pytest.mark.parametrize("share", [1.5, 2.0, 0.001, -1.0, float("nan")])
def test_shares_that_no_card_can_give_are_refused(share):
    with pytest.raises(UserError, match="gpus-per-trial"):
        Resources(gpus_per_trial=share)


def test_workers_on_cpus_have_no_card():
    assert card_of(Workers(count=1, cpus=1, gpus=0.0), look=pytest.fail) is None
