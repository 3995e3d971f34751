"""What is said of a machine: memory of GPUs and hosts, and GPUs that fail.

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
    Signature("gpu_oom_nccl", Cause.GPU_OOM, r"failed to cuda (?:m|c)alloc|nvml_success == r internal assert"
      r"|cuda failure (?:\d+ )?'?out of memory", "nccl, src/include/checks.h"),
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
    Signature("gpu_oom_bitsandbytes", Cause.GPU_OOM, r"out ?of ?memory(?:error)? at line \d+ in file",
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
      r"|out of memory and no killable|page allocation failure|\boom failure\b|\bearlyoom: sending|memory exhausted"
      r"|virtual memory exhausted|\b(?:systemd-oomd"
      r"|earlyoom)\b.{0,40}kill",
      f"{_KERNEL}; {_SLURM}"),
    Signature("slurm_oom", Cause.HOST_OOM,
      r"\bout_of_memory\b|\bout_of_me\+|task \d[\d,-]*: out of memory|exceeded (?:\w+ )?(?:job |step )?memory limit"
      r"|term_memlimit"
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
      r"|nvmlerror_?(?:timeout|irq_?issue|corrupted_?inforom|reset_?required|gpu_?is_?lost|insufficient_?power|in_?use"
      r"|operating)"
      r"|nvml_error_(?:timeout|irq|corrupted|reset|gpu_is|insufficient_power|in_use|operating|unknown|driver|lib_rm)"
      r"|critical xid error|(?:gpu|nvlink|nvswitch)\b.{0,40}health check failed|(?:gpu|device)\S*.{0,20}overheat"
      r"|hw_thermal_slowdown: active"
      r"|amdgpu.{0,80}gpu fault detected|gpu fault detected|nvrm: gpu at pci|nvrm: the nvidia gpu .{0,80}not supported"
      r"|nvrm: (?!.*\bxid\b).{0,120}(?:error|unable|cannot|could not|lost|exception|unexpected|not responding|mismatch"
      r"|critical|refus)"
      r"|\buvm\b.{0,60}(?:fatal|error)|nvgpuops\w*error|nvswitch.{0,80}(?:fatal|error|fail)"
      r"|nvidia-(?:persistenced|fabricmanager|uvm|nvswitch|peermem|smi)\b.{0,80}(?:error|fail|unable|fatal)"
      r"|(?:interrupt request issue|corrupted inforom|gpu requires restart|insufficient external power)"
      r"|\bgsp\d?\b.{0,40}(?:timeout|error|rpc|crash)|(?:timeout|timed out|waiting) .{0,40}\bgsp\d?\b|(?:gpu|device"
      r"|vram) is lost|gpu reset in progress"
      r"|gpu_is_lost|gpu (?:has been|was) lost"
      r"|(?:gpu|device) is unavailable(?! or)|nvidia-modeset: error"
      r"|nvidia\S* .{0,40}probe .{0,40}failed", "NVIDIA driver; NVML_ERROR_GPU_IS_LOST"),
    Signature("gpu_xid", Cause.GPU_FAULT,
      r"\bxid\b.{0,40}[:\s,](?:46|48|54|56|6[1-4]|74|79|92|9[45]|57|58|8[01]|109|110|119|120|122|123|13[67]|140|14[3-9]"
      r"|150"
      r"|15[4-8]|16[0178])\b",
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
      r"|cuda (?:error|failure)[: \d'\x22]*(?:contained|uncontained|unknown error|device is unavailable)"
      r"|unexpected error from cudagetdevicecount|cudaerrorunknown|cuda unknown error", _CUDA),
    Signature("launch_failure", Cause.GPU_FAULT,
      r"unspecified launch failure|cudaerrorlaunchfailure|cuda error\(719\)",
      f"{_CUDA}: 719, of a kernel or of its GPU"),
    Signature("gpu_busy", Cause.GPU_FAULT,
      r"cuda-capable device\(s\) is/are busy or unavailable|all cuda-capable devices are busy"
      r"|exclusive.thread device already in use|\bmps (?:server|client|control daemon|connection)s?\b|cudaerrormps"
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
      r"pcie bus error: .{0,40}uncorrect|surprise (?:link )?down|no aer-aware driver|\baer: .{0,60}(?:uncorrect|fatal)"
      r"|(?:poisoned tlp|completion timeout|malformed tlp|data link protocol|completer abort"
      r"|receiver overflow).{0,20}\(first\)|\baer: .{0,40}uncorrect.{0,20}fatal|pciehp.{0,60}(?:link down|not present)"
      r"|(?:gpu|nvidia|amdgpu).{0,80}(?:link is down|unable to change power state|inaccessible)",
      "linux, drivers/pci/pcie/aer.c", general=True),
)  # fmt: skip

MACHINE = (*GPU_MEMORY, *HOST_MEMORY, *GPU_FAULTS)
