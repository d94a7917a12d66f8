"""docs/fleet/kuberay.yaml against the fields that KubeRay takes (tests/data/kuberay), without a cluster."""

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from places import ROOT, TESTS

MANIFEST = yaml.safe_load((ROOT / "docs" / "fleet" / "kuberay.yaml").read_text())
FIELDS = yaml.safe_load((TESTS / "data" / "kuberay" / "fields.yaml").read_text())
PLAIN = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
# As Kubernetes writes one: apimachinery/pkg/api/resource, quantity.go.
QUANTITY = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?")


def mistakes(value: Any, kind: str, at: str) -> Iterator[str]:
    """What of a value is not of a kind that fields.yaml names, each with its place."""
    if kind in FIELDS:
        yield from _of_shape(value, FIELDS[kind], at)
    elif kind.startswith("["):
        if not isinstance(value, list):
            yield f"{at}: {value!r} is no list"
            return
        for number, each in enumerate(value):
            yield from mistakes(each, kind[1:-1], f"{at}[{number}]")
    elif kind.startswith("map of "):
        if not isinstance(value, dict):
            yield f"{at}: {value!r} is no map"
            return
        for key, each in value.items():
            yield from mistakes(each, kind.removeprefix("map of "), f"{at}.{key}")
    elif kind == "quantity":
        if isinstance(value, bool) or not QUANTITY.fullmatch(str(value)):
            yield f"{at}: {value!r} is no quantity"
    elif " | " in kind:
        if value not in kind.split(" | "):
            yield f"{at}: {value!r} is none of {kind}"
    elif kind not in PLAIN:
        yield f"{at}: what is in it is not listed in fields.yaml"
    elif not isinstance(value, PLAIN[kind]) or (isinstance(value, bool) and kind != "boolean"):
        yield f"{at}: {value!r} is no {kind}"


def _of_shape(value: Any, shape: dict[str, str], at: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{at}: {value!r} has no fields"
        return
    kinds = {name.rstrip("!"): kind for name, kind in shape.items()}
    yield from (f"{at}.{name}: not given" for name in kinds if f"{name}!" in shape and name not in value)
    for name, each in value.items():
        if name in kinds:
            yield from mistakes(each, kinds[name], f"{at}.{name}")
        else:
            yield f"{at}.{name}: no such field"


def test_kuberay_takes_each_field_of_the_manifest() -> None:
    assert (MANIFEST["apiVersion"], MANIFEST["kind"]) == ("ray.io/v1", "RayJob")
    assert MANIFEST.keys() == {"apiVersion", "kind", "metadata", "spec"}
    # A pod's name begins with it.
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", MANIFEST["metadata"]["name"])
    assert list(mistakes(MANIFEST["spec"], "RayJob", "spec")) == []


CLUSTER = ("rayClusterSpec",)
WORKERS = (*CLUSTER, "workerGroupSpecs", 0)
CONTAINER = (*WORKERS, "template", "spec", "containers", 0)


@pytest.mark.parametrize(
    ("place", "key", "value", "said"),
    [
        (CLUSTER, "rayversion", "2.60.0", "spec.rayClusterSpec.rayversion: no such field"),
        (CLUSTER, "rayVersion", 2.6, "spec.rayClusterSpec.rayVersion: 2.6 is no string"),
        (CLUSTER, "headGroupSpec", None, "spec.rayClusterSpec.headGroupSpec: None has no fields"),
        (CLUSTER, "workerGroupSpecs", {}, "spec.rayClusterSpec.workerGroupSpecs: {} is no list"),
        (
            (*CLUSTER, "headGroupSpec"), "rayStartParams", ["num-cpus"],
            "spec.rayClusterSpec.headGroupSpec.rayStartParams: ['num-cpus'] is no map",
        ),
        (
            (*CLUSTER, "authOptions"), "mode", "on",
            "spec.rayClusterSpec.authOptions.mode: 'on' is none of disabled | token",
        ),
        (
            (*CLUSTER, "headGroupSpec", "rayStartParams"), "num-cpus", 0,
            "spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus: 0 is no string",
        ),
        (WORKERS, "replicas", "3", "spec.rayClusterSpec.workerGroupSpecs[0].replicas: '3' is no integer"),
        (
            (*CONTAINER, "resources", "limits"), "memory", "64 GB",
            "spec.rayClusterSpec.workerGroupSpecs[0].template.spec.containers[0].resources.limits.memory: "
            "'64 GB' is no quantity",
        ),
        (
            CONTAINER, "env", [],
            "spec.rayClusterSpec.workerGroupSpecs[0].template.spec.containers[0].env: what is in it is not "
            "listed in fields.yaml",
        ),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong_is_found_where_it_is(
    place: tuple[str | int, ...], key: str, value: Any, said: str
) -> None:
    spec = copy.deepcopy(MANIFEST["spec"])
    inside = spec
    for each in place:
        inside = inside[each]
    inside[key] = value
    assert list(mistakes(spec, "RayJob", "spec")) == [said]


def test_a_field_that_is_missing_is_found() -> None:
    spec = copy.deepcopy(MANIFEST["spec"])
    del spec["rayClusterSpec"]["workerGroupSpecs"][0]["groupName"]
    said = "spec.rayClusterSpec.workerGroupSpecs[0].groupName: not given"
    assert list(mistakes(spec, "RayJob", "spec")) == [said]
