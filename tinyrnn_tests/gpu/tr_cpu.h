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
void tr_all(const void* mine, void* all, unsigned long bytes);  // what all lanes of the warp have
void tr_meet_cluster();
void* tr_peer(const void* mine, unsigned rank);  // the same place in the shared memory of another block of the cluster
[[noreturn]] void tr_stuck();
float expf(float);
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
struct uint4 { unsigned x, y, z, w; };
extern thread_local unsigned tr_cluster;
extern "C" void tr_rest();
static inline unsigned tr_add_release(unsigned* p, unsigned v) { return __atomic_fetch_add(p, v, __ATOMIC_RELEASE); }
static inline unsigned tr_load_acquire(const unsigned* p) { tr_rest(); return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline unsigned tr_rank() { return blockIdx.x % tr_cluster; }
static inline unsigned tr_seen(const unsigned* p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline uint4 tr_peek(const void* from) { const uint4* p = (const uint4*)from; tr_rest(); return {tr_seen(&p->x), tr_seen(&p->y), tr_seen(&p->z), tr_seen(&p->w)}; }
static inline void tr_hand_on_one(void* p, unsigned v) { __atomic_store_n((unsigned*)p, v, __ATOMIC_RELAXED); }
static inline void tr_hand_on(void* to, uint4 v) {
    uint4* const p = (uint4*)to;
    __atomic_store_n(&p->x, v.x, __ATOMIC_RELAXED); __atomic_store_n(&p->y, v.y, __ATOMIC_RELAXED);
    __atomic_store_n(&p->z, v.z, __ATOMIC_RELAXED); __atomic_store_n(&p->w, v.w, __ATOMIC_RELAXED);
}
static inline float4 tr_load_l2(const float4* p) { return *p; }
#define TR_KERNEL(name, words, threads) extern "C" void name(const TrWords tr)
#define TR_SHARED(type, name, size) static char name##_key; type* const name = (type*)tr_shared(&name##_key, sizeof(type) * (size))
#define TR_BARRIER() tr_barrier()
template <class X> static inline X tr_shuffle(X x, int d) { X y; tr_exchange(&x, &y, sizeof(X), d); return y; }
static inline int tr_bits(float x) { int i; __builtin_memcpy(&i, &x, 4); return i; }
static inline tr_i64 tr_bits(double x) { tr_i64 i; __builtin_memcpy(&i, &x, 8); return i; }
static inline float tr_pattern(int i) { float x; __builtin_memcpy(&x, &i, 4); return x; }
static inline double tr_pattern(tr_i64 i) { double x; __builtin_memcpy(&x, &i, 8); return x; }
// clusters of blocks: barriers that count bytes, shared memory of others, the tensor cores' smallest product
typedef unsigned long long tr_u64;
typedef char* tr_place;
struct TrCount { int missing; unsigned short armed, phase; };
static inline void tr_checked(TrCount* b) { if (b->armed && !b->missing) { b->armed = 0; b->phase ^= 1; } }
static inline void tr_prepare(tr_u64* bar) { *bar = 0; }
static inline void tr_expect(tr_u64* bar, unsigned bytes) { TrCount* b = (TrCount*)bar; b->missing += bytes; b->armed = 1; tr_checked(b); }
static inline bool tr_arrived(tr_u64* bar, unsigned parity) { tr_rest(); return ((TrCount*)bar)->phase != parity; }
static inline tr_place tr_remote(const void* p, unsigned rank) { return (tr_place)tr_peer(p, rank); }
static inline void tr_send(tr_place to, float x, float y, tr_place bar) {
    ((float*)to)[0] = x; ((float*)to)[1] = y;
    ((TrCount*)bar)->missing -= 8;
    tr_checked((TrCount*)bar);
}
static inline float tr_tf32(float x) { return tr_pattern((tr_bits(x) + 0x1000) & ~0x1fff); }
static inline float tr_exp(float x) { return expf(x); }
static inline void tr_mma(float (&d)[4], const float (&a)[4], float x, float y) {
    const float mine[6] = {a[0], a[1], a[2], a[3], x, y};
    float all[32][16];
    tr_all(mine, all, sizeof mine);
    const int lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3;
    for (int i = 0; i < 4; i++) for (int k = 0; k < 8; k++)
        d[i] += all[4 * g + (k & 3)][(i >> 1) + 2 * (k >> 2)] * all[4 * (2 * q + (i & 1)) + (k & 3)][4 + (k >> 2)];
}
#define TR_CLUSTERS(name, words, threads) TR_KERNEL(name, words, threads)
#define TR_DYNAMIC(name, size) TR_SHARED(float, name, size)
#define TR_STUCK() tr_stuck()
#define TR_UNROLL
