"""What is said of connections: names, the hub, rendezvous, collectives; and the echoes of a peer's end.

Patterns are in lower case, and no line end is in what they match. What a server refuses with 401, 403 or 404 is not the
network's: it stands with the program's errors.
"""

from __future__ import annotations

from supervisor.policy.causes import Cause
from supervisor.policy.signatures import Signature

_HTTP = "requests, urllib3, httpx, huggingface_hub"
_NCCL = "nccl, src/transport, src/misc"
_GLOO = "gloo, transport/tcp"
_TORCH = "torch, distributed/c10d"

HUB = (
    Signature("hub_busy", Cause.NETWORK,
      r"\b(?:408|416|425|429|5\d\d) (?:client|server) error"
      r"|\bhttp(?: ?error|/\d\.\d\x22?)?:? ?(?:status )?(?:code )?(?:429|5\d\d)\b"
      r"|status(?:[ _]code)?[=: ]+(?:408|429|5\d\d)\b|too many requests"
      r"|service (?:is )?(?:temporarily )?unavailable|bad gateway|gateway time-?out|internal server error"
      r"|rate limit|overloaded|quota metric|requests per minute", _HTTP),
    Signature("hub_unreachable", Cause.NETWORK,
      r"couldn't connect to '?https?://|unable to access '?https?://|couldn't reach (?!.*offline)"
      r"|cannot reach (?:the hub|https?://)(?!.*offline)"
      r"|cannot find the requested files in the local cache. please check your connection"
      r"|an error happened while trying to locate the file|please check your (?:internet )?connection", _HTTP),
    Signature("hub_incomplete", Cause.NETWORK,
      r"consistency check failed|incompleteread|incomplete read|chunkedencodingerror"
      r"|peer closed connection without sending|file reconstruction error|xet ?download ?error"
      r"|cas (?:service|client) error|response ended prematurely", _HTTP),
    Signature("http_timeout", Cause.NETWORK,
      r"\b(?:connect|read|write|pool|request|connection)_?timeout(?:error)?\b|connect\S* timed out|read timed out"
      r"|connection to \S+ timed out|\bcurl: \(\d+\)|the (?:read|handshake) operation timed out|timeout was reached"
      r"|asyncio\S*\.timeouterror|\bfstimeouterror", _HTTP),
    Signature("http_retries", Cause.NETWORK,
      r"max retries exceeded|newconnectionerror|proxyerror|cannot connect to (?:proxy|host)", _HTTP),
    Signature("http_broken", Cause.NETWORK,
      r"remotedisconnected|error while downloading from|reqwest::|hyper::error|incompletebody"
      r"|occurred while downloading|trying to resume download|server error '5"
      r"|remote end closed connection|server disconnected|connection aborted|remoteprotocolerror"
      r"|httpx\.\w*(?:connect|read|write|network)error|aiohttp\S*\.client\w*error|protocolerror|badstatusline",
      _HTTP),
    Signature("tls", Cause.NETWORK,
      r"ssl(?:eof|zeroreturn)?error|eof occurred in violation of protocol|ssl: (?:wrong|decrypt|unexp)"
      r"|certificate_verify_failed", "CPython, ssl"),
    Signature("endpoint", Cause.NETWORK,
      r"endpointconnectionerror|could not connect to the endpoint|statuscode\.unavailable"
      r"|failed to connect to all addresses|inactiverpcerror|failed to establish a new connection", "botocore"),
    Signature("transfer", Cause.NETWORK,
      r"(?:error|fail\w*|problem|exception|unable|could ?n[o']t|cannot)\b.{0,40}\b(?:download|fetch|upload|sync)\w*"
      r"|(?:download|fetch|upload|transfer)\w*\b.{0,60}\b(?:failed|error|interrupted|incomplete"
      r"|aborted)", "various", general=True),
    Signature("git_lfs", Cause.NETWORK, r"early eof|the remote end hung up unexpectedly|rpc failed; ", "git"),
    Signature("wandb", Cause.NETWORK,
      r"wandb.{0,60}(?:network error|commerror|timed out)|error communicating with wandb", "wandb"),
)  # fmt: skip

