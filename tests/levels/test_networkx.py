"""The level graph as a networkx graph."""

import networkx as nx

import nldsl


def test_components_and_edges_are_kept() -> None:
    graph = nldsl.load("specs/hope.nl", variant="Tiny").levels()
    made = graph.as_networkx()
    assert set(made.nodes) == {c.path for c in graph.components}
    assert sorted(made.edges(data="kind")) == sorted((e.source, e.target, e.kind) for e in graph.edges)
    slow = made.nodes["HopeBlock.store.Continuum.slow"]
    assert (slow["rule"], slow["tokens_per_update"]) == ("m3", 16 * 128)


def test_the_clocks_order_the_components() -> None:
    made = nldsl.load("specs/titans.nl", variant="Tiny").levels().as_networkx()
    ranks = nx.get_node_attributes(made, "rank")
    momentum = next(path for path in made if path.endswith(".momentum"))
    assert ranks[momentum] < ranks[momentum.removesuffix(".momentum")] < ranks["TitansModel.embed"]
