// A recorded run of a plan, every buffer in memory of its own: a program that sanitizers can watch.
//
// File: buffers (count; size, numbers), then jobs until the end.  A job is a kernel (its number, grid, block, words; a word
// with a buffer stands for an address) or a product (sizes, batch, and offset, strides of each operand).
#include "blocks.h"
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

extern Kernel kernels[];
extern const int kernels_meet[];

static FILE* in;
static bool read(void* to, size_t bytes) { return std::fread(to, 1, bytes, in) == bytes; }
static tr_i64 number() { tr_i64 n; if (!read(&n, 8)) std::exit(3); return n; }

static std::vector<char*> buffers;
static std::vector<tr_i64> sizes;

template <class X> static void product(const tr_i64* w) {
    const tr_i64 m = w[0], k = w[1], n = w[2], batch = w[3];
    const X *a = (const X*)(buffers[w[4]] + w[5]), *b = (const X*)(buffers[w[9]] + w[10]);
    X* c = (X*)(buffers[w[14]] + w[15]);
    for (tr_i64 i = 0; i < batch; i++) for (tr_i64 r = 0; r < m; r++) for (tr_i64 s = 0; s < n; s++) {
        X sum = 0;
        for (tr_i64 l = 0; l < k; l++)
            sum += a[i * w[6] + r * w[7] + l * w[8]] * b[i * w[11] + l * w[12] + s * w[13]];
        c[i * w[16] + r * w[17] + s * w[18]] = sum;
    }
}

int main(int, char** names) {
    in = std::fopen(names[1], "rb");
    for (tr_i64 count = number(); count > 0; count--) {
        sizes.push_back(number());
        buffers.push_back((char*)std::malloc(sizes.back()));
        read(buffers.back(), sizes.back());
    }
    for (tr_i64 kind; read(&kind, 8);) {
        if (kind < 0) {
            tr_i64 w[19];
            read(w, sizeof w);
            kind == -4 ? product<float>(w) : product<double>(w);
            continue;
        }
        unsigned shape[4];
        read(shape, sizeof shape);
        std::vector<tr_i64> words(number());
        for (auto& word : words) { const tr_i64 buffer = number(); word = number() + (buffer < 0 ? 0 : (tr_i64)buffers[buffer]); }
        tr_run(kernels[kind], words.data(), {shape[0], shape[1], 1}, {shape[2], shape[3], 1}, kernels_meet[kind]);
    }
    FILE* out = std::fopen(names[2], "wb");
    for (size_t i = 0; i < buffers.size(); i++) { std::fwrite(buffers[i], 1, sizes[i], out); std::free(buffers[i]); }
    std::fclose(out);
    return 0;
}
