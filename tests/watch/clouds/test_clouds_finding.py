"""Which cloud a machine may be in, from the files that its kernel shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.watch.clouds.asking import Place
from supervisor.watch.clouds.finding import AZURE_TAG, suspected


def machine(root: Path, **told: str) -> Path:
    for name, text in told.items():
        path = root / ("hypervisor/uuid" if name == "hypervisor" else f"class/dmi/id/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ({"sys_vendor": "Amazon EC2", "product_name": "p4d.24xlarge", "bios_vendor": "Amazon EC2"}, "aws"),
        (
            {"sys_vendor": "Xen", "product_name": "HVM domU", "hypervisor": "ec2e1916-9099-7caf-fd21-012345abcdef"},
            "aws",
        ),
        ({"sys_vendor": "Google", "product_name": "Google Compute Engine", "bios_vendor": "Google"}, "gcp"),
        ({"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": AZURE_TAG}, "azure"),
        ({"sys_vendor": "Alibaba Cloud", "product_name": "Alibaba Cloud ECS"}, "alibaba"),
    ],
)
def test_a_machine_of_a_cloud_is_known_by_its_firmware(tmp_path: Path, told: dict[str, str], name: str) -> None:
    assert [cloud.name for cloud in suspected({}, machine(tmp_path, **told)).clouds] == [name]


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"sys_vendor": "Dell Inc.", "product_name": "PowerEdge R750", "chassis_asset_tag": "Not Specified"},
        {"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine", "chassis_asset_tag": "1234"},
        {"sys_vendor": "Google", "product_name": "Banon"},  # a Chromebook
        {"sys_vendor": "QEMU", "hypervisor": "00000000-0000-0000-0000-000000000000"},
    ],
)
def test_any_other_machine_is_in_none_and_nobody_is_asked(tmp_path: Path, told: dict[str, str]) -> None:
    found = suspected({}, machine(tmp_path, **told))
    assert (found.clouds, found.problems) == ((), ())


def test_an_address_in_the_environment_is_asked_whatever_the_firmware_says(tmp_path: Path) -> None:
    environment = {
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1338/",
        "GCE_METADATA_HOST": "127.0.0.1:1339",
        "SUPERVISOR_AZURE_METADATA": "http://127.0.0.1:1340",
        "SUPERVISOR_ALIBABA_METADATA": "127.0.0.1",
    }
    found = suspected(environment, machine(tmp_path, sys_vendor="Amazon EC2"))
    assert {cloud.name: getattr(cloud, "place", None) for cloud in found.clouds} == {
        "aws": Place("127.0.0.1", 1338),
        "gcp": Place("127.0.0.1", 1339),
        "azure": Place("127.0.0.1", 1340),
        "alibaba": Place("127.0.0.1", 80),
    }


def test_the_metadata_service_of_aws_can_be_switched_off(tmp_path: Path) -> None:
    environment = {"AWS_EC2_METADATA_DISABLED": "True", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:1338"}
    assert suspected(environment, machine(tmp_path, sys_vendor="Amazon EC2")).clouds == ()


def test_an_address_that_is_none_is_told_and_not_asked(tmp_path: Path) -> None:
    found = suspected({"GCE_METADATA_HOST": "https://somewhere:x"}, machine(tmp_path))
    assert found.clouds == ()
    assert [problem.detail for problem in found.problems] == [
        "GCE_METADATA_HOST=https://somewhere:x is no address of the form http://HOST:PORT"
    ]
