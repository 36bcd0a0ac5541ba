// Blocks of threads on a processor.  A block's threads take turns (fibers: fast, and the same in every run), or are real
// threads (TR_THREADS: what a race detector needs).
#include "blocks.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <thread>
#include <vector>

thread_local TrDim threadIdx, blockIdx, blockDim, gridDim;
thread_local unsigned tr_cluster = 1;
static const int WARP = 32, MOST = 1024;

[[noreturn]] static void fail(const char* what) {
    std::fprintf(stderr, "a kernel failed: %s\n", what);
    std::abort();
}

void tr_stuck() { fail("a block waits for others that are not there"); }

#ifdef TR_THREADS
#include <barrier>
#include <mutex>

struct Block {
    std::barrier<> all;
    std::vector<std::unique_ptr<std::barrier<>>> warps;
    std::map<const void*, std::vector<char>> shared;
    std::mutex lock;
    std::vector<char> slots;
    explicit Block(int threads) : all(threads), slots(16 * threads) {
        for (int w = 0; w * WARP < threads; w++) warps.emplace_back(new std::barrier<>(std::min(WARP, threads - w * WARP)));
    }
};
static thread_local Block* block;
static thread_local int lane;

void tr_rest() { std::this_thread::yield(); }

void tr_barrier() { block->all.arrive_and_wait(); }

void* tr_shared(const void* key, unsigned long bytes) {
    std::lock_guard<std::mutex> guard(block->lock);
    auto& found = block->shared[key];
    if (found.empty()) found.assign(bytes, (char)0xCD);
    return found.data();
}

void tr_exchange(const void* mine, void* theirs, unsigned long bytes, int distance) {
    std::barrier<>& warp = *block->warps[lane / WARP];
    std::memcpy(&block->slots[16 * lane], mine, bytes);
    warp.arrive_and_wait();
    std::memcpy(theirs, &block->slots[16 * (lane ^ distance)], bytes);
    warp.arrive_and_wait();
}

// Clusters are not run as real threads.
void tr_all(const void*, void*, unsigned long) { fail("fragments of a warp"); }
void tr_meet_cluster() { fail("a barrier of a cluster"); }
void* tr_peer(const void*, unsigned) { fail("memory of another block"); }

// Threads that never meet: a few real ones take turns with them, neighbours apart.
static void run_apart(Kernel kernel, const tr_i64* words, TrDim grid, TrDim shape) {
    const unsigned few = 13, threads = shape.x * shape.y, count = grid.x * grid.y * threads;
    std::vector<std::thread> running;
    for (unsigned k = 0; k < few; k++) running.emplace_back([=] {
        for (unsigned i = k; i < count; i += few) {
            const unsigned b = i / threads, t = i % threads;
            threadIdx = {t % shape.x, t / shape.x, 0}; blockIdx = {b % grid.x, b / grid.x, 0}; blockDim = shape; gridDim = grid;
            kernel({words});
        }
    });
    for (auto& thread : running) thread.join();
}

// Several blocks at once, so that races between blocks show as well.
void tr_run(Kernel kernel, const tr_i64* words, TrDim grid, TrDim shape, int meets, unsigned cluster) {
    if (!meets) { run_apart(kernel, words, grid, shape); return; }
    const unsigned count = grid.x * grid.y;
    const int threads = shape.x * shape.y, together = meets == 2 ? count : std::max(1, MOST / threads);
    for (unsigned first = 0; first < count; first += together) {
        std::vector<std::unique_ptr<Block>> blocks;
        std::vector<std::thread> running;
        for (unsigned b = first; b < std::min(count, first + together); b++) {
            blocks.emplace_back(new Block(threads));
            Block* own = blocks.back().get();
            for (int t = 0; t < threads; t++) running.emplace_back([=] {
                block = own; lane = t; tr_cluster = cluster;
                threadIdx = {t % shape.x, t / shape.x, 0}; blockIdx = {b % grid.x, b / grid.x, 0}; blockDim = shape; gridDim = grid;
                kernel({words});
            });
        }
        for (auto& thread : running) thread.join();
    }
}

#else
#include <array>
#include <ucontext.h>

// A batch of blocks at once: a thread runs until it waits, and blocks that wait for others let them run.
enum State { READY, AT_BARRIER, AT_WARP, AT_CLUSTER, DONE };
struct Fiber { ucontext_t context; State state; int thread; unsigned block; };
static const size_t STACK = 1 << 16;
static std::vector<char*> stacks;
static std::vector<Fiber> fibers;
static std::vector<std::array<char, 64>> slots;
static ucontext_t scheduler;
static int current, count;  // the fiber that runs; threads of a block
static bool alone;          // a kernel without barriers: every thread runs from start to end
static std::map<std::pair<unsigned, const void*>, std::vector<char>> shared;
static Kernel kernel_of;
static const tr_i64* words_of;

