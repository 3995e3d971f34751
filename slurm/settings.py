"""What the one-machine SLURM is told: slurm.conf and cgroup.conf as text, and what stands in them.

Nothing here looks at the machine or changes it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

#: MB that a node has at least, if the machine has: a training of two torch processes takes 2.5 GB of resident
#: memory, and a job of one CPU gets half of what a node of two has.
LEAST_MEMORY_MB = 6144

#: By its first line a directory is known as a cluster's; no other is ever removed.
MARK = "# one-machine SLURM of slurm/cluster\n"

#: Set, each node's slurmd lives in a mount namespace with a /dev/shm of its own.
OWN_SHM = "# nodes have a /dev/shm of their own\n"

#: bytes of sockaddr_un.sun_path without its closing zero [unix(7)].
SOCKET_PATH_BYTES = 107

#: The longest step that there is: MaxJobId's default, and the batch step's number [slurm.conf(5), slurm.h].
LONGEST_STEP = "67043328.4294967291"

_CONFIG = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge.socket
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool-%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd-%n.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/{task}
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU={memory_per_cpu_mb}
ReturnToService=2
JobRequeue={requeue}
KillWait={kill_wait_s}
SlurmdTimeout={slurmd_timeout_s}
MessageTimeout=10
SchedulerParameters=bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode={preempt_mode}
"""

_PARTITIONS = """\
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode={preempt_mode} GraceTime={grace_s} State=UP
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF State=UP
"""

#: CgroupMountpoint is a directory of ours, whose links lead into control groups of ours: SLURM's own
#: name for a node's group, slurm_<node>, is the same in every cluster of this machine.
_CGROUP = """\
CgroupPlugin=cgroup/v1
CgroupMountpoint={base}/cgroup
ConstrainRAMSpace={constrain}
ConstrainSwapSpace={constrain}
"""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One cluster's.

    Attributes:
        ports: of slurmctld and then of each slurmd.
        memory_mb: of each node, as SLURM counts it; a job without `--mem` gets its CPUs' share.
        own_shm: whether a node's shared memory dies with it, as a machine's does.
        limits: whether control groups hold jobs to their memory.
        more: further lines of slurm.conf by their key; they replace ours.
    """

    base: Path
    host: str
    ports: tuple[int, ...]
    cpus: int
    memory_mb: int
    own_shm: bool
    limits: bool
    proctrack: str
    preempt_mode: str
    grace_s: int
    kill_wait_s: int
    slurmd_timeout_s: int
    requeue: bool
    more: dict[str, str] = field(default_factory=dict)


def slurm_conf(settings: Settings) -> str:
    """The whole file."""
    text = _CONFIG.format(
        port=settings.ports[0],
        task="cgroup" if settings.limits else "none",
        memory_per_cpu_mb=settings.memory_mb // settings.cpus,
        **{**vars(settings), "requeue": int(settings.requeue)},
    )
    for key, value in settings.more.items():
        text = re.sub(rf"(?im)^{re.escape(key)}=.*\n", "", text) + f"{key}={value}\n"
    nodes = "".join(
        f"NodeName={name} NodeHostname={settings.host} NodeAddr=127.0.0.1 Port={port}"
        f" CPUs={settings.cpus} RealMemory={settings.memory_mb} State=UNKNOWN\n"
        for name, port in zip(node_names(len(settings.ports) - 1), settings.ports[1:], strict=True)
    )
    head = MARK + OWN_SHM * settings.own_shm
    return head + text + nodes + _PARTITIONS.format(**vars(settings))


def cgroup_conf(base: Path, *, limits: bool) -> str:
    """The file beside it, with or without limits of memory."""
    return _CGROUP.format(base=base, constrain="yes" if limits else "no")


def switched(conf: str, mode: str, grace_s: int | None) -> str:
    r"""The same slurm.conf with another PreemptMode, and another GraceTime if one is given.

    >>> switched("PreemptMode=REQUEUE\nPartitionName=low PreemptMode=REQUEUE GraceTime=15 State=UP\n", "CANCEL", 0)
    'PreemptMode=CANCEL\nPartitionName=low PreemptMode=CANCEL GraceTime=0 State=UP\n'
    """
    conf = re.sub(r"(?m)^(PartitionName=low .*)?PreemptMode=\w+", rf"\g<1>PreemptMode={mode}", conf)
    return conf if grace_s is None else re.sub(r"GraceTime=\d+", f"GraceTime={grace_s}", conf)


def node_names(count: int) -> list[str]:
    """`n1`, `n2` and so on."""
    return [f"n{n}" for n in range(1, count + 1)]


def nodes_of(conf: str) -> list[str]:
    """The nodes that a slurm.conf names."""
    return re.findall(r"(?m)^NodeName=(\S+)", conf)


def node_memory_mb(machine_mb: int, nodes: int) -> int:
    """What a node has, unless it is said: its share of the machine, or a little more than that on a small one.

    >>> node_memory_mb(24_000, 3), node_memory_mb(8_000, 3), node_memory_mb(4_000, 3)
    (8000, 6144, 4000)
    """
    return min(machine_mb, max(machine_mb // nodes, LEAST_MEMORY_MB))


def spool(base: Path, node: str) -> str:
    """The directory where a node's step daemons have their sockets."""
    return f"{base}/spool-{node}"


def unfit_dir(base: Path, nodes: int) -> str | None:
    """Why a cluster cannot live there: SLURM writes names below it into settings and addresses of sockets.

    >>> unfit_dir(Path("/tmp/my cluster"), 3)
    "SLURM's settings take letters, digits and . / @ + : ~ - _ only"
    """
    if not re.fullmatch(r"[\w./@+:~-]+", str(base)):
        return "SLURM's settings take letters, digits and . / @ + : ~ - _ only"
    length, longest = len(os.fsencode(base)), longest_dir(nodes)
    if length > longest:
        return f"{length} bytes long; the sockets of SLURM's steps need it in {longest} or fewer"
    return None


def longest_dir(nodes: int) -> int:
    """Bytes that a cluster's directory may have, so that the sockets of its steps still have a name.

    A socket whose name is longer is never bound, and the step cannot be signalled or joined.

    >>> longest_dir(3), longest_dir(10)
    (75, 73)
    """
    name = node_names(nodes)[-1]
    return SOCKET_PATH_BYTES - len(spool(Path(), name).removeprefix(".")) - len(f"/{name}_{LONGEST_STEP}")
