// A small CUDA: memory with guards, streams that are as late as they may be, graphs, and the products of cuBLAS.
//
// Work waits in its stream until somebody waits for it, so that a host that forgets to wait reads old numbers.
#include "blocks.h"
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

typedef std::function<void()> Op;
typedef std::deque<Op> Ops;
struct Stream { Ops waiting; long begun = 0; bool capturing = false; Ops recorded; };
static std::map<long, Stream> streams;
static std::map<long, Ops> graphs;
static std::map<char*, size_t> blocks;
static std::string trouble;
static size_t in_use, limit = SIZE_MAX;
static const size_t GUARD = 256;
static const unsigned char MARK = 0xA5, POISON = 0xFF;

static std::recursive_mutex lock;
#define LOCKED std::lock_guard<std::recursive_mutex> guard(lock)

static void note(const std::string& what) { if (trouble.empty()) trouble = what; }

static void put(long stream, Op op) {
    LOCKED;
    Stream& s = streams[stream];
    (s.capturing ? s.recorded : s.waiting).push_back(std::move(op));
}

static void flush(long stream, long until) {
    LOCKED;
    Stream& s = streams[stream];
    while (s.begun < until && !s.waiting.empty()) {
        Op op = std::move(s.waiting.front());
        s.waiting.pop_front();
        s.begun++;
        op();
    }
}

extern "C" {
const char* fake_trouble() { static std::string said; said = trouble; trouble.clear(); return said.c_str(); }
void fake_limit(size_t bytes) { limit = bytes; }
size_t fake_in_use() { return in_use; }
long fake_blocks() { return (long)blocks.size(); }

void* fake_alloc(size_t bytes) {
    LOCKED;
    if (in_use + bytes > limit) return nullptr;
    char* raw = (char*)std::malloc(bytes + 2 * GUARD);
    std::memset(raw, MARK, GUARD);
    std::memset(raw + GUARD, POISON, bytes);
    std::memset(raw + GUARD + bytes, MARK, GUARD);
    blocks[raw + GUARD] = bytes;
    in_use += bytes;
    return raw + GUARD;
}

static void freed(char* p) {
    size_t bytes = blocks[p];
    for (size_t i = 0; i < GUARD; i++) {
        if ((unsigned char)p[-1 - (long)i] != MARK) { note("something was written before an array"); break; }
        if ((unsigned char)p[bytes + i] != MARK) { note("something was written behind an array"); break; }
    }
    std::memset(p, POISON, bytes);
    in_use -= bytes;
    blocks.erase(p);
    std::free(p - GUARD);
}

// Memory goes back when the work that its stream has by now is done.
void fake_free(void* p, long stream) { LOCKED; Stream& s = streams[stream]; s.waiting.push_back([p] { freed((char*)p); }); }

void fake_check_guards() {
    for (auto& [p, bytes] : blocks) for (size_t i = 0; i < GUARD; i++)
        if ((unsigned char)p[-1 - (long)i] != MARK || (unsigned char)p[bytes + i] != MARK) {
            note("something was written outside of an array"); break; }
}

void fake_forgive() {
    LOCKED;
    for (auto& [p, bytes] : blocks) { std::memset(p - GUARD, MARK, GUARD); std::memset(p + bytes, MARK, GUARD); }
    trouble.clear();
}

long fake_position(long stream) { LOCKED; Stream& s = streams[stream]; return s.begun + (long)s.waiting.size(); }
void fake_flush(long stream, long until) { flush(stream, until < 0 ? fake_position(stream) : until); }
void fake_wait(long stream, long other, long until) { put(stream, [=] { flush(other, until); }); }

void fake_begin(long stream) { Stream& s = streams[stream]; s.capturing = true; s.recorded.clear(); }
int fake_capturing(long stream) { return streams[stream].capturing; }
long fake_end(long stream) {
    static long next = 0;
    Stream& s = streams[stream];
    s.capturing = false;
    graphs[++next] = std::move(s.recorded);
    return next;
}
long fake_nodes(long graph) { return (long)graphs[graph].size(); }
void fake_forget(long graph) { graphs.erase(graph); }
void fake_launch_graph(long graph, long stream) { for (auto& op : graphs[graph]) put(stream, op); }

void fake_launch(long stream, void* kernel, int meets, const unsigned* grid, const unsigned* block, const tr_i64* words, long count) {
    std::vector<tr_i64> own(words, words + count);
    TrDim g = {grid[0], grid[1], 1}, b = {block[0], block[1], 1};
    put(stream, [=] { tr_run((Kernel)kernel, own.data(), g, b, meets); });
}

// From memory that the system may page (0) the numbers are taken at once; from memory that it may not, later.
void fake_copy(long stream, void* to, const void* from, size_t bytes, int later) {
    if (later) { put(stream, [=] { std::memcpy(to, from, bytes); }); return; }
    std::vector<char> own((const char*)from, (const char*)from + bytes);
    put(stream, [=] { std::memcpy(to, own.data(), bytes); });
}
void fake_set(long stream, void* to, int value, size_t bytes) { put(stream, [=] { std::memset(to, value, bytes); }); }

}

