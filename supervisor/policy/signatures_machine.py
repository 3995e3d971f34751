"""What is said of a machine: memory of GPUs and hosts, GPUs that fail, disks, file systems, and a scheduler's words.

Patterns are in lower case, and no line end is in what they match.
"""

from __future__ import annotations

from supervisor.policy.causes import Cause
from supervisor.policy.signatures import Signature

_CUDA = "CUDA runtime API, cudaError_t"
_ERRNO = "errno(3)"
_SLURM = "slurm, src/slurmd/slurmstepd/req.c, src/srun/libsrun"
_KERNEL = "linux, mm/oom_kill.c"

#: Before the GPUs' rows: a host's memory and a full disk are told with a GPU's words too.
HOST_FIRST = (
    Signature("pinned_memory", Cause.HOST_OOM,
      r"\bby allocator (?:mkl)?cpu|allocat\w*.{0,120}/device:cpu:|alloc\w* .{0,60}\b(?:on host|(?:pinned"
      r"|page-?locked) host"
      r"|host memory|pinned memory)\b|\bcuda_?(?:host_?alloc|mem_?host_?alloc|host_?register)\b.{0,60}out of memory",
      "TensorFlow; CUDA, cudaHostAlloc"),
)  # fmt: skip

GPU_MEMORY = (
    Signature("gpu_oom", Cause.GPU_OOM, r"(?:cuda|hip|xpu|mps backend|npu|mlu|musa) out of memory",
      "torch, c10 allocators"),
    Signature("gpu_oom", Cause.GPU_OOM, r"\btorch\.(?:cuda\.)?outofmemoryerror\b", "torch, c10/util/Exception.h"),
    Signature("gpu_oom_driver", Cause.GPU_OOM,
      r"(?:cuda|\bcu[bdm]\w+|hip|gpu|device|driver|triton|vram).{0,120}\bout of (?:device )?memory"
      r"|out[ _]of[ _](?:device|gpu|video)[ _]memory|gpu_\d+_bfc|resourceexhausted|oom when allocating tensor",
      f"{_CUDA}; cuBLAS; TensorFlow"),
    Signature("gpu_oom_kernel", Cause.GPU_OOM,
      r"amdgpu.{0,60}(?:not enough memory for command submission|failed to allocate (?:gem|vram|bo))"
      r"|nvrm: .{0,60}out of memory|\bxid\b.{0,80}out of memory|vram is (?:full|exhausted)|\bnv_err_no_memory\b",
      "amdgpu and NVIDIA drivers"),
    Signature("gpu_oom_driver", Cause.GPU_OOM, r"(?:cuda|hip)_?error_?(?:memoryallocation|out_?of_?memory)\b", _CUDA),
    Signature("gpu_oom_nccl", Cause.GPU_OOM, r"cuda failure (?:\d+ )?'?out of memory", "nccl, src/include/checks.h"),
    Signature("gpu_oom_blas", Cause.GPU_OOM,
      r"\b(?:cublas|hipblas|rocblas|cudnn|miopen|cusolver|cusparse|cufft|curand"
      r"|nvrtc)_(?:status_)?\w*alloc\w*_failed", "cuBLAS, cuDNN, cuSOLVER, cuFFT: status codes"),
    Signature("gpu_oom_blas", Cause.GPU_OOM, r"\bcusparse_status_insufficient_resources|rocblas_status_memory_error",
      "cuSPARSE"),
    Signature("gpu_oom_cublas_handle", Cause.GPU_OOM, r"cublas_status_not_initialized.{0,40}cublascreate",
      "torch, issues: no memory is left for the handle"),
    Signature("gpu_oom_cudnn_plan", Cause.GPU_OOM,
      r"(?:unable to find a valid cudnn algorithm|unable to find an engine to execute this computation"
      r"|no valid execution plans)", "torch, aten/src/ATen/native/cudnn/Conv_v7.cpp: no plan's workspace fits"),
    Signature("gpu_oom_hsa", Cause.GPU_OOM, r"hsa_status_error_out_of_resources", "ROCr, hsa.h"),
    Signature("gpu_oom_xla", Cause.GPU_OOM,
      r"resource_?exhausted: .{0,40}(?:out of memory|allocat|hbm|ran out of memory in memory space)",
      "XLA, BFC allocator"),
    Signature("gpu_oom_bitsandbytes", Cause.GPU_OOM, r"error out of memory at line \d+ in file",
      "bitsandbytes, csrc/ops.cu"),
    Signature("gpu_oom_kv_cache", Cause.GPU_OOM,
      r"no available memory for the cache blocks"
      r"|free memory on device .{0,80}is less than desired gpu memory utilization",
      "vLLM, v1/core/kv_cache_utils.py"),
    Signature("gpu_oom_allocate", Cause.GPU_OOM,
      r"(?:failed|unable|cannot|could not) to allocate .{0,60}\b(?:gpu|device|cuda|vram)\b.{0,20}memory"
      r"|(?:gpu|device|cuda|vram)\b.{0,20}memory.{0,20}allocat\w+ (?:failed|error)"
      r"|not enough (?:gpu|device|cuda|vram)\b ?memory|no executable batch size found|enough gpu ram to fit",
      "various; accelerate, utils/memory.py"),
    Signature("gpu_oom_pytorch_words", Cause.GPU_OOM,
      r"tried to allocate [\d.]+ .?i?b(?:\.|ytes).{0,40}(?:gpu|\(mps|capacity)", "torch, CUDACachingAllocator.cpp"),
)  # fmt: skip

