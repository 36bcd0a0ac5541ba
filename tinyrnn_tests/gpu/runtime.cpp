// A small CUDA: memory with guards, streams that are as late as they may be, graphs, and the products of cuBLAS.
//
// Work waits in its stream until somebody waits for it, so that a host that forgets to wait reads old numbers.
#include "blocks.h"
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

typedef std::function<void()> Op;
typedef std::deque<Op> Ops;
// A stream by the number that it never shares; handles are given out again, as CUDA does.
struct Stream { Ops waiting; long begun = 0; bool capturing = false, blocking = false; Ops recorded; };
struct Freed { size_t bytes; char* at; };
static std::map<long, Stream> streams;
static std::map<long, long> number_of = {{0, 0}};
static std::vector<long> spare;  // handles of streams that are gone
static std::map<long, std::vector<Freed>> pools;  // memory that is free, by the stream whose next array may have it at once
static std::map<long, Ops> graphs;
static std::map<char*, size_t> blocks;
static std::string trouble;
static size_t in_use, limit = SIZE_MAX;
static const size_t GUARD = 256;
static const unsigned char MARK = 0xA5, POISON = 0xFF;

static std::recursive_mutex lock;
#define LOCKED std::lock_guard<std::recursive_mutex> guard(lock)

static void note(const std::string& what) { if (trouble.empty()) trouble = what; }
static long numbered(long handle) { return number_of.at(handle); }
static long position(long number) { Stream& s = streams[number]; return s.begun + (long)s.waiting.size(); }

static void flush(long number, long until) {
    LOCKED;
    Stream& s = streams[number];
    while (s.begun < until && !s.waiting.empty()) {
        Op op = std::move(s.waiting.front());
        s.waiting.pop_front();
        s.begun++;
        op();
    }
}

// Work of the legacy stream and of streams that block is done in the order in which it was given.
static void put(long handle, Op op) {
    LOCKED;
    const long own = numbered(handle);
    Stream& s = streams[own];
    if (s.capturing) { s.recorded.push_back(std::move(op)); return; }
    std::vector<std::pair<long, long>> before;
    if (own == 0) { for (auto& [number, other] : streams) if (other.blocking) before.push_back({number, position(number)}); }
    else if (s.blocking) before.push_back({0, position(0)});
    s.waiting.push_back([before, op] { for (auto& [number, until] : before) flush(number, until); op(); });
}