// ---- cuBLAS, by its own names

struct Handle { long stream = 0; void* workspace = nullptr; };
extern "C" int cublasCreate_v2(void** handle) { *handle = new Handle; return 0; }
extern "C" int cublasSetStream_v2(void* handle, void* stream) {
    ((Handle*)handle)->stream = (long)stream;
    ((Handle*)handle)->workspace = nullptr;  // as cuBLAS does
    return 0;
}
extern "C" int cublasSetWorkspace_v2(void* handle, void* workspace, size_t) { ((Handle*)handle)->workspace = workspace; return 0; }

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

template <class X> static void multiply(int ta, int tb, int m, int n, int k, const X* a, int lda, tr_i64 sa, const X* b, int ldb,
                                        tr_i64 sb, X* c, int ldc, tr_i64 sc, int batch, int bits) {
    for (int i = 0; i < batch; i++) for (int col = 0; col < n; col++) for (int row = 0; row < m; row++) {
        X sum = 0;
        for (int l = 0; l < k; l++)
            sum += rounded(a[i * sa + (ta ? l + (tr_i64)row * lda : row + (tr_i64)l * lda)], bits)
                 * rounded(b[i * sb + (tb ? col + (tr_i64)l * ldb : l + (tr_i64)col * ldb)], bits);
        c[i * sc + row + (tr_i64)col * ldc] = sum;
    }
}

extern "C" int cublasGemmStridedBatchedEx(void* handle, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int a_kind,
                               int lda, tr_i64 sa, const void* b, int b_kind, int ldb, tr_i64 sb, const void* beta, void* c,
                               int c_kind, int ldc, tr_i64 sc, int batch, int compute, int) {
    Handle* h = (Handle*)handle;
    if (m <= 0 || n <= 0 || k <= 0 || lda < (ta ? k : m) || ldb < (tb ? n : k) || ldc < m || a_kind != b_kind || a_kind != c_kind)
        return 7;
    if (streams[h->stream].capturing && !h->workspace) { note("a product was captured without a workspace"); return 15; }
    if (a_kind == 1) {
        if (compute != 70 || *(const double*)alpha != 1 || *(const double*)beta != 0) return 7;
        put(h->stream, [=] { multiply(ta, tb, m, n, k, (const double*)a, lda, sa, (const double*)b, ldb, sb, (double*)c, ldc, sc, batch, 52); });
        return 0;
    }
    if (a_kind != 0 || (compute != 68 && compute != 77 && compute != 75) || *(const float*)alpha != 1 || *(const float*)beta != 0)
        return 7;
    const int bits = significant(compute);
    put(h->stream, [=] { multiply(ta, tb, m, n, k, (const float*)a, lda, sa, (const float*)b, ldb, sb, (float*)c, ldc, sc, batch, bits); });
    return 0;
}

extern "C" int cublasGemmEx(void* handle, int ta, int tb, int m, int n, int k, const void* alpha, const void* a, int a_kind,
                            int lda, const void* b, int b_kind, int ldb, const void* beta, void* c, int c_kind, int ldc,
                            int compute, int algorithm) {
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, a_kind, lda, 0, b, b_kind, ldb, 0, beta, c, c_kind, ldc, 0,
                                      1, compute, algorithm);
}
