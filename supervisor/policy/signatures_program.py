"""What is said of a program: its input, its code, its settings and its shapes; last, what an exception is called.

Patterns are in lower case, and no line end is in what they match.
"""

from __future__ import annotations

from supervisor.policy.causes import Cause
from supervisor.policy.signatures import Signature
from supervisor.policy.signatures_ends import DEATHS, FILES, LOGGED, NUMBERS

_PY = "CPython, built-in exceptions"
_HUB = "huggingface_hub, errors.py; transformers, utils/hub.py"
_ATEN = "torch, aten and autograd"
_HF = "transformers, peft, trl, datasets"
_CUDA = "CUDA runtime API, cudaError_t"

#: Exceptions of Python whose text names nothing: raised before training began they come again.
_EARLY = (
    "typeerror|attributeerror|valueerror|keyerror|indexerror|lookuperror|assertionerror|notimplementederror"
    "|zerodivisionerror|unicodedecodeerror|unicodeencodeerror"
    "|notadirectoryerror|isadirectoryerror|fileexistserror|recursionerror|overflowerror"
)

ACCESS = (
    Signature("hub_refused", Cause.USER_ERROR,
      r"\b40[0134] client error|client error '40[0134]|\b40[134] (?:forbidden|unauthorized|not found)"
      r"|gatedrepoerror|gated repo|repositorynotfounderror|repository not found|revisionnotfounderror"
      r"|(?:remote|(?<!local))entrynotfounderror|disabledrepoerror"
      r"|is not a local folder and is not a valid model identifier|does not appear to have a file named"
      r"|invalid (?:user ?name or password|user token|credentials)"
      r"|(?:access|authori[sz]ation) to .{0,80}(?:is restricted|denied)|do(?:es)? not have permission to"
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
      r"|cannot execute binary file|is not recognized as|不是内部或外部命令", "CPython; sh; cmd.exe"),
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
      r"|allow_unused|don't match|no .{1,60}(?:provided|given|specified|passed)"
      r"|could not find .{0,60}(?:key|token|column|template|layer|module|field|label)s?"
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
