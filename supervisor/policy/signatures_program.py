"""What is said of a program: its input, its code, damaged files, numbers that diverge, and deaths below Python.

Patterns are in lower case, and no line end is in what they match.
"""

from __future__ import annotations

from supervisor.policy.causes import Cause
from supervisor.policy.signatures import Signature

_PY = "CPython, built-in exceptions"
_HUB = "huggingface_hub, errors.py; transformers, utils/hub.py"
_ATEN = "torch, aten and autograd"
_HF = "transformers, peft, trl, datasets"
_CUDA = "CUDA runtime API, cudaError_t"

#: Exceptions of Python whose text names nothing: raised before training began they come again.
_EARLY = (
    "typeerror|attributeerror|valueerror|keyerror|indexerror|lookuperror|assertionerror|notimplementederror|zerodivisionerror"
    "|unicodedecodeerror|unicodeencodeerror|notadirectoryerror|isadirectoryerror|fileexistserror|recursionerror|overflowerror"
)

ACCESS = (
    Signature("hub_refused", Cause.USER_ERROR,
      r"\b40[0134] client error|client error '40[0134]|\b40[134] (?:forbidden|unauthorized|not found)"
      r"|gatedrepoerror|gated repo|repositorynotfounderror|repository not found|revisionnotfounderror"
      r"|(?:remote|(?<!local))entrynotfounderror|disabledrepoerror"
      r"|is not a local folder and is not a valid model identifier|does not appear to have a file named"
      r"|invalid (?:user ?name or password|user token|credentials)"
      r"|(?:access|authori[sz]ation) to .{0,80}(?:is restricted|denied)"
      r"|you (?:must|need to) (?:be authenticated|log ?in|have access)|hfvalidationerror|repo id must"
      r"|localtokennotfound|datasetnotfounderror|dataset .{0,80}(?:doesn't exist|not found)"
      r"|is not a valid git identifier|awaiting a review",
      _HUB, says="the hub refused: the name, the token or the access is wrong", later=Cause.NETWORK),
    Signature("hub_offline", Cause.USER_ERROR,
      r"outgoing traffic has been disabled|offlinemodeisenabled|offline mode is enabled|local_files_only"
      r"|hf_hub_offline", _HUB, says="what is needed is not in the cache, and the hub may not be asked"),
    Signature("key_refused", Cause.USER_ERROR,
      r"invalidaccesskeyid|signaturedoesnotmatch|nosuchbucket|nosuchkey|expiredtoken|nocredentialserror"
      r"|accessdenied|unable to locate credentials|api_key not configured|api key must|usageerror: api_key"
      r"|\((?:403|404)\) when calling", "S3 error responses; wandb"),
    Signature("permission", Cause.USER_ERROR,
      r"permission ?(?:denied|error)|\[errno 1\]|\[errno 13\]|operation not permitted|os error 13\b",
      "errno(3)", general=True, later=Cause.STORAGE),
)  # fmt: skip