SHARED_MEMORY = (
    Signature("loader_shm", Cause.HOST_OOM,
      r"worker \(pid\(?s?\)? .{0,40}is killed by signal: bus error|out of shared memory|insufficient shared memory",
      "torch, utils/data/_utils/signal_handling.py", says="a data-loader worker ran out of shared memory (/dev/shm)"),
    Signature("shm_full", Cause.HOST_OOM,
      r"(?:/dev/shm|</?torch_|shared memory|shmutils|posix_fallocate).{0,120}(?:no space left|cannot allocate"
      r"|not enough space|insufficient space|failed to (?:extend|allocate))"
      r"|(?:no space left|cannot allocate|not enough space|insufficient space|failed to extend"
      r"|error while (?:creating"
      r"|attaching to)).{0,120}(?:/dev/shm|shared memory)"
      r"|unable to (?:write to file|mmap|resize file|allocate shared).{0,60}</?torch_",
      "torch, aten/src/ATen/MapAllocator.cpp; nccl, src/misc/shmutils.cc", says="shared memory (/dev/shm) is full"),
)  # fmt: skip

HOST_MEMORY = (
    Signature("loader_killed", Cause.HOST_OOM,
      r"worker \(pid\(?s?\)? .{0,40}(?:is|was|were) killed by signal: killed",
      "torch, utils/data/_utils/signal_handling.py", says="a data-loader worker was killed, as for memory"),
    Signature("cpu_allocator", Cause.HOST_OOM,
      r"defaultcpuallocator.{0,20}(?:can't allocate|not enough) memory"
      r"|alloc_cpu\.cpp.{0,80}(?:allocate|not enough) memory", "torch, c10/core/impl/alloc_cpu.cpp"),
    Signature("memory_error", Cause.HOST_OOM,
      r"^(?:\S*[.\s])?(?:_array)?memoryerror\b(?!.*(?:gpu|cuda))|_arraymemoryerror"
      r"|unable to allocate [\d.]+ .?i?b for an array", "CPython; numpy"),
    Signature("enomem", Cause.HOST_OOM, r"cannot allocate memory(?! in static tls)|memalign\b|\[errno 12\]"
      r"|os error 12\b|\benomem\b",
      _ERRNO),
    Signature("bad_alloc", Cause.HOST_OOM,
      r"\bstd::(?:bad_alloc|bad_array_new_length)|memory allocation of \d+ bytes failed", "libstdc++; Rust"),
    Signature("oom_kill", Cause.HOST_OOM,
      r"oom[-_ ]kill|out of memory: kill(?:ed)? process|memory cgroup out of memory|invoked oom-killer"
      r"|\boomkilled\b|cgroup out-of-memory handler|killed process \d+ \(|out-of-memory kill|\boom_reaper\b"
      r"|out of memory and no killable|page allocation failure|\boom failure\b|\b(?:systemd-oomd"
      r"|earlyoom)\b.{0,40}kill",
      f"{_KERNEL}; {_SLURM}"),
    Signature("slurm_oom", Cause.HOST_OOM,
      r"\bout_of_memory\b|task \d[\d,-]*: out of memory|exceeded (?:\w+ )?(?:job |step )?memory limit|term_memlimit"
      r"|memory usage limit|job killed: (?:v?p?mem)|low on resource: memory"
      r"|exceeded virtual memory limit|hard limit \W?(?:h_vmem|h_rss)|memory\.max"
      r"|memory limit of \S+ exceeded", f"{_SLURM}; LSF; PBS; Kubernetes"),
    Signature("no_host_memory", Cause.HOST_OOM,
      r"out of (?:system|host|cpu|main) (?:memory|ram)"
      r"|(?:not enough|insufficient|ran out of) (?:system |host |cpu )?(?:memory|ram)\b", "various", general=True),
    Signature("ray_oom", Cause.HOST_OOM,
      r"killed (?:.{0,40})due to (?:the node|host|system)? ?running low on memory|ray\.exceptions\.outofmemoryerror"
      r"|memory pressure", "Ray, memory monitor"),
    Signature("arrow_oom", Cause.HOST_OOM, r"arrowmemoryerror|(?:realloc|malloc) of size \d+ failed",
      "Arrow, memory_pool.cc"),
    Signature("loader_gone", Cause.HOST_OOM, r"dataloader worker \(pid\(?s?\)? .{0,80}exited unexpectedly"
      r"|one of the subprocesses has abruptly died|process pool was terminated abruptly",
      "torch, utils/data/dataloader.py; datasets, map: most often killed for memory", general=True),
)  # fmt: skip