NAMES = (
    Signature("dns", Cause.NETWORK,
      r"name resolution|name or service not known|nodename nor servname|could not resolve|failed to resolve"
      r"|nameresolution|getaddrinfo|no address associated with hostname|\bgaierror\b|temporary failure in name"
      r"|unable to resolve|name does not resolve|dns (?:error|lookup|resolution)|can't find host"
      r"|failed to lookup address|unknown host", "getaddrinfo(3)"),
    Signature("slurm_talk", Cause.NETWORK,
      r"zero bytes were transmitted|socket timed out on send|communication connection failure"
      r"|unable to contact slurm controller|message connection failure|munge (?:encode|decode)\b|\bmunged\b"
      r"|protocol authentication error|invalid (?:job|authentication) credential|job credential (?:expired"
      r"|revoked)", "slurm, src/common/slurm_errno.c"),
    Signature("slurm_busy", Cause.NETWORK,
      r"unable to create job record|backup controller in standby|controller is in standby|unable to connect to database"
      r"|message (?:send|receive) failure|(?:communication|unable to contact) .{0,40}shutdown failure"
      r"|slurmctld .{0,40}(?:down|not"
      r" respond)|slurmdbd\b.{0,60}(?:connection|unable|error)|can not be altered now, try again"
      r"|not available right now"
      r"|unexpected missing socket error|i/o stream version|slurm_receive_msgs?\b|slurm_send_\w+: ",
      "slurm, src/common/slurm_errno.c"),
    Signature("route", Cause.NETWORK,
      r"\b(?:ib|eth|bond|en[ops])\w*:? .{0,20}link .{0,30}down|\bib\d+: link down|no route to host"
      r"|network is (?:unreachable|down)|host is (?:down|unreachable)|\[errno (?:100|101|112|113)\]"
      r"|network dropped connection|machine is not on the network|software caused connection abort"
      r"|no buffer space available"
      r"|communication error on send|protocol error\b|protocol (?:family|wrong type|not available)|connectionabort\w*"
      r"|address family not supported|socket operation on non-socket|\[errno (?:64|7[01]|8[89]|9[1-7]|10[2356]"
      r"|11[45])\]"
      r"|os error (?:7[01]|9[1-9]|10[0-6]|11[0134])\b|netdev watchdog|nic link is down|link becomes? not ready"
      r"|carrier lost|cable unplugged|port module event"
      r"|ehostunreach|enetunreach", "errno(3)"),
    Signature("refused", Cause.NETWORK, r"connection ?refused|\[errno 111\]|econnrefused", "errno(3)"),
    Signature("timed_out", Cause.NETWORK, r"connection timed out|\[errno 110\]|etimedout|operation timed out",
      "errno(3)"),
    Signature("port_taken", Cause.NETWORK,
      r"address already in use|\[errno 98\]|eaddrinuse|failed to listen on|cannot assign requested address"
      r"|\[errno 99\]|port .{0,30}(?:already|is) in use", "bind(2); torch, TCPStore"),
)  # fmt: skip