extern "C" {
const char* fake_trouble() { static std::string said; said = trouble; trouble.clear(); return said.c_str(); }
void fake_limit(size_t bytes) { limit = bytes; }
size_t fake_in_use() { return in_use; }
long fake_blocks() { return (long)blocks.size(); }

long fake_stream(int blocking) {
    LOCKED;
    static long last = 100;
    long handle = 101 + (long)number_of.size() + (long)spare.size();
    if (!spare.empty()) { handle = spare.back(); spare.pop_back(); }
    number_of[handle] = ++last;
    streams[last].blocking = blocking;
    return handle;
}
// What a stream still has to do is done, whether it is there or not.
void fake_destroy(long handle) { LOCKED; streams[numbered(handle)].blocking = false; number_of.erase(handle); spare.push_back(handle); }
long fake_number(long handle) { LOCKED; return numbered(handle); }

static void guarded(char* p, size_t bytes) {
    for (size_t i = 0; i < GUARD; i++) {
        if ((unsigned char)p[-1 - (long)i] != MARK) { note("something was written before an array"); break; }
        if ((unsigned char)p[bytes + i] != MARK) { note("something was written behind an array"); break; }
    }
}

// What a stream has freed is handed out to it again at once, before its work with the memory is done.
void* fake_alloc(size_t bytes, long handle) {
    LOCKED;
    if (in_use + bytes > limit) return nullptr;
    char* found = nullptr;
    auto& pool = pools[numbered(handle)];
    for (size_t i = pool.size(); i-- > 0 && !found;) if (pool[i].bytes == bytes) { found = pool[i].at; pool.erase(pool.begin() + i); }
    if (!found) {
        char* raw = (char*)std::malloc(bytes + 2 * GUARD);
        std::memset(raw, MARK, GUARD);
        std::memset(raw + GUARD, POISON, bytes);
        std::memset(raw + GUARD + bytes, MARK, GUARD);
        found = raw + GUARD;
    }
    blocks[found] = bytes;
    in_use += bytes;
    return found;
}

void fake_free(void* p, long number) {
    LOCKED;
    char* const at = (char*)p;
    const size_t bytes = blocks[at];
    streams[number].waiting.push_back([at, bytes] { guarded(at, bytes); std::memset(at, POISON, bytes); });
    pools[number].push_back({bytes, at});
    in_use -= bytes;
    blocks.erase(at);
}

// Everything is done; memory that is free goes back.
void fake_settle() {
    LOCKED;
    for (auto& [number, s] : streams) flush(number, position(number));
    for (auto& [number, pool] : pools) for (auto& one : pool) std::free(one.at - GUARD);
    pools.clear();
}

void fake_check_guards() { LOCKED; for (auto& [p, bytes] : blocks) guarded(p, bytes); }

void fake_forgive() {
    LOCKED;
    for (auto& [p, bytes] : blocks) { std::memset(p - GUARD, MARK, GUARD); std::memset(p + bytes, MARK, GUARD); }
    trouble.clear();
}

long fake_position(long handle) { LOCKED; return position(numbered(handle)); }
void fake_flush(long number, long until) { flush(number, until < 0 ? position(number) : until); }
void fake_wait(long handle, long other, long until) { put(handle, [=] { flush(other, until); }); }

void fake_begin(long handle) { LOCKED; Stream& s = streams[numbered(handle)]; s.capturing = true; s.recorded.clear(); }
int fake_capturing(long handle) { LOCKED; return streams[numbered(handle)].capturing; }
long fake_end(long handle) {
    LOCKED;
    static long next = 0;
    Stream& s = streams[numbered(handle)];
    s.capturing = false;
    graphs[++next] = std::move(s.recorded);
    return next;
}
long fake_nodes(long graph) { LOCKED; return (long)graphs[graph].size(); }
void fake_forget(long graph) { LOCKED; graphs.erase(graph); }
void fake_launch_graph(long graph, long handle) { LOCKED; for (auto& op : graphs[graph]) put(handle, op); }

void fake_launch(long handle, void* kernel, int meets, const unsigned* grid, const unsigned* block, const tr_i64* words, long count,
                 unsigned cluster) {
    std::vector<tr_i64> own(words, words + count);
    TrDim g = {grid[0], grid[1], 1}, b = {block[0], block[1], 1};
    put(handle, [=] { tr_run((Kernel)kernel, own.data(), g, b, meets, cluster); });
}

// From memory that the system may page (0) the numbers are taken at once; from memory that it may not, later.
void fake_copy(long handle, void* to, const void* from, size_t bytes, int later) {
    if (later) { put(handle, [=] { std::memcpy(to, from, bytes); }); return; }
    std::vector<char> own((const char*)from, (const char*)from + bytes);
    put(handle, [=] { std::memcpy(to, own.data(), bytes); });
}
void fake_set(long handle, void* to, int value, size_t bytes) { put(handle, [=] { std::memset(to, value, bytes); }); }

}

// ---- cuBLAS, by its own names

static bool slowly;  // another thread may have its turn between the two kernels of a product
extern "C" void fake_slowly(int yes) { slowly = yes; }
struct Handle { long stream = 0; char* workspace = nullptr; size_t room = 0; };
static long handles;
extern "C" long fake_handles() { return handles; }
extern "C" int cublasCreate_v2(void** handle) { *handle = new Handle; handles++; return 0; }
extern "C" int cublasDestroy_v2(void* handle) { delete (Handle*)handle; handles--; return 0; }
extern "C" int cublasSetStream_v2(void* handle, void* stream) {
    ((Handle*)handle)->stream = (long)stream;
    ((Handle*)handle)->workspace = nullptr;  // as cuBLAS does
    return 0;
}
extern "C" int cublasSetWorkspace_v2(void* handle, void* workspace, size_t bytes) {
    ((Handle*)handle)->workspace = (char*)workspace;
    ((Handle*)handle)->room = bytes;
    return 0;
}

