"""The job file: what a user writes, checked before anything starts.

`load_job` is the door. `schema` holds the keys, `values` their periods, `file`
the YAML with its line numbers, `complaints` the messages, `program` the program
that is named, `notify` whom to tell, `mathematics` what may not change while a
run is under way.
"""

from supervisor.job.load import load_job, read_resolved, resolved_job, resolved_yaml, schema
from supervisor.job.mathematics import changed_keys, describe_changes, mathematics
from supervisor.job.program import base_doubt, check_program, is_ours, is_script, program_args, program_argv
from supervisor.job.schema import Checkpoint, Job, Launch, Recovery
from supervisor.job.values import Auto, Every, Off, SnapshotEvery
from supervisor.policy.schedule import Seconds, Steps

__all__ = [
    "Auto",
    "Checkpoint",
    "Every",
    "Job",
    "Launch",
    "Off",
    "Recovery",
    "Seconds",
    "SnapshotEvery",
    "Steps",
    "base_doubt",
    "changed_keys",
    "check_program",
    "describe_changes",
    "is_ours",
    "is_script",
    "load_job",
    "mathematics",
    "program_args",
    "program_argv",
    "read_resolved",
    "resolved_job",
    "resolved_yaml",
    "schema",
]
