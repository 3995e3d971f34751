"""How programs end: with damaged files, with numbers that diverge, and with deaths below Python.

Patterns are in lower case, and no line end is in what they match.
"""

from __future__ import annotations

from supervisor.policy.causes import Cause
from supervisor.policy.signatures import Signature

_PY = "CPython, built-in exceptions"
_CUDA = "CUDA runtime API, cudaError_t"

FILES = (
    Signature("safetensors_torn", Cause.BAD_CHECKPOINT,
      r"headertoo(?:large|small)|invalidheader\w*|metadataincompletebuffer|(?:incomplete|invalid) metadata"
      r"|tensorinvalidinfo|header too (?:large|small)|file not fully covered|invalidoffset"
      r"|error while deserializing", "safetensors, src/tensor.rs", later=Cause.STORAGE),
    Signature("no_such_device", Cause.USER_ERROR, r"device \S+ is invalid\b", "safetensors, bindings"),
    Signature("safetensors", Cause.BAD_CHECKPOINT, r"safetensorerror",
      "safetensors", general=True, later=Cause.STORAGE),
    Signature("zip_torn", Cause.BAD_CHECKPOINT,
      r"central directory|failed (?:reading|locating) (?:zip|file)"
      r"|(?:header|archive|file) .{0,30}(?:is|may be|might be) corrupt\w*|badzipfile|not a zip file|hasrecord"
      r"|incorrect header check|compressed file ended before|not in a subdirectory|not a gzipped file"
      r"|corrupt (?:input|file|data)|bad crc"
      r"|truncated (?:file|archive|data)|file signature not found|magic bytes not found|unexpected eof[,;]"
      r"|bad magic number|inline_container\.cc.{0,40}\bcrc|invalid magic|zip file is corrupt",
      "torch, caffe2/serialize/inline_container.cc", later=Cause.STORAGE),
    Signature("pickle_torn", Cause.BAD_CHECKPOINT,
      r"unpicklingerror|pickle data was truncated|invalid load key|ran out of input|weights only load failed"
      r"|storage has wrong (?:byte )?size", "CPython, pickle; torch.load", later=Cause.STORAGE),
    Signature("checkpoint_torn", Cause.BAD_CHECKPOINT,
      r"can't find a valid checkpoint|\bckpt_list\b|(?:keys?|keyerror|entries) .{0,40}(?:in|loading|from"
      r"|read) (?:the )?checkpoint|no checkpoints? (?:was |were )?found|missing key in checkpoint"
      r"|unable to find latest file"
      r"|checkpoint(?!ing)(?!.*(?:timed out|timeout|connection))\S* .{0,120}(?:corrupt|incomplete|invalid"
      r"|damaged|truncated|missing|not (?:a )?valid"
      r"|does not exist|not found)|(?:corrupt|incomplete|damaged|truncated|invalid)\w* .{0,40}checkpoint"
      r"|trainer_state\.json|no valid checkpoint|unable to load .{0,60}from checkpoint|unable to load weights from"
      r"|(?:optimizer|rng_state\S*|scheduler)\.(?:pt|bin|pth)|loaded state dict (?:contains|has)"
      r"|parameter group that doesn't match|checksum|hash mismatch|metadata .{0,20}missing|\.metadata'"
      r"|checkpointexception|checkpoint_\w*error",
      "transformers, trainer.py; torch, optim and nn.Module", later=Cause.STORAGE),
)  # fmt: skip

NUMBERS = (
    Signature("not_finite", Cause.DIVERGED,
      r"\b(?:loss|grad\w*|norm|logits?|activation|weights?|parameter|value|output|input|tensor|probabilit\w+"
      r"|metric)s?\b(?!['\x22]? ?[:=]).{0,100}(?:\b(?:nan|infs?|-inf|infinit\w+|non-?finite)\b|not finite)"
      r"|\bnan\b.{0,40}(?:stop|exit|abort|terminat|not finite)|found invalid values|float (?:nan|infinity)"
      r"|contains? (?:nan|inf)|non-?finite values"
      r"|\b(?:nan|infs?|non-?finite)s?\b.{0,80}\b(?:loss|grad\w*|norm|logit|weight|parameter|values?|encountered"
      r"|detected|found|elements?|output)|nanerror|nan(?:s)? or inf|returned nan values",
      "torch, autograd anomaly mode, clip_grad_norm_, multinomial; NeMo; Megatron"),
    Signature("loss_scale", Cause.DIVERGED,
      r"loss scale (?:already at|.{0,40}minimum)|minimum loss scale"
      r"|loss scaler? .{0,40}(?:too small|floor|to 0(?:\.0*)?$)|gradient overflow.{0,40}(?:exit|abort)"
      r"|reducing (?:loss scale )?to (?:0(?:\.0*)?$|\d\S*e-\d\d)|attempted loss scale: 1(?:\.0)?,"
      r"|loss (?:is )?(?:exploding|diverg\w+)|(?:model|training) (?:has )?diverged", "DeepSpeed, fairseq"),
)  # fmt: skip

#: A healthy program with a scaler prints such lines too: they say something only where nothing else does.
LOGGED = (
    Signature("nan_logged", Cause.DIVERGED, r"\b\w*(?:loss|norm|ppl|perplexity|\bkl"
      r"|entropy)\w*['\x22]?\s?[:=]\s?['\x22]?(?:nan"
      r"|-?inf)\b",
      "transformers, trainer.py; mmengine; verl", cascade=True, where="log"),
)  # fmt: skip