MEETING = (
    Signature("rendezvous", Cause.NETWORK,
      r"rendezvous\w*(?:error|exception|timeout|retry\w*)|rendezvous .{0,60}(?:fail|closed|timed out|timeout"
      r"|error)"
      r"|node has already joined|failed to (?:join|complete) (?:the )?rendezvous",
      "torch, distributed/elastic/rendezvous"),
    Signature("store_join", Cause.NETWORK,
      r"waiting for clients|clients joined|client socket has (?:timed out|failed)(?!.*errno: 97)"
      r"|the connection to the c10d store|timed out after .{0,40}waiting for",
      f"{_TORCH}/socket.cpp, TCPStore.cpp; 97 is a warning about IPv6"),
    Signature("gloo_mesh", Cause.NETWORK, r"connectfullmesh|gloo .{0,40}connect\w* .{0,60}(?:fail|error|timed? ?out)",
      _GLOO),
    Signature("nccl_bootstrap", Cause.NETWORK,
      r"no socket interface found|bootstrap.{0,60}(?:no |fail|error|time)|socketstartconnect|socketpollconnect"
      r"|nccl_socket_ifname|call to (?:connect|bind|listen|getsockname)", _NCCL),
    Signature("infiniband", Cause.NETWORK,
      r"\bibv_\w+|\bnet/ib\b(?!.*collective mismatch).{0,120}(?:fail|error|async|got completion|unable)"
      r"|mlx\d_?\w*\b.{0,80}(?:error|completion|fatal|_err\b|link down|health compromised)|ib async event"
      r"|local qp operation|infiniband", _NCCL),
    Signature("nccl_net", Cause.NETWORK,
      r"\bnet/(?:socket|ofi|gdr|tcpx?)\b.{0,120}(?:fail|no eligible|error|timed|unable|clos)", _NCCL),
    Signature("mpi", Cause.NETWORK,
      r"ucx +error|ucp_\w+ failed|\bpmix\b.{0,60}(?:error|fail)|btl_tcp|orte_error|ofi .{0,30}fail", "UCX; Open MPI"),
)  # fmt: skip

#: A peer is gone, or says nothing: something else is the reason, here or elsewhere.
ECHOES = (
    Signature("nccl_system", Cause.NETWORK,
      r"unhandled system error|ncclsystemerror|ncclnetworkerror|ncclunhandledsystemerror", _NCCL, cascade=True),
    Signature("store_barrier", Cause.STALLED, r"waiting in store based barrier",
      f"{_TORCH}: every 10 s until all are there", cascade=True),
    Signature("nccl_watchdog_stuck", Cause.STALLED, r"watchdog.{0,20}got stuck|without making progress in monitoring",
      _TORCH, cascade=True),
    Signature("collective_timeout", Cause.NETWORK,
      r"collective operation timeout|watchdog caught collective|collective operations? have failed or timed out"
      r"|nccl operations have failed|ran for \d+ milliseconds before timing out|monitoredbarrier|heartbeatmonitor"
      r"|timed out waiting \d+ms|(?:connect timeout|timeout waiting for key)|rpc ran for more than set timeout"
      r"|application timeout caused pair closure|collective timeout|barrier timed? ?out"
      r"|timeout at nccl work|heartbeat monitor timed out", _TORCH, cascade=True),
    Signature("remote_exited", Cause.NETWORK, r"remote process exited|ncclremoteerror", _NCCL, cascade=True),
    Signature("communicator_aborted", Cause.NETWORK,
      r"communicator was aborted|ncclcommabort|nccl communicator|comm was aborted|watchdog thread terminated",
      _TORCH, cascade=True),
    Signature("peer_closed", Cause.NETWORK,
      r"connection (?:was )?(?:likely )?closed by|connection reset by|\[errno 104\]|econnreset|broken ?pipe"
      r"|\[errno 32\]|epipe|failed to recv|failed to send|recvvalue|sendbytes|connection was (?:likely )?closed"
      r"|remote server shutdown|socket ?timeout|socket closed|connectionreset|connection closed by remote"
      r"|closed by peer|should dump|stop_waiting response|got error: .{0,40}(?:reset|closed|refused)"
      r"|all workers failed to respond|interrupted system call|socket unexpectedly closed|remote peer closed"
      r"|pair is not connected"
      r"|no longer connected|lost connection|failed to (?:accept|connect/validate|create) .{0,20}socket"
      r"|backing context not fully"
      r"|server socket .{0,40}(?:failed to|cannot)", f"{_GLOO}; torch, TCPStore", cascade=True),
    Signature("gloo", Cause.NETWORK, r"gloo/transport|\bgloo\b.{0,80}(?:error|fail|timed? ?out|closed|exception)",
      _GLOO, cascade=True),
    Signature("nccl", Cause.NETWORK,
      r"\bnccl\b.{0,60}(?:error|fail)|nccl(?:internal|invalidusage|unhandledcuda)error|processgroupnccl"
      r"|distbackenderror|nccl warn|unhandled cuda error", _NCCL, cascade=True),
    Signature("store", Cause.NETWORK,
      r"dist(?:network|store)error|tcpstore\b.{0,60}(?:time|fail|error)|wait timeout after", _TORCH, cascade=True),
    Signature("agent", Cause.CRASHED,
      r"childfailederror|root cause \(first observed failure\)|sending process \d+ closing signal|signalexception"
      r"|got signal: \d+|failed \(exitcode: -?\d+\)|received \S+ death signal",
      "torch, distributed/elastic", cascade=True),
    Signature("loader_pipe", Cause.CRASHED,
      r"pin memory thread exited|resource_sharer|forkserver.{0,40}eof|eoferror: ?$",
      "torch, utils/data", cascade=True),
    Signature("mpi_abort", Cause.NETWORK, r"mpi_abort|horovod has been shut down|mpirun .{0,60}(?:noticed|detected)",
      "Open MPI; Horovod", cascade=True),
    Signature("step_aborted", Cause.CRASHED, r"job step aborted|force terminated job|terminating job step",
      "slurm, srun", cascade=True),
    Signature("timed_out_waiting", Cause.NETWORK, r"timed out\b", "various", cascade=True),
    Signature("collectives", Cause.NETWORK, r"\b(?:nccl|gloo)\b", "nccl; gloo", cascade=True),
    Signature("previous_error", Cause.CRASHED,
      r"previous error during capture|context is destroyed|driver shutting down|initialization error \(3\)",
      "CUDA", cascade=True),
)  # fmt: skip

