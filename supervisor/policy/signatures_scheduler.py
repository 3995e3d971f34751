"""What schedulers say: SLURM's words first, and those of others that say the same.

Patterns are in lower case, and no line end is in what they match.
"""

from __future__ import annotations

from supervisor.policy.causes import Cause
from supervisor.policy.signatures import Signature

_SLURM = "slurm, src/slurmd/slurmstepd/req.c, src/srun/libsrun"

JOBS = (
    Signature("slurm_preempted", Cause.PREEMPTED,
      r"due to preemption|(?:job|cluster|instance|vm|pod|node) (?:is|was|has been) (?:being )?preempted"
      r"|jobstate=preempted|\bstate[=: ]+preempted|[ |]preempted[ |]+[01]:\d\d?(?![\d:])|\bterm_preempt\b"
      r"|reason[=: ]+preempt"
      r"|instances?\.preempted|\beventtype\b.{0,10}preempt|preempted by (?:a )?(?:pod|higher|scheduler)"
      r"|preempted (?:in order )?to (?:accommodate|admit|reclaim|free)", f"{_SLURM}; LSF; Kubernetes; GCP, Azure"),
    Signature("slurm_time_limit", Cause.TIME_LIMIT,
      r"due to time ?limit|\bwall ?-?(?:clock|time)\b.{0,40}(?:exceed|reached|expired)|term_(?:run|cpu)limit"
      r"|run time limit"
      r"|exceed\w* .{0,30}\bwall ?-?(?:clock|time)|(?:exceeded|hit|reached|over) (?:its |the "
      r"|their )?(?:job )?time ?limit"
      r"|jobstate=(?:timeout|deadline)|\bstate[=: ]+timeout|[ |]timeout[ |]+[01]:\d\d?(?![\d:])|time limit exhausted"
      r"|reason[=: ]+timelimit"
      r"|timed-out and not|maxruntime|max\w* (?:job )?run ?time|time limit (?:reached|exceeded|expired"
      r"|of .{0,20}exceeded)"
      r"|revoked: time limit|about to reach (?:its|the) time limit|deadlineexceeded|\(timelimit\)"
      r"|reached .{0,20}time limit|this job is timed-out|timed-out too many times"
      r"|hit .{0,20}\bwall ?-?time|job has timed out\. ran"
      r"|hard limit \W?(?:h_rt|s_rt)|resource allocation expired"
      r"|active .{0,40}longer than .{0,20}deadline",
      f"{_SLURM}; submitit; PBS, Moab; LSF; Grid Engine; Flux; Kubernetes"),
    Signature("slurm_node", Cause.NODE_LOST,
      r"due to node failure|node failure\b|marked dead because|node_fail(?:\b|\+)"
      r"|reason[=: ]+(?:not responding|node unexpectedly|low \w+|node down)|[ |](?:down|drain(?:ed|ing)?|fail(?:ing)?"
      r"|unknown?|idle|alloc(?:ated)?|mix(?:ed)?)\*[ +|]|\bboot_fail\b|lost node"
      r"|nodes? .{0,40}(?:not responding|went down)|nodediederror|node (?:has |of this worker has )?died"
      r"|node is not ready|node (?:\S+ )?(?:has been |unexpectedly )?rebooted|due to failed node|on (?:failed"
      r"|down) node"
      r"|due to failure of node|node \S+ has low (?:real_memory|cpu|tmp)|reason set to: (?!.*(?:user|maint))"
      r"|is_node_resp: node|remote daemon .{0,40}(?:died|lost|gone)"
      r"|(?:instance|machine|vm|host) \S+ (?:was|has been|is) (?:\w+ )?(?:terminated|stopped|lost|rebooted"
      r"|shut ?down)\b(?!.*(?:preempt|spot))"
      r"|required node not available|nodes?(?: \S+)? (?:is|are|became|set|marked) (?:down|drained"
      r"|draining)\b"
      r"|setting (?:node |nodes )?(?:state )?(?:to )?down\b|\bstate[=: ]+(?:down|drain|fail)\w*\b|hosterror\b"
      r"|scheduled (?:for )?(?:retirement|maintenance)|host maintenance|instance (?:has been |was "
      r"|is being )?(?:terminated|retired)"
      r"|wrong with the boot of the nodes|nodes? \S+ (?:are )?still not ready|prolog hung|fatal hardware error"
      r"|\[hardware error\]: .{0,80}(?:uncorrect|fatal)|\buncorrected (?:hardware )?(?:memory )?error"
      r"|hardware memory error"
      r"|received srun node fail|killing missing step|reason[=: ]+node ?(?:down|fail)"
      r"|kubelet stopped posting|nodenotready|nodelost\b|node\.kubernetes\.io/(?:unreachable|not-ready)"
      r"|\bnodes? (?:\S+ )?.{0,40}\bis (?:lost|gone|dead|unreachable|unresponsive)"
      r"|lost communication with a remote daemon"
      r"|lost connection to node|io error with slurmstepd|job reconnection failed|can not reconnect to"
      r"|sister could not communicate|requested job die"
      r"|prolog (?:failed|error|failure)|kernel panic|hard lockup|due to hardware memory corruption|machine check"
      r"|system is going down|systemd\[1\]: shutting down"
      r"|\bedac\b.{0,40} ue ",
      f"{_SLURM}; Kubernetes; Open MPI; HTCondor; PBS; linux"),
    Signature("slurm_hung", Cause.STALLED, r"due to job not ending with signals|\bkill task failed|unkillable",
      "slurm, src/slurmd/slurmstepd: processes that no signal ends"),
    Signature("asked_to_end", Cause.PREEMPTED,
      r"due to job requeue|to reclaim resources|requeue?d? .{0,20}due to preempt|disruptiontarget"
      r"|preemptionbyscheduler|\bjob preempted|job has not timed out\. ran|jobstate=(?:requeue\w*"
      r"|suspended)", f"{_SLURM}; submitit"),
    Signature("sigterm", Cause.PREEMPTED,
      r"(?:received|got signal:?) (?:signals\.)?(?:15|sigterm)\b|(?:received|caught|got) (?:signal )?sigterm"
      r"|called with signal 15\b",
      "torch, distributed/elastic; submitit: somebody asked, and others may say who", general=True),
    Signature("slurm_cancelled", Cause.USER_STOP,
      r"\*\*\* (?:job|step) .{0,60}cancelled at (?!.*due to)|cancelled by \d+|jobstate=cancelled"
      r"|\bstate[=: ]+cancelled|[ |]cancelled\+"
      r"|scancel: terminating|\bterm_(?:owner"
      r"|admin)\b", f"{_SLURM}; LSF", general=True),
    Signature("spot_notice", Cause.PREEMPTED,
      r"spot (?:instance )?(?:interruption|termination)|instance-action|preemption notice"
      r"|instance (?:is being |was )(?:preempted|reclaimed)|rebalance recommendation"
      r"|termination is imminent|power key pressed", "AWS, GCP, Azure metadata; systemd-logind"),
    Signature("slurm_task", Cause.CRASHED, r"due to task failure|due to signal |failed \(non-zero exit code",
      _SLURM, cascade=True),
    Signature("srun_killed", Cause.CRASHED,
      r"srun: error: .{0,80}task .{0,40}(?:killed|terminated|exited with exit code)", _SLURM, cascade=True),
)  # fmt: skip

REFUSED = (
    Signature("slurm_refused", Cause.USER_ERROR,
      r"(?:srun|sbatch|salloc|submission failed|allocate resources|create step).{0,80}(?:invalid (?!job cred|auth"
      r"|protocol)"
      r"|violates accounting/qos|requested (?:node configuration|time limit)|more processors requested"
      r"|specification can ?not be satisfied|specification invalid|not permitted|access/permission denied)"
      r"|could not select device driver", "slurm, src/common/slurm_errno.c; docker"),
    Signature("slurm_asked", Cause.USER_ERROR,
      r"^(?:sbatch|salloc): (?:error|fatal): (?!.*(?:try again|timed? ?out|connect|busy|unavailable|not available"
      r"|respond|slurmctld"
      r"|munge|socket|i/o|cancel|revoked|node fail|prolog|relinquish|quota"
      r"|space))", f"{_SLURM}: what was asked for", general=True),
)  # fmt: skip

SCHEDULER = (*JOBS, *REFUSED)