GPU_FAULTS = (
    Signature("gpu_ecc", Cause.GPU_FAULT,
      r"uncorrectable (?:ecc|memory error)|ecc[_ ]?uncorrectable|row remapp\w+ .{0,20}(?:fail|pending)"
      r"|eccnotcorrectable"
      r"|double[- ]bit (?:ecc )?error|ecc error", _CUDA),
    Signature("gpu_nvlink", Cause.GPU_FAULT, r"uncorrectable nvlink|nvlink[_ ]?uncorrectable|nvlink error"
      r"|over nvlink or a hardware error|\bsxid\b.{0,80}\bfatal"
      r"|nvlink.{0,60}(?:link down|fatal|recovery fail)|xgmi.{0,40}(?:error|fail)", _CUDA),
    Signature("gpu_lost", Cause.GPU_FAULT,
      r"(?:fallen|fell) off the bus|nvrm: .{0,80}(?:timed out|timeout|rpc|fail|crashcat|assert)"
      r"|nvmlerror_(?:gpuislost|unknown|drivernotloaded|lib\w+mismatch|gpunotfound)"
      r"|\bgsp\d?\b.{0,40}(?:timeout|error|rpc|crash)|(?:timeout|timed out|waiting) .{0,40}\bgsp\d?\b|(?:gpu|device"
      r"|vram) is lost|gpu reset in progress"
      r"|gpu_is_lost|gpu (?:has been|was) lost"
      r"|(?:gpu|device) is unavailable(?! or)|nvidia-modeset: error"
      r"|nvidia\S* .{0,40}probe .{0,40}failed", "NVIDIA driver; NVML_ERROR_GPU_IS_LOST"),
    Signature("gpu_xid", Cause.GPU_FAULT,
      r"\bxid\b.{0,40}[:\s,](?:46|48|54|56|6[1-4]|74|79|92|9[45]|109|110|119|120|122|123|140|14[3-9]|150|155|158)\b",
      "NVIDIA, Xid catalogue: of the GPU, not of its program"),
    Signature("gpu_reset", Cause.GPU_FAULT,
      r"gpu requires reset|requires? (?:a )?gpu reset|gpu recovery action|reset required", "NVML"),
    Signature("gpu_driver", Cause.GPU_FAULT,
      r"driver/library version mismatch|unable to determine the device handle"
      r"|couldn't communicate with the nvidia driver|nvidia' kernel module|nvidia kernel module"
      r"|failed to initialize nvml|cuda driver initialization failed|nvml.{0,40}(?:unknown error|driver not loaded)"
      r"|nvrm: api mismatch|no devices were found|no such device.{0,40}nvidia"
      r"|/dev/nvidia\S* .{0,40}no such", "NVML; nvidia-smi"),
    Signature("gpu_fabric", Cause.GPU_FAULT,
      r"system not yet initialized|systemnotready|error 802|fabric (?:manager|state)\b.{0,60}(?:fail|error|not)",
      "CUDA error 802: the fabric manager is down"),
    Signature("gpu_contained", Cause.GPU_FAULT,
      r"cuda_error_(?:unknown|hardware_stack\w*|system_\w+|device_unavailable)|hardware ?stack ?error"
      r"|cuda error: (?:contained|uncontained|unknown error|device is unavailable)"
      r"|unexpected error from cudagetdevicecount|cudaerrorunknown|cuda unknown error", _CUDA),
    Signature("launch_failure", Cause.GPU_FAULT,
      r"unspecified launch failure|cudaerrorlaunchfailure|cuda error\(719\)",
      f"{_CUDA}: 719, of a kernel or of its GPU"),
    Signature("gpu_busy", Cause.GPU_FAULT,
      r"cuda-capable device\(s\) is/are busy or unavailable|all cuda-capable devices are busy"
      r"|exclusive.thread device already in use|\bmps (?:server|client|control daemon)\b|cudaerrormps"
      r"|cudaerrordevicesunavailable", _CUDA),
    Signature("gpu_missing", Cause.GPU_FAULT,
      r"no (?:cuda|rocm)-capable device is detected|cuda_error_no_device|no cuda gpus are available"
      r"|no hip gpus are available|cudaerrornodevice", _CUDA),
    Signature("gpu_hang", Cause.GPU_FAULT,
      r"hw exception by gpu node|gpu hang|hsa_status_error(?::|_) ?(?:hardware|exception)|gpu reset begin"
      r"|(?:amdgpu|\bkfd\b).{0,120}(?:ring .{0,20}timeout|timed? ?out|gpu reset|ras error|\bras\b.{0,40}\berr"
      r"|uncorrect"
      r"|hardware error|hw error|fatal|poison|unrecoverable|\bhung\b|wedged|smu\b.{0,60}(?:done|fail|state)"
      r"|failed to (?:evict|suspend|resume|send)|(?:test|command|psp)\b.{0,40} failed"
      r"|\*error\*(?!.*(?:memory|alloc)))|errevent_athub|wait loop timeout expired", "ROCr; amdgpu and kfd drivers"),
    Signature("gpu_bus", Cause.GPU_FAULT,
      r"pcie bus error: .{0,40}uncorrect|\baer: .{0,40}uncorrect.{0,20}fatal|pciehp.{0,60}(?:link down|not present)"
      r"|(?:gpu|nvidia|amdgpu).{0,80}(?:link is down|unable to change power state|inaccessible)",
      "linux, drivers/pci/pcie/aer.c", general=True),
)  # fmt: skip