CODE = (
    Signature("not_importable", Cause.USER_ERROR,
      r"static tls block|modulenotfounderror|requires? .{0,60}installed|pip install|importerror|no module named"
      r"|cannot import name"
      r"|dll load failed|undefined symbol|not defined in file|cannot open shared object file|version `?\S+' not found"
      r"|symbol lookup error|requires the .{0,60}(?:library|package)|but it was not found in your environment"
      r"|is required for a normal functioning|packagenotfounderror|failed to import|please install"
      r"|exec format error|has an api incompatibility|numpy\.core\.multiarray failed", f"{_PY}; ld.so(8)"),
    Signature("not_python", Cause.USER_ERROR, r"\b(?:syntax|indentation|tab)error\b|invalid syntax", _PY),
    Signature("no_such_name", Cause.USER_ERROR, r"\b(?:nameerror|unboundlocalerror)\b", _PY),
    Signature("command_line", Cause.USER_ERROR,
      r"unrecognized arguments|the following arguments are required|error: argument |invalid choice: "
      r"|no such option|expected (?:one|at least one) argument|not used by the hfargumentparser|usage: \S+ "
      r"|systemexit: 2\b", "argparse, click"),
    Signature("job_refused", Cause.USER_ERROR,
      r"supervisor\.errors\.(?:job|machine)error|worldsizeerror|boardrefusederror", "supervisor"),
    Signature("no_such_program", Cause.USER_ERROR,
      r"can't (?:open file|find '__main__')|command not found|sh: (?:\d+: |line \d+: )?\S+: not found|execve\(\)"
      r"|cannot execute binary file|is not recognized as", "CPython; sh"),
    Signature("config", Cause.USER_ERROR,
      r"validationerror|input should be |\bdeepspeedconfigerror|configurationerror|configattributeerror"
      r"|missingmandatoryvalue"
      r"|(?:yaml|scanner|parser)\S*error|misconfigurationexception|hydra\S*exception"
      r"|unrecognized configuration class|unrecognized model|strictdataclass\w*error|configkeyerror"
      r"|jsondecodeerror.{0,80}config|keyerror: .{0,30}config", "pydantic, OmegaConf, PyYAML, transformers"),
    Signature("shell", Cause.USER_ERROR,
      r"\blmod\b.{0,40}error|unable to locate a modulefile|environment\w*notfound\b|could not find conda environment"
      r"|commandnotfounderror|fatal: +(?:could not open image|.{0,40}image)|pull access denied|manifest unknown"
      r"|bad interpreter"
      r"|syntax error near|unbound variable|unexpected eof while looking|required file not found"
      r"|batch script contains dos"
      r"|does not look like a batch script|unrecognized option|invalid option", "Lmod; conda; bash; docker; apptainer"),
    Signature("compiler", Cause.USER_ERROR,
      r"fatal error: \S+: no such file|undefined reference to|cannot find -l|nvcc fatal|collect2: error"
      r"|ninja: build stopped"
      r"|cmake error|subprocess-exited-with-error|(?:failed|could not|error) build\w* wheel|no matching distribution"
      r"|resolutionimpossible"
      r"|error: command .{0,80}failed|compilation terminated|static assertion failed", "gcc; nvcc; cmake; ninja; pip"),
    Signature("wrong_call", Cause.USER_ERROR,
      r"unexpected keyword argument|missing \d+ required (?:positional|keyword)"
      r"|takes (?:from )?\d+ .{0,30}positional argument|got multiple values for|takes no arguments|abstract class",
      _PY),
    Signature("wrong_object", Cause.USER_ERROR,
      r"object is not (?:callable|subscriptable|iterable)|unsupported operand type|has no attribute"
      r"|can't be used in 'await'|is not json serializable|must be (?:str|int|a |an )"
      r"|not supported between instances|could not convert string|expected str, bytes or os\.pathlike"
      r"|truth value of|boolean value of tensor|environment variable \S+ expected",
      _PY, general=True, later=Cause.CRASHED),
    Signature("build", Cause.USER_ERROR,
      r"no kernel image is available|device kernel image is invalid|nokernelimagefordevice|not compiled with cuda"
      r"|insufficientdriver|driver version is insufficient|nvidia driver on your system is too old"
      r"|found no nvidia driver|invalid device ordinal|unsupported (?:gpu|ptx|gnu|toolchain)"
      r"|only supports? (?:ampere|hopper|gpus)|doesn't support bf16|not supported on this gpu"
      r"|requires? compute capability|glibc\w* not found|cuda_?home|ninja is required|error building extension"
      r"|cublas_status_arch_mismatch|cublas api failed with status (?:7|8|15)\b|expects cuda version|no gpus found"
      r"|have .{0,40}\bbuilt[- ]in\b"
      r"|(?:not|wasn't) (?:built|compiled) with|(?:cuda|hip|xpu|gpu)\S* is not available|is_available\(\) is false"
      r"|can only be used on (?:cuda|gpu)|no (?:usable )?(?:cuda|gpu) (?:was )?found"
      r"|mismatch\w* .{0,40}cuda version|re-initialize (?:cuda|hip) in forked|device is not available"
      r"|when none is available|cuda setup failed|ninja'|ptxas(?!.*(?:signal|memory|kill))"
      r"|unsupported display driver|forward compatibility|ptx jit|detected cuda version .{0,20}mismatch"
      r"|nvidia-container-cli|driver is a stub|cuda (?:error"
      r"|failure).{0,8}shared object"
      r"|cuda error: device doesn't have valid grid license"
      r"|torch\.compile is not supported|cudnn version incompat|cuda capability sm_|not compatible with the current"
      r"|no (?:available|currently available) devices? found|invaliddevice\b"
      r"|jit load the|op due to it not being compatible|cudamismatchexception|missingcudaexception|no gpu or"
      r"|cuda binary not found"
      r"|named symbol not found|backend '?\w+'? is not available|compiled without gpu support"
      r"|cannot find a working triton|different cuda major versions|no kernel found to launch|no available kernel"
      r"|installed cuda version \S+ does not match|api call is not supported in the installed cuda driver"
      r"|requires (?:an? )?(?:\w+ )?(?:cuda|nvidia|amd|hopper|blackwell|ampere)\b|(?:cuda|gpu) is required",
      f"{_CUDA}; torch; flash-attn; bitsandbytes"),
    Signature("recomputation", Cause.USER_ERROR,
      r"utils\.checkpoint\b.{0,80}(?:different|recomput|unpack|incompatible|more tensors)"
      r"|checkpointerror: torch\.utils",
      "torch, utils/checkpoint.py: the forward pass is not the same twice"),
    Signature("no_folder", Cause.USER_ERROR, r"parent directory .{0,200}does not exist", "torch, serialization.py",
      later=Cause.STORAGE),
    Signature("world_size", Cause.USER_ERROR,
      r"dp world size of \d+ but the current|different (?:dp |data.parallel )?world.size"
      r"|world_?size .{0,60}(?:mismatch|not (?:match|support|divisible))", "DeepSpeed, zero/stage_1_and_2.py"),
    Signature("triton_resources", Cause.USER_ERROR,
      r"outofresources|out of resources?: shared memory|exceeds? (?:the )?hardware limit",
      "triton: the kernel does not fit this GPU"),
    Signature("collective_mismatch", Cause.USER_ERROR,
      r"detected mismatch between collectives|mismatch between collective|expected to have finished reduction"
      r"|expected to mark a variable ready only once|has different number of params|ncclinvalidusage"
      r"|collective mismatch|mismatched collective"
      r"|nccl warn .{0,80}(?:invalid (?:reduction|root|type|argument|config|rank|device count|usage)|argument is null"
      r"|is not a valid pointer|mismatchs? with nccl device|backwards compatible|version (?:mismatch|detected)"
      r"|too old version)"
      r"|ncclinvalidargument|duplicate gpu detected|collective mismatch|distributed collective mismatch"
      r"|process group has not been initialized|sizes .{0,40}not (?:to )?match"
      r"|ranks? (?:\S+ ){0,3}(?:has|have|is|are|use|uses|got|with|called)\b.{0,40}(?:mismatch|different (?:number"
      r"|shape|size|order|collective|operation|tensor|param))|expects same model across|invalid usage"
      r"|inconsistent (?:number of )?params",
      "torch, DDP's reducer; nccl", says="the ranks do not run the same program"),
)  # fmt: skip