static void entry() { kernel_of({words_of}); fibers[current].state = DONE; swapcontext(&fibers[current].context, &scheduler); }

static void wait(State state) {
    if (alone) fail("a barrier in a kernel that was said to have none");
    fibers[current].state = state;
    swapcontext(&fibers[current].context, &scheduler);
}

void tr_barrier() { wait(AT_BARRIER); }
void tr_rest() { wait(READY); }

void* tr_shared(const void* key, unsigned long bytes) {
    auto& found = shared[{fibers[current].block, key}];
    if (found.empty()) found.assign(bytes, (char)0xCD);
    return found.data();
}

void tr_exchange(const void* mine, void* theirs, unsigned long bytes, int distance) {
    const int own = current, other = fibers[own].thread ^ distance;
    std::memcpy(slots[own].data(), mine, bytes);
    wait(AT_WARP);
    if (other >= count) fail("a shuffle with a thread that does not exist");
    std::memcpy(theirs, slots[own - fibers[own].thread + other].data(), bytes);
    wait(AT_WARP);
}

void tr_all(const void* mine, void* all, unsigned long bytes) {
    const int own = current, first = own - fibers[own].thread % WARP;
    std::memcpy(slots[own].data(), mine, bytes);
    wait(AT_WARP);
    for (int i = 0; i < WARP; i++) std::memcpy((char*)all + 64 * i, slots[first + i].data(), bytes);
    wait(AT_WARP);
}

void tr_meet_cluster() { wait(AT_CLUSTER); }

void* tr_peer(const void* mine, unsigned rank) {
    const unsigned block = fibers[current].block;
    for (auto& [key, memory] : shared) {
        const long at = (const char*)mine - memory.data();
        if (key.first == block && at >= 0 && at < (long)memory.size())
            return shared.at({block - block % tr_cluster + rank, key.second}).data() + at;
    }
    fail("memory of another block, by an address that is not shared");
}

static void place(int thread, unsigned block) {
    threadIdx = {thread % blockDim.x, thread / blockDim.x, 0};
    blockIdx = {block % gridDim.x, block / gridDim.x, 0};
}

// Lets go of all these threads where every one of them waits in one way; whether it is so.
static bool release_all(int first, int number, State state) {
    bool here = true;
    for (int t = first; t < first + number; t++) here = here && fibers[t].state == state;
    for (int t = first; here && t < first + number; t++) fibers[t].state = READY;
    return here;
}

// The same for the warps of a block, and for the block.
static bool release(int first) {
    bool any = false;
    for (int w = first; w < first + count; w += WARP) any = release_all(w, std::min(WARP, first + count - w), AT_WARP) || any;
    return release_all(first, count, AT_BARRIER) || any;
}

static void run_batch(unsigned first, unsigned blocks) {
    const int total = blocks * count;
    while ((int)stacks.size() < total) { stacks.push_back(new char[STACK]); fibers.emplace_back(); slots.emplace_back(); }
    shared.clear();
    for (int f = 0; f < total; f++) {
        getcontext(&fibers[f].context);
        fibers[f].context.uc_stack = {stacks[f], 0, STACK};
        fibers[f].context.uc_link = &scheduler;
        fibers[f].state = READY; fibers[f].thread = f % count; fibers[f].block = first + f / count;
        makecontext(&fibers[f].context, entry, 0);
    }
    for (bool alive = true; alive;) {
        bool ran = false, released = false;
        alive = false;
        for (int k = 0; k < total; k++) {
            const int f = first % 2 ? k : total - 1 - k;  // in no order that a kernel might rest upon
            if (fibers[f].state == READY) {
                current = f; place(fibers[f].thread, fibers[f].block);
                swapcontext(&scheduler, &fibers[f].context);
                ran = true;
            }
            alive = alive || fibers[f].state != DONE;
        }
        for (unsigned b = 0; b < blocks; b++) released = release(b * count) || released;
        for (unsigned b = 0; b < blocks; b += tr_cluster) released = release_all(b * count, tr_cluster * count, AT_CLUSTER) || released;
        if (alive && !released && !ran) fail("threads wait at a barrier that others do not reach");
    }
}

void tr_run(Kernel kernel, const tr_i64* words, TrDim grid, TrDim shape, int meets, unsigned cluster) {
    blockDim = shape; gridDim = grid; count = shape.x * shape.y; kernel_of = kernel; words_of = words; alone = !meets;
    tr_cluster = cluster;
    if (count > MOST) fail("more threads than a block may have");
    const unsigned blocks = grid.x * grid.y, together = meets == 2 ? blocks : std::max(1, MOST / count);
    for (unsigned b = 0; meets && b < blocks; b += together) run_batch(b, std::min(blocks - b, together));
    for (unsigned b = 0; !meets && b < blocks; b++) for (int t = 0; t < count; t++) { place(t, b); kernel({words}); }
}
#endif