#: What the kernel says of a full disk, whatever a program makes of it.
FULL = (
    Signature("enospc", Cause.DISK_FULL,
      r"no space left on (?:the )?device|\[errno 28\]|os error (?:28|112)\b|\benospc\b|errno ?= ?28\b", _ERRNO),
    Signature("edquot", Cause.DISK_FULL,
      r"disk quota exceeded|\[errno 122\]|os error 122\b|\bedquot\b|errno ?= ?122\b", _ERRNO),
)  # fmt: skip

DISKS = (
    Signature("enospc", Cause.DISK_FULL,
      r"(?:disk|filesystem|file system|volume) is full|not enough (?:free )?(?:disk )?space"
      r"|insufficient disk space|out of disk space|requested and \d+ written|wrote only \d+ of"
      r"|(?:isn't|not) enough (?:free |disk )?space|disk or resource is full|insufficient (?:free |storage )?space"
      r"|disk is full|disk full|no usable temporary directory", f"{_ERRNO}; numpy"),
    Signature("edquot", Cause.DISK_FULL,
      r"^(?!.*(?:\brate\b|request|per (?:second|minute|day)|\bapi\b|quota metric|download quota|\b429\b))(?:.*\bquota"
      r" (?:exceeded|reached)|.*exceed\w* (?:your |the )?(?:disk |storage |block |inode |group )?quota|.*over quota)",
      "file systems; not a server's count of requests"),
    Signature("pod_disk", Cause.DISK_FULL, r"ephemeral.{0,20}storage.{0,60}exceed|low on resource: ephemeral",
      "Kubernetes, eviction"),
    Signature("efbig", Cause.DISK_FULL, r"\[errno 27\]|os error 27\b|file size limit exceeded"
      r"|file too large", _ERRNO),
    Signature("eio", Cause.STORAGE,
      r"input/output error|\[errno 5\]|os error 5\b|remote i/o error|\[errno 121\]|\beio\b|errno ?= ?5\b"
      r"|\b(?:write|read) error: (?:wrote|read) \d+|\bshort (?:read|write)\b", f"{_ERRNO}; torch, THDiskFile"),
    Signature("estale", Cause.STORAGE, r"stale (?:nfs )?file handle|\[errno 116\]|os error 116\b|\bestale\b", _ERRNO),
    Signature("mount_gone", Cause.STORAGE,
      r"'/[^']*': (?:software caused connection abort|connection (?:timed out|reset|refused))"
      r"|transport endpoint is not connected|\[errno 107\] .*: '/|cannot send after transport endpoint shutdown"
      r"|\[errno 108\]|os error 10[78]\b|\[errno 11[02]\][^\n]*: ?b?['\x22]/|no such device or address|\[errno 6\]",
      f"{_ERRNO}; Lustre; FUSE"),
    Signature("erofs", Cause.STORAGE, r"read-only file ?system|\[errno 30\]|os error 30\b|\berofs\b", _ERRNO),
    Signature("fs_damage", Cause.STORAGE,
      r"structure needs cleaning|\[errno 117\]|\[errno 74\]|\bebadmsg\b|\[errno 61\] no data|\[errno 14\]"
      r"|unknown error 5\d\d|disk i/o error|disk image is malformed|no data available|buffer i/o error"
      r"|blk_update_request|ext4-fs error|xfs .{0,40}(?:corruption|shut)|remounting filesystem read-only"
      r"|i/o error, dev "
      r"|nvme\S* .{0,60}(?:timeout|aborting|controller is down|reset controller)|btrfs.{0,20}(?:error"
      r"|critical)", f"{_ERRNO}; kernel log"),
    Signature("safetensors_io", Cause.STORAGE, r"safetensorerror.{0,40}: i/o error",
      "safetensors: what the kernel said follows"),
    Signature("fs_locks", Cause.STORAGE,
      r"\[errno 11\][^\n]*: ?b?['\x22]/|no locks available|\[errno 37\]|file lock .{0,200}could not be acquired"
      r"|database is locked|\[errno 35\]"
      r"|unable to (?:synchronously )?(?:lock|open) file.{0,80}errno = 11|\[errno 16\].*\.nfs"
      r"|(?:device or resource busy|directory not empty).{0,40}\.nfs", f"{_ERRNO}; HDF5; NFS"),
    Signature("fs_key", Cause.STORAGE, r"key has expired|\[errno 127\]|required key not available|\[errno 126\]",
      f"{_ERRNO}; AFS"),
    Signature("nfs_server", Cause.STORAGE,
      r"nfs: server .{0,80}(?:not responding|timed out)|lustre.{0,80}(?:evict|timed out|connection .*lost)"
      r"|lustreerror|gpfs.{0,60}(?:unmount|panic|stale)|ceph.{0,60}(?:session lost|timed out|hung|evicted)"
      r"|beegfs.{0,80}(?:error|timed out|unreachable)|nfs4?_\w+: .{0,60}(?:fail|error)"
      r"|nfs: state manager", "kernel log"),
    Signature("mmap_bus", Cause.STORAGE, r"bus error.{0,60}(?:mmap|memory-?mapped|nfs|file)",
      "sigaction(2): SIGBUS", general=True),
    Signature("zip_write", Cause.STORAGE,
      r"pytorchstreamwriter failed writing|inline_container\.cc.{0,80}unexpected pos"
      r"|error while serializing: i/?o ?error|iostream error|file write failed",
      "torch, caffe2/serialize/inline_container.cc", general=True),
    Signature("object_store", Cause.STORAGE,
      r"\bslowdown\b|reduce your request rate"
      r"|an error occurred \((?:500|503|internalerror|requesttimeout|serviceunavailable)\)"
      r"|we encountered an internal error", "S3 error responses"),
)  # fmt: skip