static int significant(int compute) { return compute == 77 ? 10 : compute == 75 ? 7 : 23; }
static float rounded(float x, int bits) {  // to the nearest with so many bits of the fraction
    if (bits == 23) return x;
    uint32_t i, low = 23 - bits;
    std::memcpy(&i, &x, 4);
    i = (i + (1u << (low - 1)) - 1 + ((i >> low) & 1)) >> low << low;
    std::memcpy(&x, &i, 4);
    return x;
}
static double rounded(double x, int) { return x; }

// Terms `first` to `last` of every sum are added to what is there.
template <class X> static void multiply(int ta, int tb, int m, int n, int first, int last, const X* a, int lda, tr_i64 sa, const X* b,
                                        int ldb, tr_i64 sb, X* c, int ldc, tr_i64 sc, int batch, int bits) {
    for (int i = 0; i < batch; i++) for (int col = 0; col < n; col++) for (int row = 0; row < m; row++) {
        X& sum = c[i * sc + row + (tr_i64)col * ldc];
        for (int l = first; l < last; l++)
            sum += rounded(a[i * sa + (ta ? l + (tr_i64)row * lda : row + (tr_i64)l * lda)], bits)
                 * rounded(b[i * sb + (tb ? col + (tr_i64)l * ldb : l + (tr_i64)col * ldb)], bits);
    }
}

// A product in two kernels, as those that split their sums: the second takes up what the first has left in the workspace.
template <class X> static void product(Handle* h, int ta, int tb, int m, int n, int k, const void* a, int lda, tr_i64 sa,
                                       const void* b, int ldb, tr_i64 sb, void* c, int ldc, tr_i64 sc, int batch, int bits) {
    X* const out = (X*)c;
    X* const between = (X*)h->workspace;
    const tr_i64 size = (tr_i64)m * n * batch;
    const int half = between && size * sizeof(X) <= h->room ? k / 2 : 0;
    if (half) put(h->stream, [=] {
        std::fill(between, between + size, X(0));
        multiply(ta, tb, m, n, 0, half, (const X*)a, lda, sa, (const X*)b, ldb, sb, between, m, (tr_i64)m * n, batch, bits);
    });
    if (slowly) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    put(h->stream, [=] {
        for (int i = 0; i < batch; i++) for (int col = 0; col < n; col++) for (int row = 0; row < m; row++)
            out[i * sc + row + (tr_i64)col * ldc] = half ? between[(tr_i64)i * m * n + row + (tr_i64)col * m] : X(0);
        multiply(ta, tb, m, n, half, k, (const X*)a, lda, sa, (const X*)b, ldb, sb, out, ldc, sc, batch, bits);
    });
}

extern "C" int cublasGemmStridedBatchedEx(void* handle, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int a_kind,
                               int lda, tr_i64 sa, const void* b, int b_kind, int ldb, tr_i64 sb, const void* beta, void* c,
                               int c_kind, int ldc, tr_i64 sc, int batch, int compute, int) {
    Handle* h = (Handle*)handle;
    if (m <= 0 || n <= 0 || k <= 0 || lda < (ta ? k : m) || ldb < (tb ? n : k) || ldc < m || a_kind != b_kind || a_kind != c_kind)
        return 7;
    if (fake_capturing(h->stream) && !h->workspace) { note("a product was captured without a workspace"); return 15; }
    if (a_kind == 1) {
        if (compute != 70 || *(const double*)alpha != 1 || *(const double*)beta != 0) return 7;
        product<double>(h, ta, tb, m, n, k, a, lda, sa, b, ldb, sb, c, ldc, sc, batch, 52);
        return 0;
    }
    if (a_kind != 0 || (compute != 68 && compute != 77 && compute != 75) || *(const float*)alpha != 1 || *(const float*)beta != 0)
        return 7;
    product<float>(h, ta, tb, m, n, k, a, lda, sa, b, ldb, sb, c, ldc, sc, batch, significant(compute));
    return 0;
}

extern "C" int cublasGemmEx(void* handle, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int a_kind,
                            int lda, const void* b, int b_kind, int ldb, const void* beta, void* c, int c_kind, int ldc,
                            int compute, int algorithm) {
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, a_kind, lda, 0, b, b_kind, ldb, 0, beta, c, c_kind, ldc, 0,
                                      1, compute, algorithm);
}