DEATHS = (
    Signature("illegal_access", Cause.CRASHED,
      r"illegal (?:memory access|address|instruction)|misaligned address|invalid program counter"
      r"|invalid device (?:function|pointer)|memory access fault by gpu|illegaladdress|page not present"
      r"|invalid global (?:read|write)|lane user stack overflow", _CUDA),
    Signature("kernel_assert", Cause.USER_ERROR,
      r"\.cuh?:\d+: .{0,200}(?:block: \[|assertion)|\.cu:\d+.{0,80}assertion|srcindex < srcselect"
      r"|`?t >= 0 && t < n_classes|block: \[\d+,\d+,\d+\], thread: \[.{0,20}\] assertion `",
      "torch, aten/src/ATen/native/cuda: an index of the data's is out of bounds",
      general=True, later=Cause.CRASHED, where="log"),
    Signature("device_assert", Cause.CRASHED,
      r"device-?side assert|indexing\.cu(?!.*block: \[)|^(?!.*block: \[).*assertion `.{0,120}` failed"
      r"|cudaerrorassert", _CUDA),
    Signature("launch_timeout", Cause.CRASHED,
      r"launch (?:failure|timed out)|an internal error|cuda error: (?:invalid argument|initialization)", _CUDA),
    Signature("blas_asked", Cause.USER_ERROR,
      r"(?:cublas|cudnn|cusparse|cusolver|hipblas|rocblas)_status_(?:not_supported|invalid_value|bad_param\w*"
      r"|arch_mismatch)",
      "cuBLAS, cuDNN: what was asked for cannot be had", later=Cause.CRASHED),
    Signature("blas", Cause.CRASHED,
      r"(?:cublas|cudnn|cusolver|cusparse|cufft|rocblas|miopen|hipblas)_?(?:status_)?\w*(?:error|failed|failure"
      r"|initialized|value|supported|mismatch)", "cuBLAS, cuDNN"),
    Signature("loader_timeout", Cause.STALLED,
      r"data ?load\w*\b.{0,30}timed out|worker timed out|pin memory .{0,30}timed out",
      "torch, utils/data/dataloader.py"),
    Signature("threads", Cause.HOST_OOM,
      r"can't start new thread|pthread_create\b.{0,40}fail|blas_thread_init"
      r"|what\(\):  ?resource temporarily unavailable"
      r"|fork: (?:retry: )?(?:resource temporarily|cannot allocate)|thread .{0,20}(?:creation|create) failed"
      r"|failed to create .{0,10}thread",
      "pthread_create(3), fork(2): EAGAIN"),
    Signature("segfault", Cause.CRASHED,
      r"segmentation fault|\bsegfault\b|\bsigsegv\b|signal 11\b|double free|free\(\): |malloc\(\): "
      r"|corrupted (?:size|double-linked|unsorted)|munmap_chunk|corrupted top size|stack smashing|realloc\(\): "
      r"|invalid next size|general protection|exit(?:code| code)? ?:? ?-?139?\b",
      "glibc, malloc.c; faulthandler", general=True),
    Signature("bus_error", Cause.CRASHED, r"(?<!pcie )\bbus error\b|\bsigbus\b", "sigaction(2)", general=True),
    Signature("abort", Cause.CRASHED,
      r"terminate called|fatal python error|\bsigabrt\b|core dumped|\baborted(?: \(core dumped\))?$"
      r"|pure virtual method|what\(\): |panicked at|illegal instruction|\bsigill\b|\bsigfpe\b"
      r"|floating point exception|internal assert failed", "libstdc++; CPython; Rust", general=True),
    Signature("interrupted", Cause.USER_STOP,
      r"keyboardinterrupt|^\^c|(?:ctrl|control)[-+ ]?c\b.{0,20}(?:press|detect|receiv|caught)|(?:received"
      r"|got signal:?) (?:signals\.)?(?:2|sigint)\b|\^c\b|\^cterminat"
      r"|(?:on|at) user request|\bsigint\b|interrupted by (?:the )?user|cancell?ed by (?:the )?user"
      r"|stopped by (?:the )?user"
      r"|interrupt \(one more within|sending ctrl-c to|user[- ](?:requested|initiated) (?:stop|abort|cancel|shut)",
      _PY, general=True),
    Signature("trained", Cause.FINISHED,
      r"\bfit` stopped: .{0,40}reached|training (?:is )?(?:completed|complete|finished|done)\b|\bdone training\b"
      r"|'train_runtime'|\*+ train metrics|jobstate=completed|max\S* (?:training )?(?:steps|epochs)\S* .{0,20}reached"
      r"|waiting for w&b process to finish.{0,10}\(success",
      "transformers; Lightning; wandb", general=True, where="log"),
    Signature("xid", Cause.CRASHED, r"\bxid\b.{0,40}[:\s,]\d+\b",
      "NVIDIA, Xid catalogue: restart the application", general=True),
    Signature("killed", Cause.HOST_OOM,
      r"\bsigkill\b|\bkilled\b|signal 9\b|exitcode ?: -9|exit code 137|return(?:ed|s)?(?: code)? ?=? ?-9\b",
      "signal(7): who does not say who killed is most often the kernel, for memory", general=True),
    Signature("resources", Cause.CRASHED,
      r"too many open files|\[errno 2[34]\]|resource temporarily unavailable|\[errno 11\]|received 0 items of ancdata",
      "errno(3)", general=True),
)  # fmt: skip