SCHEDULER = (
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
      r"|jobstate=timeout|\bstate[=: ]+timeout|[ |]timeout[ |]+[01]:\d\d?(?![\d:])|time limit exhausted"
      r"|reason[=: ]+timelimit"
      r"|this job is timed-out|timed-out too many times|hit .{0,20}\bwall ?-?time|job has timed out\. ran"
      r"|hard limit \W?(?:h_rt|s_rt)|resource allocation expired"
      r"|active .{0,40}longer than .{0,20}deadline",
      f"{_SLURM}; submitit; PBS, Moab; LSF; Grid Engine; Flux; Kubernetes"),
    Signature("slurm_node", Cause.NODE_LOST,
      r"due to node failure|node failure\b|marked dead because|\bnode_fail\b|\bboot_fail\b|lost node"
      r"|nodes? .{0,40}(?:not responding|went down)|nodediederror|node (?:has |of this worker has )?died"
      r"|node is not ready|node (?:\S+ )?(?:has been |unexpectedly )?rebooted|due to failed node|on (?:failed"
      r"|down) node"
      r"|due to failure of node|received srun node fail|killing missing step|reason[=: ]+node ?(?:down|fail)"
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
      r"due to job requeue|\bjob preempted", _SLURM),
    Signature("sigterm", Cause.PREEMPTED,
      r"(?:received|got signal:?) (?:signals\.)?(?:15|sigterm)\b|(?:received|caught|got) (?:signal )?sigterm"
      r"|called with signal 15\b",
      "torch, distributed/elastic; submitit: somebody asked, and others may say who", general=True),
    Signature("slurm_cancelled", Cause.USER_STOP,
      r"\*\*\* (?:job|step) .{0,60}cancelled at (?!.*due to)|cancelled by \d+|scancel: terminating|\bterm_(?:owner"
      r"|admin)\b", f"{_SLURM}; LSF", general=True),
    Signature("spot_notice", Cause.PREEMPTED,
      r"spot (?:instance )?(?:interruption|termination)|instance-action|preemption notice"
      r"|instance (?:is being |was )(?:preempted|reclaimed)|rebalance recommendation", "AWS, GCP, Azure metadata"),
    Signature("slurm_task", Cause.CRASHED, r"due to task failure|due to signal |failed \(non-zero exit code",
      _SLURM, cascade=True),
    Signature("srun_killed", Cause.CRASHED,
      r"srun: error: .{0,80}task .{0,40}(?:killed|terminated|exited with exit code)", _SLURM, cascade=True),
)  # fmt: skip

SUBMISSION = (
    Signature("slurm_refused", Cause.USER_ERROR,
      r"(?:srun|sbatch|salloc|submission failed|allocate resources|create step).{0,80}(?:invalid (?!job cred|auth"
      r"|protocol)"
      r"|violates accounting/qos|requested (?:node configuration|time limit)|more processors requested"
      r"|specification can ?not be satisfied|specification invalid|not permitted|access/permission denied)"
      r"|could not select device driver", "slurm, src/common/slurm_errno.c; docker"),
)  # fmt: skip

MACHINE = (*HOST_FIRST, *SHARED_MEMORY, *FULL, *GPU_MEMORY, *HOST_MEMORY, *GPU_FAULTS, *DISKS, *SCHEDULER, *SUBMISSION)
