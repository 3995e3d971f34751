"""What an exception's name tells where its text tells nothing: whose it is, and so whose fault it may be.

The weakest rows. A name is taken for an error of the user's only where no word of the text is of the world outside the
program: of a device, another process, a connection, memory or a disk. A bare RuntimeError, and an exception that the
script itself has made, tell nothing: such an end is tried again, and a run ends when the same comes twice.
"""

from __future__ import annotations

from supervisor.policy.causes import Cause
from supervisor.policy.signatures import Signature

#: A rank's or a task's label before a line of its log: torchrun's, srun's `-l`, a logger's.
_LABEL = r"^(?:\[?(?:rank ?)?\d+\]?: ?)?"
#: Words of the world outside the program; of what nobody expected; and of the kernel's errors.
_OUTSIDE = (
    r"cuda|cudnn|cublas|\bhip|rocm|\bnccl|\bgloo|\bgpu|nvml|\bdriver|\becc\b|triton|ptxas|\bworker"
    r"|\bprocess(?:es)?\b(?! ?group)"
    r"|subprocess|\bthread|\bpid\b|\bsignal|\bkilled|\bdied|\bdead|\bexit|\babort|crash|terminated|time(?:d )? ?out"
    r"|connect"
    r"|\bsocket|network|\bserver|\bremote|\bpeer|\bhosts?\b|\bport\b|https?:|\burl\b|request|respon|download|upload"
    r"|retr(?:y|ies)"
    r"|unavailable|unreachable|\bbusy\b|temporar|\bbroken|\breset|closed|memory(?![ _](?:format|efficient))|alloc"
    r"|\boom\b|\bresource"
    r"|\bi/o\b|\bread(?:ing)?\b|\bwrit(?:e|ing|ten)\b|\bdisk|\bstream|\bmmap|\bopen(?:ing)?\b|\block(?:ed)?\b|\bseek"
    r"|errno"
    r"|os error|internal (?:assert|error)|unknown error|unexpected error|unexpectedly|system error|fatal|corrupt"
    r"|enforce fail"
    r"|\bnan\b|\binf\b|shutdown|shut down|interrupt|stopped|cancel|supervisor|ray\."
)

#: What a name says that its owner never chose for anything else.
NAMED = (
    Signature("nvml_asked", Cause.USER_ERROR,
      r"nvmlerror_?(?:invalid_?argument|not_?supported|no_?permission|library_?not_?found|function_?not_?found)",
      "nvml.h: what was asked for, not the GPU", later=Cause.CRASHED),
    Signature("agent_without_result", Cause.CRASHED, r"has no attribute 'is_failed'",
      "torch, distributed/launcher/api.py: the agent was stopped before it had a result"),
    Signature("tool_failed", Cause.USER_ERROR,
      r"calledprocesserror: command .{0,20}[\[\x22'](?:\S*/)?(?:which|ninja|nvcc|g\+\+|gcc|c\+\+|cc|cmake|make|pip|git"
      r"|ldconfig)\b",
      "CPython, subprocess: of a compiler or an installer", later=Cause.CRASHED),
    Signature("gpu_tool_failed", Cause.GPU_FAULT,
      r"calledprocesserror: command .{0,40}(?:nvidia-smi|rocm-smi|rocminfo)|nvidia-smi.{0,80}non-zero exit",
      "CPython, subprocess: of the driver's own tool"),
)  # fmt: skip

#: HTTP's own numbers, however a library spells them: RFC 9110, section 15.
STATUS = (
    Signature("http_refused", Cause.USER_ERROR,
      r"(?:\bhttp\b[ /\d.]{0,5}|http ?error|status(?:[ _]code)?|response|returned(?: http)?)[\s:=\[(<]{1,3}"
      r"(?:40[0-6]|41[0134579]|42[26]|431|451)\b|\b(?:40[0-6]|41[01345]|422|451)(?: client error|, message=)"
      r"|\b(?:401 unauthorized|402 payment required|403 forbidden|404 not found|410 gone|422 unprocessable)",
      "RFC 9110, 15.5: what was asked for will not be given", later=Cause.NETWORK),
)  # fmt: skip

