"""Which cloud this machine may be in, from what its firmware says; no question is asked for it.

What this does not protect against: a container that hides `/sys`. There the conventional variables name the address.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from supervisor.policy.notices import Unread
from supervisor.watch.clouds.asking import Place
from supervisor.watch.clouds.watch import Cloud

#: Where each cloud's tools look for an address that is not the usual one; the last two are our own.
OVERRIDES = {
    "aws": "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "gcp": "GCE_METADATA_HOST",
    "azure": "SUPERVISOR_AZURE_METADATA",
    "alibaba": "SUPERVISOR_ALIBABA_METADATA",
}
AWS_OFF = "AWS_EC2_METADATA_DISABLED"
#: An asset tag that all of Azure's machines have, and no other Hyper-V.
AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"


@dataclass(frozen=True, slots=True)
class Found:
    """What may be asked.

    Attributes:
        clouds: each in its usual place, or where the environment says.
        problems: addresses in the environment that are none.
    """

    clouds: tuple[Cloud, ...] = ()
    problems: tuple[Unread, ...] = ()


def suspected(environment: Mapping[str, str], sys: Path = Path("/sys")) -> Found:
    """The clouds that this machine may be in: none on a machine of one's own.

    Args:
        environment: of the supervisor.
        sys: where the kernel shows what the firmware says.
    """
    names = [cloud_of(firmware(sys))]
    clouds: list[Cloud] = []
    problems: list[Unread] = []
    for name, variable in OVERRIDES.items():
        told = environment.get(variable)
        if not told and name not in names:
            continue
        if name == "aws" and environment.get(AWS_OFF, "").lower() == "true":
            continue
        place = place_of(told) if told else None
        if told and place is None:
            problems.append(Unread(name, f"{variable}={told} is no address of the form http://HOST:PORT"))
        else:
            clouds.append(_asking(name, place))
    return Found(tuple(clouds), tuple(problems))


def _asking(name: str, place: Place | None) -> Cloud:
    """Most machines are in no cloud and none is in four, so each is imported when it is needed."""
    told = () if place is None else (place,)
    match name:
        case "aws":
            from supervisor.watch.clouds.aws import Aws

            return Aws(*told)
        case "gcp":
            from supervisor.watch.clouds.gcp import Gcp

            return Gcp(*told)
        case "azure":
            from supervisor.watch.clouds.azure import Azure

            return Azure(*told)
    from supervisor.watch.clouds.alibaba import Alibaba

    return Alibaba(*told)


def firmware(sys: Path) -> dict[str, str]:
    """What the firmware says of the machine; empty where the kernel shows nothing."""
    names = ("sys_vendor", "product_name", "chassis_asset_tag", "board_asset_tag", "bios_vendor")
    places = {name: sys / "class" / "dmi" / "id" / name for name in names}
    places["hypervisor"] = sys / "hypervisor" / "uuid"
    found = {}
    for name, path in places.items():
        try:
            found[name] = path.read_text(errors="replace").strip()
        except OSError:
            continue
    return found


def cloud_of(told: Mapping[str, str]) -> str | None:
    """The cloud whose machines say this of themselves.

    >>> (
    ...     cloud_of({"sys_vendor": "Google", "product_name": "Google Compute Engine"}),
    ...     cloud_of({"sys_vendor": "Dell Inc."}),
    ... )
    ('gcp', None)
    >>> cloud_of({"sys_vendor": "Microsoft Corporation"}) is None  # a Hyper-V of one's own
    True

    Source:
        cloud-init's ds-identify; AWS, "Identify EC2 instances" (the UUID of Xen instances begins with ec2).
    """
    vendor, product = told.get("sys_vendor", ""), told.get("product_name", "")
    if "Amazon EC2" in (vendor, told.get("bios_vendor")) or told.get("hypervisor", "").lower().startswith("ec2"):
        return "aws"
    if product == "Google Compute Engine":
        return "gcp"
    if told.get("chassis_asset_tag") == AZURE_TAG:
        return "azure"
    if product == "Alibaba Cloud ECS" or vendor == "Alibaba Cloud":
        return "alibaba"
    return None


def place_of(told: str) -> Place | None:
    """An address as such variables hold it; None if it is none.

    >>> [
    ...     str(place_of(told))
    ...     for told in ("http://127.0.0.1:1338/", "metadata.google.internal", "http://[fd00:ec2::254]")
    ... ]
    ['127.0.0.1:1338', 'metadata.google.internal', '[fd00:ec2::254]']
    >>> place_of("https://host"), place_of("http://host:port"), place_of("two words")
    (None, None, None)
    """
    try:
        split = urlsplit(told if "://" in told else f"http://{told}")
        host, port = split.hostname, split.port
    except ValueError:
        return None
    if split.scheme != "http" or not host or any(c.isspace() or not c.isprintable() for c in host):
        return None
    return Place(host, port if port is not None else 80)
