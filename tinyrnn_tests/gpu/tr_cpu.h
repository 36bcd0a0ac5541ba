// The device functions of a kernel, on a processor: with TR_CPU defined, kernels include this instead of CUDA's own.
#pragma once
typedef long long tr_i64;
struct TrDim { unsigned x, y, z; };
struct TrWords { const tr_i64* w; };
extern thread_local TrDim threadIdx, blockIdx, blockDim, gridDim;
extern "C" {
void tr_barrier();
void* tr_shared(const void* key, unsigned long bytes);
void tr_exchange(const void* mine, void* theirs, unsigned long bytes, int distance);
float fmaf(float, float, float);
double fma(double, double, double);
float copysignf(float, float);
double copysign(double, double);
float fabsf(float);
double fabs(double);
float sqrtf(float);
double sqrt(double);
float sinf(float);
double sin(double);
float cosf(float);
double cos(double);
float powf(float, float);
double pow(double, double);
}
#define TR_DEVICE static inline
struct float4 { float x, y, z, w; };
extern "C" void tr_rest();
static inline unsigned tr_add_release(unsigned* p, unsigned v) { return __atomic_fetch_add(p, v, __ATOMIC_RELEASE); }
static inline unsigned tr_load_acquire(const unsigned* p) { tr_rest(); return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline float4 tr_load_l2(const float4* p) { return *p; }
#define TR_KERNEL(name, words, threads) extern "C" void name(const TrWords tr)
#define TR_SHARED(type, name, size) static char name##_key; type* const name = (type*)tr_shared(&name##_key, sizeof(type) * (size))
#define TR_BARRIER() tr_barrier()
template <class X> static inline X tr_shuffle(X x, int d) { X y; tr_exchange(&x, &y, sizeof(X), d); return y; }
static inline int tr_bits(float x) { int i; __builtin_memcpy(&i, &x, 4); return i; }
static inline tr_i64 tr_bits(double x) { tr_i64 i; __builtin_memcpy(&i, &x, 8); return i; }
static inline float tr_pattern(int i) { float x; __builtin_memcpy(&x, &i, 4); return x; }
static inline double tr_pattern(tr_i64 i) { double x; __builtin_memcpy(&x, &i, 8); return x; }
