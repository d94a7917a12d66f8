/* A small libnvidia-ml.so.1 for tests: two made-up devices behind the real Python bindings.
 *
 * Variables, read at each call:
 * FAULT_<FUNCTION>=<code> makes that function return the code (3 not supported, 4 no permission, 9 driver not
 * loaded, 13 no such function, 15 device lost, 16 reset required); FAULT_DEVICE=<index> limits that to a device.
 * HANG_<FUNCTION>, while it is set, keeps that function from returning, with the lock that nvmlShutdown needs.
 * NVML_COMPUTED="pid:percent pid:percent" is what processes compute on device 0.
 * NVML_PROCESSES="pid:bytes pid:bytes" (bytes "-": not available) and NVML_GRAPHICS are device 0's. NVML_COUNT is
 * the number of devices. NVML_POWER_MW moves the energy counter, which steps every 50 ms.
 * NVML_LOG=<file> gets a line from each nvmlInit and nvmlShutdown.
 * NVML_CALL_US burns that much processor time in each call, and ten times that where processes are listed.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned gpu, memory; } utilization;
typedef struct { unsigned pid; unsigned long long used; unsigned gpu_instance, compute_instance; } process;
typedef struct { unsigned pid; unsigned long long time_us; unsigned sm, memory, encoder, decoder; } utilization_sample;

static int indices[8] = {0, 1, 2, 3, 4, 5, 6, 7};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static unsigned long long now_us(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000ull + now.tv_nsec / 1000;
}
static void take_time(const char *function) {
    char name[128];
    snprintf(name, sizeof name, "HANG_%s", function);
    if (getenv(name)) {
        pthread_mutex_lock(&lock);
        while (getenv(name)) usleep(1000);
        pthread_mutex_unlock(&lock);
    }
    const char *each = getenv("NVML_CALL_US");
    unsigned long long us = each ? atoi(each) : 0, begun = now_us(CLOCK_THREAD_CPUTIME_ID);
    if (strstr(function, "RunningProcesses")) us *= 10;
    while (us && now_us(CLOCK_THREAD_CPUTIME_ID) - begun < us) ;
}
static int fault(const char *function, const void *device) {
    take_time(function);
    char name[128];
    snprintf(name, sizeof name, "FAULT_%s", function);
    const char *code = getenv(name), *only = getenv("FAULT_DEVICE");
    if (device && only && atoi(only) != *(const int *)device) return 0;
    return code ? atoi(code) : 0;
}
#define FAULT(device) do { int code = fault(__func__, device); if (code) return code; } while (0)

static void say(const char *what) {
    const char *name = getenv("NVML_LOG");
    FILE *log = name ? fopen(name, "a") : NULL;
    if (log) {
        fprintf(log, "%s\n", what);
        fclose(log);
    }
}
int nvmlInitWithFlags(unsigned flags) { (void)flags; say("init"); FAULT(NULL); return 0; }
int nvmlShutdown(void) {
    pthread_mutex_lock(&lock);
    pthread_mutex_unlock(&lock);
    say("shutdown");
    FAULT(NULL);
    return 0;
}
const char *nvmlErrorString(int code) {
    return code == 3 ? "Not Supported" : code == 4 ? "Insufficient Permissions" : code == 9 ? "Driver Not Loaded"
         : code == 13 ? "Function Not Found" : code == 15 ? "GPU is lost" : code == 16 ? "GPU requires restart"
         : "Unknown Error";
}
int nvmlSystemGetDriverVersion(char *text, unsigned size) { FAULT(NULL); snprintf(text, size, "575.57.08"); return 0; }
int nvmlSystemGetCudaDriverVersion(int *version) { FAULT(NULL); *version = 12090; return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) {
    FAULT(NULL);
    *count = getenv("NVML_COUNT") ? atoi(getenv("NVML_COUNT")) : 2;
    return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = &indices[index];
    FAULT(*device);
    return 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned size) {
    FAULT(device);
    snprintf(text, size, "Test GPU %d", *(int *)device);
    return 0;
}
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
    FAULT(device);
    snprintf(text, size, "GPU-0000-%d", *(int *)device);
    return 0;
}
int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2 *memory) {
    FAULT(device);
    if (memory->version != 0x02000028) return 25;
    memory->total = 80ull << 30;
    memory->reserved = 1ull << 30;
    memory->used = getenv("NVML_USED") ? strtoull(getenv("NVML_USED"), NULL, 10) : (5ull + *(int *)device) << 30;
    memory->free = memory->total - memory->reserved - memory->used;
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *device, utilization *rates) {
    FAULT(device);
    rates->gpu = 87;
    rates->memory = 41;
    return 0;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { FAULT(device); *milliwatts = 312500; return 0; }
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *milliwatts) { FAULT(device); *milliwatts = 700000; return 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
    FAULT(device);
    const char *power = getenv("NVML_POWER_MW");
    unsigned long long steps = now_us(CLOCK_MONOTONIC) / 50000;
    *millijoules = 5000000000ull; /* does not fit into 32 bits */
    if (power) *millijoules += steps * atoi(power) / 20;
    return 0;
}
int nvmlDeviceGetTemperature(void *device, unsigned sensor, unsigned *celsius) {
    FAULT(device);
    if (sensor != 0) return 2;
    *celsius = 64;
    return 0;
}
int nvmlDeviceGetClockInfo(void *device, unsigned type, unsigned *mhz) { FAULT(device); *mhz = type == 1 ? 1755 : type == 2 ? 2619 : 0; return 0; }
int nvmlDeviceGetMaxClockInfo(void *device, unsigned type, unsigned *mhz) { FAULT(device); *mhz = type == 1 ? 1980 : type == 2 ? 2619 : 0; return 0; }
int nvmlDeviceGetMemoryBusWidth(void *device, unsigned *bits) { FAULT(device); *bits = 5120; return 0; }
int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *reasons) { FAULT(device); *reasons = 0x44; return 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) { FAULT(device); *reasons = 0x20; return 0; }
int nvmlDeviceGetTotalEccErrors(void *device, unsigned type, unsigned counter, unsigned long long *errors) {
    FAULT(device);
    if (type != 1 || counter != 0) return 2; /* asked for: uncorrected, volatile */
    *errors = 3;
    return 0;
}
int nvmlDeviceGetEccMode(void *device, unsigned *now, unsigned *pending) { FAULT(device); *now = 1; *pending = 0; return 0; }
int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *pending) {
    FAULT(device);
    *now = *pending = getenv("NVML_MIG") != NULL;
    return 0;
}
int nvmlDeviceGetCurrPcieLinkGeneration(void *device, unsigned *generation) { FAULT(device); *generation = 4; return 0; }
int nvmlDeviceGetMaxPcieLinkGeneration(void *device, unsigned *generation) { FAULT(device); *generation = 5; return 0; }
int nvmlDeviceGetCurrPcieLinkWidth(void *device, unsigned *width) { FAULT(device); *width = 8; return 0; }
int nvmlDeviceGetMaxPcieLinkWidth(void *device, unsigned *width) { FAULT(device); *width = 16; return 0; }
int nvmlDeviceGetPcieReplayCounter(void *device, unsigned *replays) { FAULT(device); *replays = 7; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) { FAULT(device); *major = 9; *minor = 0; return 0; }
static int fill(const char *list, unsigned *count, process *processes) {
    char copy[1024];
    unsigned found = 0, room = processes ? *count : 0;
    snprintf(copy, sizeof copy, "%s", list ? list : "");
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "), found++) {
        if (found >= room) continue;
        const char *bytes = strchr(word, ':') + 1;
        memset(&processes[found], 0, sizeof *processes);
        processes[found].pid = atoi(word);
        processes[found].used = *bytes == '-' ? ~0ull : strtoull(bytes, NULL, 10);
    }
    *count = found;
    return found > room ? 7 : 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process *processes) {
    FAULT(device);
    return fill(*(int *)device == 0 ? getenv("NVML_PROCESSES") : NULL, count, processes);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *device, unsigned *count, process *processes) {
    FAULT(device);
    return fill(*(int *)device == 0 ? getenv("NVML_GRAPHICS") : NULL, count, processes);
}
int nvmlDeviceGetProcessUtilization(void *device, utilization_sample *samples, unsigned *count, unsigned long long since) {
    FAULT(device);
    (void)since;
    char copy[1024];
    unsigned found = 0, room = samples ? *count : 0;
    const char *list = *(int *)device == 0 ? getenv("NVML_COMPUTED") : NULL;
    snprintf(copy, sizeof copy, "%s", list ? list : "");
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "), found++) {
        if (found >= room) continue;
        memset(&samples[found], 0, sizeof *samples);
        samples[found].pid = atoi(word);
        samples[found].time_us = now_us(CLOCK_REALTIME);
        samples[found].sm = atoi(strchr(word, ':') + 1);
    }
    *count = found;
    return found == 0 ? 6 : found > room ? 7 : 0;
}
