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
static const int WARP = 32, MOST = 1024;

void tr_rest() { std::this_thread::yield(); }

[[noreturn]] static void fail(const char* what) {
    std::fprintf(stderr, "a kernel failed: %s\n", what);
    std::abort();
}

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
void tr_run(Kernel kernel, const tr_i64* words, TrDim grid, TrDim shape, bool meets) {
    if (!meets) { run_apart(kernel, words, grid, shape); return; }
    const int threads = shape.x * shape.y, together = std::max(1, MOST / threads);
    const unsigned count = grid.x * grid.y;
    for (unsigned first = 0; first < count; first += together) {
        std::vector<std::unique_ptr<Block>> blocks;
        std::vector<std::thread> running;
        for (unsigned b = first; b < std::min(count, first + together); b++) {
            blocks.emplace_back(new Block(threads));
            Block* own = blocks.back().get();
            for (int t = 0; t < threads; t++) running.emplace_back([=] {
                block = own; lane = t;
                threadIdx = {t % shape.x, t / shape.x, 0}; blockIdx = {b % grid.x, b / grid.x, 0}; blockDim = shape; gridDim = grid;
                kernel({words});
            });
        }
        for (auto& thread : running) thread.join();
    }
}

#else
#include <ucontext.h>

enum State { READY, AT_BARRIER, AT_WARP, DONE };
struct Fiber { ucontext_t context; State state; };
static const size_t STACK = 1 << 16;
static std::vector<char*> stacks;
static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static int current, count;
static bool alone;  // a kernel without barriers: every thread runs from start to end
static std::map<const void*, std::vector<char>> shared;
static char slots[MOST][16];
static Kernel kernel_of;
static const tr_i64* words_of;

static void entry() { kernel_of({words_of}); fibers[current].state = DONE; swapcontext(&fibers[current].context, &scheduler); }

static void wait(State state) {
    if (alone) fail("a barrier in a kernel that was said to have none");
    fibers[current].state = state;
    swapcontext(&fibers[current].context, &scheduler);
}

void tr_barrier() { wait(AT_BARRIER); }

void* tr_shared(const void* key, unsigned long bytes) {
    auto& found = shared[key];
    if (found.empty()) found.assign(bytes, (char)0xCD);
    return found.data();
}

void tr_exchange(const void* mine, void* theirs, unsigned long bytes, int distance) {
    const int lane = current;
    std::memcpy(slots[lane], mine, bytes);
    wait(AT_WARP);
    if ((lane ^ distance) >= count) fail("a shuffle with a thread that does not exist");
    std::memcpy(theirs, slots[lane ^ distance], bytes);
    wait(AT_WARP);
}

static void place(int t) { current = t; threadIdx = {t % blockDim.x, t / blockDim.x, 0}; }

// Lets go of everybody who waits at a barrier that is complete; whether there was one.
static bool release() {
    bool any = false;
    for (int w = 0; w * WARP < count; w++) {
        const int last = std::min(count, (w + 1) * WARP);
        bool here = true;
        for (int t = w * WARP; t < last; t++) here = here && fibers[t].state == AT_WARP;
        for (int t = w * WARP; here && t < last; t++) fibers[t].state = READY;
        any = any || here;
    }
    bool all = true;
    for (int t = 0; t < count; t++) all = all && fibers[t].state == AT_BARRIER;
    for (int t = 0; all && t < count; t++) fibers[t].state = READY;
    return any || all;
}

static void run_block() {
    shared.clear();
    for (int t = 0; t < count; t++) {
        getcontext(&fibers[t].context);
        fibers[t].context.uc_stack = {stacks[t], 0, STACK};
        fibers[t].context.uc_link = &scheduler;
        fibers[t].state = READY;
        makecontext(&fibers[t].context, entry, 0);
    }
    for (bool alive = true; alive;) {
        bool ran = false;
        alive = false;
        for (int t = 0; t < count; t++) {
            if (fibers[t].state == READY) { place(t); swapcontext(&scheduler, &fibers[t].context); ran = true; }
            alive = alive || fibers[t].state != DONE;
        }
        if (alive && !release() && !ran) fail("threads wait at a barrier that others do not reach");
    }
}

void tr_run(Kernel kernel, const tr_i64* words, TrDim grid, TrDim shape, bool meets) {
    blockDim = shape; gridDim = grid; count = shape.x * shape.y; kernel_of = kernel; words_of = words; alone = !meets;
    if (count > MOST) fail("more threads than a block may have");
    while (meets && (int)stacks.size() < count) { stacks.push_back(new char[STACK]); fibers.emplace_back(); }
    for (unsigned y = 0; y < grid.y; y++) for (unsigned x = 0; x < grid.x; x++) {
        blockIdx = {x, y, 0};
        if (meets) { run_block(); continue; }
        for (int t = 0; t < count; t++) { place(t); kernel({words}); }
    }
}
#endif
