"""A cluster is refused where strangers could join it, where bench differs, or where nodes are not alike."""

import re

import msgspec
import pytest
from nvml_asking import ask, build_library

from serving_bench.harness.errors import UserError
from serving_bench.harness.fleet import node
from serving_bench.harness.fleet.nodes import Facts, Node, fit

HERE = "1.0 (schema 7)"
DEFINE = "from msgspec.msgpack import decode; from serving_bench.harness.fleet import node"


def found(*changes: dict, device: str = "auto") -> list[str]:
    """The ids of the nodes that fit, of a cluster with a node for each change."""
    facts = {
        "bench": HERE, "architecture": "x86_64", "devices": "", "unfit": None, "asks_for_token": False,
        "open_at": [], "address": "127.0.0.1", "cpus": 4.0,
    }  # fmt: skip
    nodes = {}
    for number, change in enumerate(changes):
        each = {**facts, **change}
        made = Node(str(number), each["address"], f"boot {number}", f"host{number}", each["cpus"], 0.0)
        nodes[made] = each
    return [each.id for each in fit(nodes, device, HERE)]


def test_a_cluster_on_loopback_needs_no_token():
    assert found({}, {}) == ["0", "1"]


# Ray 2.60 listens on all addresses of a machine for each but 127.0.0.1.
@pytest.mark.parametrize("address", ["10.9.9.1", "head.cluster", "127.0.0.2", "::1"])
def test_a_cluster_beyond_loopback_needs_a_token_on_all_of_its_nodes(address):
    asks = {"address": address, "asks_for_token": True}
    assert found(asks, asks) == ["0", "1"]
    with pytest.raises(UserError, match=rf"beyond 127.0.0.1 \({address}\) and lets anyone there"):
        found(asks, {"address": address})
    with pytest.raises(UserError, match="start all its nodes with RAY_AUTH_MODE=token"):
        found({**asks, "cpus": 0.0, "asks_for_token": False}, asks)


def test_a_cluster_on_loopback_that_listens_elsewhere_too_needs_a_token():
    asks = {"open_at": ["0.0.0.0:8265"], "asks_for_token": True}
    assert found({"asks_for_token": True}, asks) == ["0", "1"]
    with pytest.raises(UserError, match=r"beyond 127.0.0.1 \(0.0.0.0:8265\) and lets anyone there"):
        found({}, {**asks, "asks_for_token": False})


def test_a_node_with_another_bench_is_refused_by_name():
    with pytest.raises(UserError, match=r"^host1 \(127.0.0.1, 1\) has bench 0.9 \(schema 6\), here is 1.0"):
        found({}, {"bench": "0.9 (schema 6)"})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architecture": "aarch64"}, "architecture x86_64 on host0 .*, aarch64 on host1"),
        ({"devices": "NVIDIA L4"}, "devices NVIDIA H100 on host0 .*, NVIDIA L4 on host1"),
    ],
)
def test_nodes_that_differ_are_refused_before_anything_is_measured(changes, said):
    with pytest.raises(UserError, match=f"nodes differ: {said}"):
        found({"devices": "NVIDIA H100"}, {"devices": "NVIDIA H100", **changes})


def test_with_auto_a_node_without_a_card_measures_nothing_where_others_have_one():
    assert found({}, {"devices": "NVIDIA H100"}, {"devices": "NVIDIA H100"}) == ["1", "2"]


def test_a_node_that_offers_no_processor_or_lacks_the_device_measures_nothing():
    unfit = "device=0: no NVIDIA driver"
    assert found({"cpus": 0.0}, {}, {"unfit": unfit}, device="0") == ["1"]
    with pytest.raises(
        UserError, match=r"host0 .*: it offers no processor .*; host1 .*: device=0: no NVIDIA"
    ):
        found({"cpus": 0.0}, {"unfit": unfit}, device="0")


def test_a_node_says_how_large_its_cards_are(tmp_path):
    said = ask(build_library(tmp_path), "decode(node.facts('0'))['devices']", define=DEFINE)
    assert re.fullmatch(r".+ with \d+ bytes", said)


def test_a_node_says_of_itself_what_is_asked_of_it():
    facts = said_by("cpu")
    assert (facts["bench"], facts["unfit"], facts["devices"]) == (node.own_version(), None, "")
    assert said_by("17")["unfit"]


def said_by(device: str) -> Facts:
    return msgspec.msgpack.decode(node.facts(device), type=Facts)
