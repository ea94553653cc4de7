/* The CUDA driver as far as agents/gpu/load.py calls it, with the prototypes of cuda.h: wrong arguments are refused.
   It has 3 GiB free in pieces of at most 512 MiB. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static void *const CONTEXT = (void *)0x7fff12345678, *const MODULE = (void *)0x7fffaabbcc00, *const KERNEL = (void *)0x7fffaabbcc08;
static size_t left = (size_t)3 << 30;
static int launches, processors = 132;

int cuInit(unsigned flags) { return flags ? 1 : 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 7; return ordinal ? 101 : 0; }
int cuCtxCreate_v2(void **context, unsigned flags, int device) { *context = CONTEXT; return flags == 4 && device == 7 ? 0 : 1; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = left; *total = (size_t)141 << 30; return 0; }
int cuMemAlloc_v2(uint64_t *pointer, size_t size) {
    if (size > (size_t)512 << 20 || size > left) return 2;
    *pointer = 0x7f0000000000 + left;
    left -= size;
    fprintf(stderr, "alloc %llx\n", (unsigned long long)*pointer);
    return 0;
}
int cuMemFree_v2(uint64_t pointer) { fprintf(stderr, "free %llx\n", (unsigned long long)pointer); return 0; }
int cuModuleLoadData(void **module, const void *text) { *module = MODULE; return strstr(text, ".entry burn(") ? 0 : 218; }
int cuModuleGetFunction(void **kernel, void *module, const char *name) {
    *kernel = KERNEL;
    return module == MODULE && !strcmp(name, "burn") ? 0 : 500;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = processors; return attribute == 16 && device == 7 ? 0 : 1; }
int cuLaunchKernel(void *kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra) {
    int right = kernel == KERNEL && gx == processors * 8 && gy == 1 && gz == 1 && bx == 256 && by == 1 && bz == 1;
    if (!right || shared || stream || extra || *(uint64_t *)parameters[0] != 4000000) return 1;
    if (!launches++) fprintf(stderr, "launched\n");
    return 0;
}
int cuCtxSynchronize(void) { return launches ? 0 : 1; }
int cuGetErrorName(int code, const char **name) { *name = "CUDA_ERROR_INVALID_VALUE"; return code == 1 ? 0 : 1; }