SHAPES = (
    Signature("shape", Cause.USER_ERROR,
      r"shapes? cannot be multiplied|error\(s\) in loading state_dict|(?:missing|unexpected) key\(s\) in state_dict"
      r"|(?:missing|unexpected) keys? .{0,40}state_?dict|weight of size|must be a (?:\dd )?(?:matrix|tensor|vector)"
      r"|\dd (?:tensor|input)s? expected|expected \d-?d(?:imensional)? |equal size|invalid shape|\bsize\(s\)"
      r"|incompatible (?:shapes?|dimensions?|tensor)|(?<!file )size mismatch|must match the (?:size|existing size)"
      r"|is invalid for input of size|sizes of tensors must match|shape mismatch|mismatch\w* shape"
      r"|expected input .{0,60}to have \d+ channels|dimension out of range|could not broadcast"
      r"|expected .{0,60}(?:dimension|batch_size)|ignore_mismatched_sizes|shape mismatches|tensors share memory"
      r"|inconsistent tensor size"
      r"|stack expects each tensor|expand\(torch|view size is not compatible|number of dims"
      r"|must have the same (?:shape|size|length)", _ATEN),
    Signature("no_weights", Cause.USER_ERROR, r"no file named",
      "transformers, modeling_utils.py", later=Cause.STORAGE),
    Signature("index", Cause.USER_ERROR,
      r"index out of range in self|expected more than 1 value per channel|target \S+ is out of bounds"
      r"|index \d+ is out of bounds", _ATEN, general=True, later=Cause.CRASHED),
    Signature("dtype", Cause.USER_ERROR,
      r"to have the same dtype|expected scalar type|expected all tensors to be on the same device"
      r"|should be the same|same data ?type|not implemented for '|expected object of|must have the same dtype"
      r"|expected .{0,40}dtype|mat1 and mat2 must|attempting to unscale fp16|at least two devices|meta tensor"
      r"|invalid dtype", _ATEN),
    Signature("autograd", Cause.USER_ERROR,
      r"does not require grad|backward through the graph a second time|modified by an inplace operation"
      r"|leaf variable|does not have a grad_fn|optimizer got an empty parameter list|grad can be implicitly created",
      _ATEN),
    Signature("lora", Cause.USER_ERROR,
      r"target modules? .{0,200}not found|target_modules|no modules were targeted|not supported\. currently, only"
      r"|task ?type|fine-?tun\w* purely quantized|does not support training|please specify `", "peft"),
    Signature("data", Cause.USER_ERROR,
      r"num_samples should be a positive|column .{0,60}not (?:in|found)"
      r"|(?:columns?|features?) .{0,80}(?:missing|not match)|unable to create tensor|padding token|casterror"
      r"|couldn't cast|emptydataset|no (?:columns|(?:\(supported\) )?data files) |couldn't find (?:a dataset"
      r"|any data file)"
      r"|unknown split|nonmatchingsplits|(?:datafiles|splits)notfound|bad split|arrow(?:invalid|type|notimplemented"
      r"|key|index|capacity)\w*|unknown feature type"
      r"|not in the dataset|chat[_ ]template|length of .{0,40}must be"
      r"|must contain|exceeds dataset length|signature columns|trainer: training requires a train_dataset", _HF),
    Signature("dataset", Cause.USER_ERROR, r"datasetgeneration\w*error|datagenerationerror",
      _HF, general=True, later=Cause.CRASHED),
    Signature("hub_load", Cause.USER_ERROR,
      r"can't load (?:the )?(?:\w+ )?(?:tokenizer|config\w*|model|feature extractor|processor|image processor)"
      r"|unable to load vocabulary|incorrect path_or_model_id|untagged enum", _HF, general=True, later=Cause.NETWORK),
    Signature("compile", Cause.USER_ERROR,
      r"compilationerror|backendcompilerfailed|inductorerror|dynamo\.exc|torchdynamo",
      "torch, _dynamo; triton", general=True, later=Cause.CRASHED),
    Signature("template", Cause.USER_ERROR, r"templateerror|undefinederror|conversation roles",
      "jinja2", general=True, later=Cause.CRASHED),
    Signature("torch_call", Cause.USER_ERROR,
      r"can't (?:call|convert|be cast|pin|cast)|cannot (?:pin|cast|be cast)|found dtype|result type .{0,40}cast"
      r"|operation not permitted when stream|invalid device string|cuda\.device_count\(\) is"
      r"|only tensors of floating|should be either on|start a new process before"
      r"|no backend type associated"
      r"|tensors must be|is not needed when a module|with a bool tensor|doesn't have any (?:device|parameter)"
      r"|argument .{0,60}(?:is on|must be)|expects? .{0,60}but (?:got|found)|expected .{0,80}but (?:got|found)",
      _ATEN, general=True, later=Cause.CRASHED),
    Signature("requirement", Cause.USER_ERROR,
      r"^(?:\S+\.)?(?:runtimeerror|_?linalgerror|\w*exception): .{0,200}\b(?:must (?:be|have|not)|should (?:be|have"
      r"|not)"
      r"|must match|has to be|can only|only .{0,40}supported|cannot reshape|only supports?|not allowed|(?:is"
      r"|are) (?:incompatible|disabled|required|not compatible)|no longer supported"
      r"|not (?:yet )?(?:supported|implemented|configured|initiali[sz]ed|installed|callable|allow)|please (?:use|set"
      r"|specify|pass"
      r"|provide|upgrade|install|move|ensure|call)|impossible to|has already been|trying to|cannot (?:be|use|merge"
      r"|call|add|mix)"
      r"|requires? (?:a|an|the|to|at least|either|either|torch|transformers|distributed|python|initiali[sz]ed"
      r"|[ah]\d00)"
      r"|invalid (?:type|range"
      r"|problem|mode|task)|expected|non-negative|nonzero|cannot be|can't be|not supported|does not exist"
      r"|allow_unused|don't match"
      r"|doesn't match|not match|cannot get|unknown|unrecognized|undefined|unsupported)\b",
      _ATEN, general=True, later=Cause.CRASHED),
    Signature("json", Cause.USER_ERROR,
      r"jsondecodeerror|expecting (?:value|property name|',')|extra data: line|unterminated string",
      _PY, general=True, later=Cause.CRASHED),
    Signature("settings", Cause.USER_ERROR,
      r"(?:option|argument|value|parameter|strategy|optimizer|scheduler|split|key|type|mode|backend"
      r"|dtype)s? .{0,80}(?:is|are) not (?:a )?(?:valid|supported|allowed|recogni[sz]ed)|is not a valid "
      r"|invalid (?:value|literal|option)|must be (?:one of|positive|greater|less|set|in|between|divisible)"
      r"|not divisible by|should be one of|requires the|unknown (?:optimizer|scheduler|option|key)"
      r"|mutually exclusive|can't be both|cannot be (?:both|used)|you (?:must|need to|cannot|can't|have to|passed)"
      r"|trust_remote_code|load_best_model_at_end|not support(?:ed)? .{0,40}with|could only be specified"
      r"|doesn't (?:support|have)|does not (?:recogni[sz]e|support)",
      f"{_HF}; torch", general=True, later=Cause.CRASHED),
)  # fmt: skip

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
      r"|`?t >= 0 && t < n_classes",
      "torch, aten/src/ATen/native/cuda: an index of the data's is out of bounds", general=True, later=Cause.CRASHED, where="log"),
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

