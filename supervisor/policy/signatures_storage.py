"""What is said of disks and file systems, by libc's words, by its numbers, and by the kernel's log.

Patterns are in lower case, and no line end is in what they match.
"""

from __future__ import annotations

from supervisor.policy.causes import Cause
from supervisor.policy.signatures import Signature

_ERRNO = "errno(3)"

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
      r"input/output error|(?<!cas service error : )\bi/o error|\[errno 5\]|os error 5\b|remote i/o error"
      r"|\[errno 121\]|\beio\b|errno ?= ?5\b"
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
      r"|blk_update_request|remounting filesystem read-only|unexpected end of file system|bad superblock|bad block",
      f"{_ERRNO}; kernel log"),
    Signature("fs_log", Cause.STORAGE,
      r"\b(?:ext[234](?:-fs)?|jbd2|xfs|btrfs|f2fs|gfs2|ocfs2|zfs|zpool|overlayfs|squashfs|fuse|fat-fs)\b.{0,100}"
      r"(?:error|corrupt|shut(?:ting)? ?down|abort|critical|unrecover|degraded|faulted)",
      "linux, fs/*: each file system's own words"),
    Signature("disk_log", Cause.STORAGE,
      r"\b(?:nvme\d?\S*|sd[a-z]+\d*|vd[a-z]+\d*|dm-\d+|md\d+|mmcblk\S*|scsi|sas|iscsi|multipathd?|mpath\w*"
      r"|raid\d*)\b.{0,100}"
      r"(?:timeout|abort|is down|reset|error|fail(?!over is)|offline|lost|unable|faulty|dead)"
      r"|\bata\d+(?:\.\d+)?: .{0,60}(?:failed|exception|error|hard resetting)|sense key|medium error"
      r"|critical (?:medium|target|space allocation) error|lost async page write",
      "linux, drivers/{nvme,scsi,ata,md,block}"),
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
      r"|lustreerror|\b(?:lnet\w*|ptlrpc\w*|o2iblnd\w*|ksocklnd|osc|mdc|ldlm\w*)\b.{0,160}(?:timed out|error|fail|lost"
      r"|evict|down)"
      r"|\bu?mount(?:\.\w+)?: .{0,120}(?:timed out|not respond|refused|no route|unreachable|fail|no such device"
      r"|special device)"
      r"|\b(?:ls|cp|mv|df|stat|cat|cd|du|rm|tar|rsync|mkdir|touch|ln|dd|chmod|find): .{0,120}(?:timed out|host is down"
      r"|communication error|unknown error|no such device|stale)|gpfs.{0,60}(?:unmount|panic|stale)"
      r"|ceph.{0,60}(?:session lost|timed out|hung|evicted)"
      r"|libceph: .{0,60}(?:down|closed|error)|\b(?:beegfs|gpfs|mmfs\w*|lustre|ceph|cephfs|weka\w*|glusterfs|orangefs"
      r"|pvfs2|daos|afs|cifs|smb\d?|efs|gcsfuse"
      r"|s3fs"
      r"|juicefs|vastnfs|autofs|automount|9p)\b.{0,100}(?:error|fail|timed out|timeout|unreachable|not respond|lost"
      r"|unmount"
      r"|reconnect|hung|unavailable)|nfs4?_\w+: .{0,60}(?:fail|error)|nfs: state manager|lost mount"
      r"|mount .{0,80}failed",
      "kernel log; each parallel file system's own words"),
    Signature("fs_words", Cause.STORAGE,
      r"bad file descriptor|file descriptor in bad state|multihop attempted|device or resource busy|text file busy"
      r"|bad address\b|timer expired|no such device\b"
      r"|illegal seek"
      r"|value too large for defined data type|directory not empty|function not implemented|no medium found"
      r"|wrong medium type"
      r"|link has been severed|object is remote|bad message\b|invalid cross-device link|media error|too many links"
      r"|invalid or incomplete multibyte|state not recoverable|owner died|numerical result out of range"
      r"|slurmd could not (?:create|chown|chmod)|could not open output file|os error (?:9|14|16|18|26|29|34|39|62|67"
      r"|7[2-8])\b",
      "strerror(3): what is said of a file and of nothing a program asks for", general=True),
    Signature("fs_lock_wait", Cause.STORAGE, r"\block \S+ not acquired on",
      "filelock: a healthy program waits, too", cascade=True),
    Signature("fs_calls", Cause.STORAGE,
      r"\b(?:fsync|fdatasync|fflush|fwrite|pwrite|ftruncate|truncate|rename|unlink|lseek|fclose"
      r"|close)\b(?:\(.{0,80}\))? ?:? ?.{0,20}"
      r"\b(?:fail|error)|failed to (?:flush|fsync)\b",
      "what libc's calls are called", general=True),
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
