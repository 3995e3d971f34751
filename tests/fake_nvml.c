/* A driver without a GPU: as much of libnvidia-ml.so.1 as is asked for, doing what a text file says.

   The file is named by FAKE_NVML and read again at every call. A line is a word and numbers:

     gpus 2             how many there are
     init 9             what nvmlInit answers
     handle 1 15        what is answered when GPU 1 is looked up
     recovery 0 1       its recovery action
     norecovery 0 3     what is answered for that field instead
     rows 0 1 0         rows of GPU 0: pending, failed
     norows 0 3         what is answered for rows instead
     ecc 0 4            uncorrected errors of GPU 0
     noecc 0 3
     xid 0 79           GPU 0 reports this; once for each line
     event 0 16384 0    GPU 0 reports an event of this type, with this datum
     noevents 0         GPU 0 supports none
     process 0 4711 99  process 4711 holds 99 bytes of GPU 0
     hang 1             whatever is asked of GPU 1 does not come back
     hanginit           nor does nvmlInit
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OK 0
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define INSUFFICIENT_SIZE 7
#define TIMEOUT 10
#define MOST 64

typedef unsigned int uint;
typedef unsigned long long ulong64;

static long devices[MOST]; /* a handle is the address of its number */

/* The nth line that begins with a word and, unless gpu is negative, a GPU's number; how many numbers follow, or -1. */
static int line(const char *word, long gpu, int nth, long *a, long *b) {
    char text[256], found[64];
    long first = 0, second = 0, third = 0;
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    int seen = 0, result = -1;
    if (!file) return -1;
    while (fgets(text, sizeof text, file)) {
        int count = sscanf(text, "%63s %ld %ld %ld", found, &first, &second, &third);
        if (count < 1 || strcmp(found, word)) continue;
        if (gpu >= 0 && (count < 2 || first != gpu)) continue;
        if (seen++ < nth) continue;
        if (a) *a = gpu >= 0 ? second : first;
        if (b) *b = gpu >= 0 ? third : second;
        result = gpu >= 0 ? count - 2 : count - 1;
        break;
    }
    fclose(file);
    return result;
}

static long value(const char *word, long gpu, long otherwise) {
    long found = otherwise;
    return line(word, gpu, 0, &found, NULL) > 0 ? found : otherwise;
}

static void hang_if(int wanted) { while (wanted) pause(); }

static long index_of(void *handle) {
    long gpu = *(long *)handle;
    hang_if(line("hang", gpu, 0, NULL, NULL) >= 0);
    return gpu;
}

uint nvmlInitWithFlags(uint flags) {
    (void)flags;
    hang_if(line("hanginit", -1, 0, NULL, NULL) >= 0);
    return (uint)value("init", -1, OK);
}
uint nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(uint result) {
    return result == 15 ? "GPU is lost" : result == 3 ? "Not Supported" : result == 9 ? "Driver Not Loaded" : "An error";
}

uint nvmlDeviceGetCount_v2(uint *count) { *count = (uint)value("gpus", -1, 1); return OK; }

uint nvmlDeviceGetHandleByIndex_v2(uint index, void **handle) {
    if (index >= (uint)value("gpus", -1, 1) || index >= MOST) return INVALID_ARGUMENT;
    devices[index] = index;
    *handle = &devices[index];
    return (uint)value("handle", index, OK);
}
uint nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    long index;
    if (sscanf(uuid, "MIG-%ld", &index) != 1 && sscanf(uuid, "GPU-%ld", &index) != 1) return NOT_FOUND;
    return nvmlDeviceGetHandleByIndex_v2((uint)index, handle);
}
uint nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *mig, void **handle) { *handle = mig; return OK; }
uint nvmlDeviceGetIndex(void *handle, uint *index) { *index = (uint)index_of(handle); return OK; }
uint nvmlDeviceGetUUID(void *handle, char *uuid, uint length) {
    snprintf(uuid, length, "GPU-%ld-fake", index_of(handle));
    return OK;
}