#: Who raised it.
OWNERS = (
    Signature("nvml", Cause.GPU_FAULT, r"\bnvmlerror\w*|nvml_error_\w+", "nvml.h", general=True),
    Signature("of_connections", Cause.NETWORK,
      _LABEL + r"(?:requests|urllib3?|httpx\d?|httpcore\d?|http\.client|aiohttp|botocore|boto3|s3transfer|grpc"
      r"|google\.(?:api_core"
      r"|auth|cloud|resumable_media)|azure|websockets?|paramiko|gcsfs|s3fs|adlfs|obstore|hf_xet|socket|ssl|wandb"
      r"|mlflow|comet_ml"
      r"|clearml|neptune|redis|etcd3?|zmq|asyncssh)\.[\w.]*(?::|$)|\bhuggingface_hub\S*\.(?:hfhubhttperror"
      r"|\w*timeout\w*"
      r"|filemetadataerror|localentrynotfounderror)\b", "whose business is connections", general=True),
    Signature("named_for_connections", Cause.NETWORK,
      _LABEL + r"(?:[\w]+\.)*\w*(?:connect(?:ion)?|network|transport|http|protocol|unavailable|ratelimit\w*|throttl\w*"
      r"|gateway"
      r"|disconnected|unreachable|retry\w*)(?:error|exception|failed|failure)\b", "by its name", general=True),
    Signature("of_archives", Cause.BAD_CHECKPOINT,
      _LABEL + r"(?:_?pickle|zipfile|zlib|_?lzma|gzip|bz2|tarfile|struct|binascii|safetensors|zstandard|lz4"
      r"|msgpack)\S*:",
      "what cannot be unpacked is damaged", general=True, later=Cause.STORAGE),
    Signature("named_for_damage", Cause.BAD_CHECKPOINT,
      _LABEL + r"(?:[\w]+\.)*\w*(?:corrupt|truncat|checksum|unpickl|deserializ|dataloss)\w*(?:error|exception)\b",
      "by its name", general=True, later=Cause.STORAGE),
    Signature("of_databases", Cause.STORAGE, _LABEL + r"(?:sqlite3|lmdb|h5py"
      r"|filelock)\S*:", "files under locks", general=True),
    Signature("of_neighbours", Cause.CRASHED,
      r"processexitedexception|brokenprocesspool|processraisedexception|calledprocesserror|workercrashed|rayactorerror"
      r"|raytaskerror",
      "another process ended", general=True),
    Signature("of_settings", Cause.USER_ERROR,
      _LABEL + r"(?:pydantic\w*|omegaconf|hydra|jinja2|yaml|jsonschema|click|typer|argparse|tomli?\w*|configparser"
      r"|jsonargparse"
      r"|tyro|fire|draccus|absl|marshmallow|cerberus|voluptuous|antlr4|lark|pyparsing)\S*:",
      "whose business is settings", general=True, later=Cause.CRASHED),
    Signature("asked_of_torch", Cause.USER_ERROR,
      r"numpy is not available|could not infer dtype of|invalid process group specified",
      "torch: what the caller asked for", later=Cause.CRASHED),
    Signature("of_the_program", Cause.USER_ERROR,
      _LABEL + rf"(?!(?:builtins\.)?\w*warning\b)(?:(?:builtins\.)?(?:arithmeticerror|referenceerror|buffererror"
      rf"|unicodeerror)|(?!builtins\.|__main__\.)(?:[a-z_]\w*\.)+\w+): (?![\s\S]*(?:{_OUTSIDE}))",
      "torch, transformers, accelerate, peft, trl, datasets: each message of an error of their own, read",
      general=True, later=Cause.CRASHED, where="record", bare=True),
    Signature("of_the_program", Cause.USER_ERROR,
      _LABEL + rf"(?:[a-z_]\w*\.)*[a-z]\w*(?:error|exception): (?!.*(?:{_OUTSIDE}))",
      "the last line of a traceback", general=True, later=Cause.CRASHED, where="log", bare=True),
)  # fmt: skip

TYPES = (*NAMED, *OWNERS)