#: The way from a person, or from another node, to this one.
TERMINALS = (
    Signature("terminal_gone", Cause.DISCONNECTED,
      r"\bsighup|\bhangup\b|(?:received|got signal:?) 1\b(?! /)|client_loop: send disconnect|packet_write_wait"
      r"|connection to (?!\S+:\d)\S+ closed(?! by peer)|lost connection to(?! node)|^write failed: broken pipe$"
      r"|timeout, server .{0,40}not responding|kex_exchange"
      r"|ssh_exchange|closed by remote host|session (?:was )?(?:closed|terminated|lost)"
      r"|received disconnect from|lost server\]|session-\w+\.scope: killing|killuserprocesses"
      r"|^\[?exited\]$|session terminated, killing|server exited unexpectedly|runtime (?:was )?disconnected"
      r"|screen is terminating"
      r"|lost tty"
      r"|reusing your session|user is not logged in|logged out|idle timeout",
      "OpenSSH; signal(7)"),
)  # fmt: skip

#: Nothing moves, says somebody who watched.
STANDSTILL = (
    Signature("no_heartbeat", Cause.STALLED,
      r"(?:no|not (?:get|send|receive)|without|missed|missing) .{0,20}heartbeat|no (?:new )?steps? (?:\w+ )?(?:in|for"
      r"|within|since) \d"
      r"|heartbeat .{0,40}(?:timeout|timed out|lost|expired)(?!.*nccl)|hang (?:was )?detected"
      r"|(?:is|are|seems?) (?:hung|hanging|stuck|stalled)|stalled (?:tensor|rank|op)|blocked for more than"
      r"|soft lockup|no progress (?:for|since|in)|waiting for remainder of ranks|detected stalls? on"
      r"|self-detected stall"
      r"|watchdog (?:was |is )?(?:triggered|expired|fired)|has not (?:incremented|advanced|progressed|moved)"
      r"|not making (?:any )?progress|no output for|inactivity timeout|deadlock(?:ed)? (?:detected|found)"
      r"|possible deadlock|heartbeat stale|did not (?:signal|report) .{0,20}within \S+s\b",
      "NVRx, rank monitor; Horovod; linux, hung_task"),
)  # fmt: skip

NETWORK = (*TERMINALS, *STANDSTILL, *HUB, *NAMES, *MEETING, *ECHOES)
