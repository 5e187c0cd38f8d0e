"""Documents from their schema: round trips, and any change of them loads or is refused."""

import copy
from typing import Any

from documents import architectures
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nas
from nas.costs.analytic import cost
from nas.files import parse_yaml

CASES = settings(max_examples=750, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@CASES
@given(architectures())
def test_a_valid_document_survives_the_round_trip(document: dict[str, Any]) -> None:
    architecture = nas.Architecture.from_dict(document)
    text = architecture.to_yaml()
    again = nas.Architecture.from_dict(parse_yaml(text, "round trip"))
    assert again == architecture
    assert again.to_yaml() == text
    assert again.id == architecture.id
    # The canonical form is a document too: of the same network, at the same cost, and its own canonical form.
    canonical = nas.Architecture.from_dict({"name": "canonical", **architecture.canonical()})
    assert canonical.canonical() == architecture.canonical()
    assert canonical.id == architecture.id
    assert cost(canonical) == cost(architecture)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 40),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=3),
    st.dates(),
    st.lists(st.one_of(st.integers(-3, 9), st.text(max_size=3), st.none()), max_size=3),
    st.dictionaries(st.one_of(st.text(max_size=8), st.integers()), st.integers(), max_size=2),
    st.sampled_from(["none", "conv", "valid", "max", [3, 5], [[3]], {"choice": [1, 2]}]),
)
FIELD = st.one_of(
    st.text(max_size=8), st.sampled_from(["channels", "kernel", "expansion", "block", "groups", "padding"])
)


@CASES
@given(architectures(), st.data())
def test_a_mutated_document_loads_or_is_refused_in_one_line(document: dict[str, Any], data: st.DataObject) -> None:
    document = copy.deepcopy(document)
    nodes: list[Any] = [document]
    for node in nodes:  # grows while it is walked
        nodes.extend(n for n in (node.values() if isinstance(node, dict) else node) if isinstance(n, dict | list))
    node = data.draw(st.sampled_from(nodes))
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    change = data.draw(st.sampled_from(["set", "delete", "add"]))
    if change == "add" or not keys:
        junk = data.draw(JUNK)
        if isinstance(node, dict):
            node[data.draw(FIELD)] = junk
        else:
            node.append(junk)
    elif change == "delete":
        del node[data.draw(st.sampled_from(keys))]
    else:
        node[data.draw(st.sampled_from(keys))] = data.draw(JUNK)
    check_loads_or_refuses(document)


@CASES
@given(architectures(max_stages=2), st.data())
def test_mutated_text_loads_or_is_refused_in_one_line(document: dict[str, Any], data: st.DataObject) -> None:
    text = nas.Architecture.from_dict(document).to_yaml()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 6)))
    insert = data.draw(
        st.one_of(
            st.text(max_size=4), st.sampled_from(["&a ", "*a", "!!python/tuple ", "- ", "{", "]", ": ", "\t", "1e9"])
        )
    )
    try:
        mutated = parse_yaml(text[:start] + insert + text[end:], "mutated")
    except nas.UserError as error:
        assert "\n" not in str(error)
        return
    check_loads_or_refuses(mutated)


def check_loads_or_refuses(document: Any) -> None:
    try:
        architecture = nas.Architecture.from_dict(document, "mutated")
    except nas.UserError as error:
        assert str(error).startswith("mutated: ")
        assert "\n" not in str(error)
    else:
        assert nas.Architecture.from_dict(architecture.to_dict()) == architecture
        cost(architecture)