struct pci { char legacy[16]; uint domain, bus, device, id, subsystem; char bus_id[32]; };
uint nvmlDeviceGetPciInfo_v3(void *handle, struct pci *info) {
    memset(info, 0, sizeof *info);
    snprintf(info->bus_id, sizeof info->bus_id, "00000000:%02lX:00.0", 0xa0 + index_of(handle));
    return OK;
}

struct field { uint id, scope; long long time, latency; uint type, result; union { uint number; ulong64 all; } value; };
uint nvmlDeviceGetFieldValues(void *handle, int count, struct field *values) {
    long gpu = index_of(handle);
    for (int i = 0; i < count; i++) {
        values[i].result = values[i].id == 230 ? (uint)value("norecovery", gpu, OK) : NOT_SUPPORTED;
        values[i].value.number = (uint)value("recovery", gpu, 0);
    }
    return OK;
}
uint nvmlDeviceGetRemappedRows(void *handle, uint *corrected, uint *uncorrected, uint *pending, uint *failed) {
    long gpu = index_of(handle), is_pending = 0, has_failed = 0;
    line("rows", gpu, 0, &is_pending, &has_failed);
    *corrected = *uncorrected = 0;
    *pending = (uint)is_pending;
    *failed = (uint)has_failed;
    return (uint)value("norows", gpu, OK);
}
uint nvmlDeviceGetTotalEccErrors(void *handle, uint kind, uint since, ulong64 *count) {
    long gpu = index_of(handle);
    if (kind != 1 || since != 0) return INVALID_ARGUMENT; /* uncorrected, volatile */
    *count = (ulong64)value("ecc", gpu, 0);
    return (uint)value("noecc", gpu, OK);
}

struct process { uint pid; ulong64 used; uint gpu_instance, compute_instance; };
uint nvmlDeviceGetComputeRunningProcesses_v3(void *handle, uint *count, struct process *found) {
    long gpu = index_of(handle), pid, used;
    uint room = *count, there = 0;
    while (line("process", gpu, (int)there, &pid, &used) >= 0) {
        if (there < room) found[there] = (struct process){(uint)pid, (ulong64)used, 0, 0};
        there++;
    }
    *count = there;
    return there > room ? INSUFFICIENT_SIZE : OK;
}

struct set { long gpu; int xids, events; };
struct event { void *device; ulong64 type, datum; uint gpu_instance, compute_instance; };
uint nvmlDeviceGetSupportedEventTypes(void *handle, ulong64 *types) {
    *types = line("noevents", index_of(handle), 0, NULL, NULL) >= 0 ? 0 : 0xd2d9;
    return OK;
}
uint nvmlEventSetCreate(void **set) {
    *set = calloc(1, sizeof(struct set));
    return OK;
}
/* What the file holds already was reported before anybody listened, and is lost, as it is with the real one. */
uint nvmlDeviceRegisterEvents(void *handle, ulong64 types, void *set) {
    struct set *own = set;
    own->gpu = index_of(handle);
    if (types & ~0xd2d9ULL) return NOT_SUPPORTED;
    while (line("xid", own->gpu, own->xids, NULL, NULL) >= 0) own->xids++;
    while (line("event", own->gpu, own->events, NULL, NULL) >= 0) own->events++;
    return OK;
}
uint nvmlEventSetWait_v2(void *set, struct event *event, uint timeout_ms) {
    struct set *own = set;
    long first, second;
    memset(event, 0, sizeof *event);
    event->device = &devices[own->gpu];
    for (uint waited = 0;; waited += 5) {
        if (line("xid", own->gpu, own->xids, &first, NULL) > 0) {
            own->xids++;
            event->type = 8;
            event->datum = (ulong64)first;
            return OK;
        }
        if (line("event", own->gpu, own->events, &first, &second) > 0) {
            own->events++;
            event->type = (ulong64)first;
            event->datum = (ulong64)second;
            return OK;
        }
        if (waited >= timeout_ms) return TIMEOUT;
        usleep(5000);
    }
}
uint nvmlEventSetFree(void *set) { free(set); return OK; }