BARE = (
    Signature("file_missing", Cause.USER_ERROR,
      r"filenotfounderror|no such file or directory|\[errno (?:7|17|20|21|36|40)\]|file name too long|\[errno 2\]"
      r"|os error 2\b|file .{0,100}does not exist", "errno(3)", general=True, later=Cause.STORAGE),
    Signature("python", Cause.USER_ERROR, rf"^(?:\S+\.)?(?:{_EARLY})\b", _PY, general=True, later=Cause.CRASHED),
    Signature("preempted", Cause.PREEMPTED, r"\bpreempt(?:ed|ion)\b(?!-)(?!.*(?:kv cache|preemptionmode"
      r"|recompute))", "various", general=True, where="log"),
    Signature("connection", Cause.NETWORK,
      r"\b(?:http|connection|timeout|network) ?error\b|\bsocket\.timeout|urlerror", _PY, general=True),
    Signature("out_of_memory", Cause.GPU_OOM, r"out of memory", "various", general=True, where="record"),
    Signature("out_of_memory", Cause.HOST_OOM, r"out of memory", "various", general=True, where="log"),
    Signature("os_error", Cause.STORAGE, r"^(?:\S+\.)?(?:oserror|ioerror|blockingioerror)\b", _PY, general=True),
    Signature("cuda", Cause.CRASHED, r"cuda (?:error|failure)|\bcudaerror\w*|hip error|acceleratorerror|hiperror\w*",
      _CUDA, general=True),
)  # fmt: skip

PROGRAM = (*ACCESS, *CODE, *FILES, *NUMBERS, *LOGGED, *SHAPES, *DEATHS, *BARE)
