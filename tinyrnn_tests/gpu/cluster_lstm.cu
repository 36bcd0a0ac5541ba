// LSTM for a whole sequence in one launch, forward and backward: a plan in code, see docs/compiler/clusters.md.  It stands on the
// prelude of all kernels and on the exchange of tinyrnn/bench/gpu_clusters.py.
//
// TR_C clusters of TR_R = 8 blocks share the TR_H units; the blocks of a cluster share the terms of every sum (K).  Unit i of
// (cluster c, rank r) is r * H/8 + c * U + i, so what rank r finishes lies in the slice of K that rank r reads, and only blocks of
// one rank exchange through the second-level cache.  Weights stay in registers, as fragments of the tensor cores.
//
// What is read and the partial sums have two places each, for odd and for even steps: a warp may still multiply while another
// of its block reads on, and the one barrier of a step orders what lies two steps apart.
//
// Between blocks data are their own flag: h and the gates' gradients are filled with TR_SENTINEL beforehand, and nothing with that
// pattern is ever written.  Within a cluster partial sums go to the block that finishes a row, which waits for their bytes.
//
// Layouts: Xp [T, B, 4, H] (projection of the input, bias inside), W [4, H, H], h and c [T + 1, B, H], gates and da [T, B, H, 4]
// (after and before the squashing), gate order i f g o.  16 rows of the batch a group of clusters.
#ifndef TR_CPU
typedef unsigned long long tr_u64;
TR_DEVICE unsigned tr_at(const void* p) {
    unsigned a;
    asm("{ .reg .u64 t; cvta.to.shared.u64 t, %1; cvt.u32.u64 %0, t; }" : "=r"(a) : "l"(p));
    return a;
}
TR_DEVICE void tr_meet_cluster() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" : : : "memory");
}
typedef unsigned tr_place;  // of shared memory, in any block of the cluster
TR_DEVICE tr_place tr_remote(const void* p, unsigned rank) {
    unsigned r;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(tr_at(p)), "r"(rank));
    return r;
}
TR_DEVICE void tr_expect(tr_u64* bar, unsigned bytes) {
    asm volatile("{ .reg .b64 s; mbarrier.arrive.expect_tx.shared::cta.b64 s, [%0], %1; }" : : "r"(tr_at(bar)), "r"(bytes) : "memory");
}
TR_DEVICE void tr_prepare(tr_u64* bar) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;\nfence.mbarrier_init.release.cluster;" : : "r"(tr_at(bar)) : "memory");
}
TR_DEVICE bool tr_arrived(tr_u64* bar, unsigned parity) {
    unsigned yes;
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(yes) : "r"(tr_at(bar)), "r"(parity) : "memory");
    return yes;
}
TR_DEVICE void tr_send(tr_place to, float x, float y, tr_place bar) {
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];"
                 : : "r"(to), "f"(x), "f"(y), "r"(bar) : "memory");
}
TR_DEVICE void tr_hand_on_one(void* p, unsigned v) { asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" : : "l"(p), "r"(v) : "memory"); }
TR_DEVICE float tr_tf32(float x) {
    unsigned u;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(u) : "f"(x));
    return __uint_as_float(u);
}
TR_DEVICE void tr_mma(float (&d)[4], const float (&a)[4], float x, float y) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
                   "r"(__float_as_uint(x)), "r"(__float_as_uint(y)));
}
TR_DEVICE float tr_exp(float x) { return __expf(x); }
#define TR_CLUSTERS(name, words, threads) struct name##_words { tr_i64 w[words]; }; \
    extern "C" __global__ void __cluster_dims__(8, 1, 1) __launch_bounds__(threads, 1) name(const __grid_constant__ name##_words tr)
#define TR_DYNAMIC(name, size) extern __shared__ float4 name##_all[]; float* const name = (float*)name##_all
#define TR_STUCK() __trap()
#define TR_UNROLL _Pragma("unroll")
#endif
#define TR_R 8                          /* blocks of a cluster */
#define TR_BT 16                        /* rows of the batch that a group of clusters works on: two tiles of 8 columns */
#define TR_K (TR_H / TR_R)              /* units whose state a block reads */
#define TR_UC (TR_H / TR_C)             /* units of a cluster */
#define TR_U (TR_UC / TR_R)             /* units that a block finishes */
#define TR_WARPS (TR_UC / 4)            /* a tile of 16 of the 4 UC rows each */
#define TR_NT (32 * TR_WARPS)           /* threads: one for each unit, row of the batch and gate that the block finishes */
#define TR_SPINS (1 << 26)              /* looks after which a block gives up: the others are not there */

TR_DEVICE float tr_number(unsigned u) { return tr_pattern((int)u); }
TR_DEVICE unsigned tr_told(float x) { const unsigned u = (unsigned)tr_bits(x); return u == TR_SENTINEL ? 0x7fffffffu : u; }
TR_DEVICE float tr_sigmoid(float x) { return 1.0f / (1.0f + tr_exp(-x)); }
TR_DEVICE float tr_tanh(float x) { const float e = tr_exp(2.0f * fabsf(x)); return copysignf(1.0f - 2.0f / (e + 1.0f), x); }

/* `k` numbers of each of 16 rows, once they are there, in the order of fragments: what a lane multiplies lies side by side */
TR_DEVICE void tr_stage(float* to, const float* from, tr_i64 apart, int k, int rows) {
    for (int e = threadIdx.x; e < k * TR_BT / 4; e += TR_NT) {
        const int b = e / (k / 4), four = e % (k / 4);
        const float* const p = from + (b < rows ? b : 0) * apart + 4 * four;
        uint4 v = tr_peek(p);
        for (int n = 0; tr_waits(v); v = tr_peek(p)) if (++n > TR_SPINS) TR_STUCK();
        float* const d = to + 2 * ((((four >> 1) * 2 + (b >> 3)) * 8 + (b & 7)) * 4 + (four & 1) * 2);
        d[0] = tr_tf32(tr_number(v.x)); d[1] = tr_tf32(tr_number(v.y));
        d[2] = tr_tf32(tr_number(v.z)); d[3] = tr_tf32(tr_number(v.w));
    }
}

/* a tile of weights times both tiles of columns, `steps` blocks of 8 terms from `first` on; two chains for the sake of latency */
template <int steps> TR_DEVICE void tr_multiply(float (&sum)[2][4], const float (&w)[steps][4], const float* x, int first) {
    const int lane = threadIdx.x & 31;
    float d[2][2][4] = {};
    TR_UNROLL for (int k = 0; k < steps; k++) TR_UNROLL for (int n = 0; n < 2; n++) {
        const float* const p = x + 2 * ((((first + k) * 2 + n) * 8 + (lane >> 2)) * 4 + (lane & 3));
        tr_mma(d[k & 1][n], w[k], p[0], p[1]);
    }
    TR_UNROLL for (int n = 0; n < 2; n++) TR_UNROLL for (int i = 0; i < 4; i++) sum[n][i] = d[0][n][i] + d[1][n][i];
}

TR_DEVICE void tr_await(tr_u64* bar, unsigned parity) {
    for (int n = 0; !tr_arrived(bar, parity);) if (++n > TR_SPINS) TR_STUCK();
}

/* a value of four neighbouring lanes by the gate that it belongs to */
struct Gates { float i, f, g, o; };
TR_DEVICE float tr_of(int d, float a, float b, float c, float e) { return d == 0 ? a : d == 1 ? b : d == 2 ? c : e; }
TR_DEVICE Gates tr_gates(float y, int gate) {
    const float a = tr_shuffle(y, 1), b = tr_shuffle(y, 2), c = tr_shuffle(y, 3);
    return {tr_of(gate, y, a, b, c), tr_of(gate ^ 1, y, a, b, c), tr_of(gate ^ 2, y, a, b, c), tr_of(gate ^ 3, y, a, b, c)};
}

/* words: T, B, Xp, W, h, c, gates, scratch */
#define TR_ROWS (4 * TR_U)  /* rows that a block finishes */
TR_CLUSTERS(tr_lstm_forward, 8, TR_NT) {
    const int T = (int)tr.w[0], B = (int)tr.w[1];
    const float* const Xp = (const float*)tr.w[2];
    const float* const W = (const float*)tr.w[3];
    float* const h = (float*)tr.w[4];
    float* const c = (float*)tr.w[5];
    float* const gates = (float*)tr.w[6];
    TR_SHARED(float, x, 2 * TR_K * TR_BT);
    TR_SHARED(float, parts, 2 * TR_R * TR_ROWS * TR_BT);
    TR_SHARED(tr_u64, bar, 2);
    const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, g = lane >> 2, q = lane & 3, rank = tr_rank();
    const int cluster = blockIdx.x / TR_R % TR_C, row = blockIdx.x / TR_R / TR_C * TR_BT, rows = B - row < TR_BT ? B - row : TR_BT;
    const unsigned bytes = TR_R * TR_ROWS * TR_BT * sizeof(float);
    float w[TR_K / 8][4];
    TR_UNROLL for (int k = 0; k < TR_K / 8; k++) TR_UNROLL for (int i = 0; i < 4; i++) {
        const int m = 16 * warp + g + 8 * (i & 1), unit = m / TR_ROWS * TR_K + cluster * TR_U + m % TR_ROWS / 4;
        w[k][i] = tr_tf32(W[((tr_i64)(m & 3) * TR_H + unit) * TR_H + rank * TR_K + 8 * k + 2 * q + (i >> 1)]);
    }
    if (tid == 0) { tr_prepare(bar); tr_prepare(bar + 1); tr_expect(bar, bytes); tr_expect(bar + 1, bytes); }
    tr_meet_cluster();
    /* this thread finishes one gate of one unit in one row of the batch */
    const int gate = tid & 3, b = tid / 4 % TR_BT, own = tid / 4 / TR_BT, unit = rank * TR_K + cluster * TR_U + own;
    const bool mine = b < rows;
    const tr_i64 place = (tr_i64)(row + b) * TR_H + unit, step = (tr_i64)B * TR_H;
    const tr_i64 from = ((tr_i64)(row + b) * 4 + gate) * TR_H + unit;
    float state = mine ? c[place] : 0.0f, next = mine ? Xp[from] : 0.0f;
    for (int t = 0; t < T; t++) {
        float *const here = parts + (t & 1) * TR_R * TR_ROWS * TR_BT, *const read = x + (t & 1) * TR_K * TR_BT;
        tr_stage(read, h + t * step + (tr_i64)row * TR_H + rank * TR_K, TR_H, TR_K, rows);
        TR_BARRIER();
        float sum[2][4];
        tr_multiply<TR_K / 8>(sum, w, read, 0);
        TR_UNROLL for (int i = 0; i < 2; i++) {
            const int m = 16 * warp + g + 8 * i, to = m / TR_ROWS;
            float* const at = here + (rank * TR_ROWS + m % TR_ROWS) * TR_BT + 2 * q;
            TR_UNROLL for (int n = 0; n < 2; n++)
                tr_send(tr_remote(at + 8 * n, to), sum[n][2 * i], sum[n][2 * i + 1], tr_remote(bar + (t & 1), to));
        }
        float a = next;
        next = mine && t + 1 < T ? Xp[from + 4 * (t + 1) * step] : 0.0f;  /* fetched before the wait */
        tr_await(bar + (t & 1), t >> 1 & 1);
        TR_UNROLL for (int r = 0; r < TR_R; r++) a += here[(r * TR_ROWS + own * 4 + gate) * TR_BT + b];
        const float y = gate == 2 ? tr_tanh(a) : tr_sigmoid(a);
        const Gates v = tr_gates(y, gate);
        state = v.f * state + v.i * v.g;
        if (mine) {
            if (gate == 0) tr_hand_on_one(h + (t + 1) * step + place, tr_told(v.o * tr_tanh(state)));
            gates[(t * step + place) * 4 + gate] = y;
            if (gate == 1) c[(t + 1) * step + place] = state;
        }
        if (tid == 0 && t + 2 < T) tr_expect(bar + (t & 1), bytes);
    }
    tr_meet_cluster();
}

/* words: T, B, W, c, gates, dY [T, B, H], da, dh0 and dc0 [B, H], scratch */
#define TR_KB (4 * TR_K)                /* terms that a block reads */
#define TR_TILES (TR_UC / 16)           /* tiles of the cluster's units */
#define TR_SHARES (TR_WARPS / TR_TILES) /* warps that share the terms of a tile */
#define TR_KW (TR_KB / TR_SHARES)       /* terms of a warp */
TR_CLUSTERS(tr_lstm_backward, 10, TR_NT) {
    const int T = (int)tr.w[0], B = (int)tr.w[1];
    const float* const W = (const float*)tr.w[2];
    const float* const c = (const float*)tr.w[3];
    const float4* const gates = (const float4*)tr.w[4];
    const float* const dY = (const float*)tr.w[5];
    float* const da = (float*)tr.w[6];
    TR_DYNAMIC(x, 2 * TR_KB * TR_BT + 2 * TR_R * TR_SHARES * TR_U * TR_BT);
    float* const parts = x + 2 * TR_KB * TR_BT;
    TR_SHARED(tr_u64, bar, 2);
    const int tid = threadIdx.x, lane = tid & 31, warp = tid >> 5, g = lane >> 2, q = lane & 3, rank = tr_rank();
    const int cluster = blockIdx.x / TR_R % TR_C, row = blockIdx.x / TR_R / TR_C * TR_BT, rows = B - row < TR_BT ? B - row : TR_BT;
    const int tile = warp % TR_TILES, share = warp / TR_TILES, all = TR_R * TR_SHARES * TR_U * TR_BT;
    const unsigned bytes = all * sizeof(float);
    float w[TR_KW / 8][4];
    TR_UNROLL for (int k = 0; k < TR_KW / 8; k++) TR_UNROLL for (int i = 0; i < 4; i++) {
        const int m = 16 * tile + g + 8 * (i & 1), unit = m / TR_U * TR_K + cluster * TR_U + m % TR_U;
        const int term = share * TR_KW + 8 * k + 2 * q + (i >> 1);
        w[k][i] = tr_tf32(W[((tr_i64)(term & 3) * TR_H + rank * TR_K + term / 4) * TR_H + unit]);
    }
    if (tid == 0) { tr_prepare(bar); tr_prepare(bar + 1); tr_expect(bar, bytes); tr_expect(bar + 1, bytes); }
    tr_meet_cluster();
    const int part = tid & 3, b = tid / 4 % TR_BT, own = tid / 4 / TR_BT, unit = rank * TR_K + cluster * TR_U + own;
    const bool mine = b < rows;
    const tr_i64 place = (tr_i64)(row + b) * TR_H + unit, step = (tr_i64)B * TR_H;
    float dc = 0.0f;
    for (int s = 0; s <= T; s++) {  /* after the last step only the gradient of the first state is left to do */
        const int t = T - 1 - s;
        float dh = 0.0f, before = 0.0f, after = 0.0f, dy = 0.0f;
        float4 y = {0.0f, 0.0f, 0.0f, 0.0f};
        if (mine && t >= 0) {  /* fetched before the wait */
            y = gates[t * step + place]; before = c[t * step + place]; after = c[(t + 1) * step + place]; dy = dY[t * step + place];
        }
        if (s) {
            float *const here = parts + (s & 1) * all, *const read = x + (s & 1) * TR_KB * TR_BT;
            tr_stage(read, da + ((t + 1) * step + (tr_i64)row * TR_H + rank * TR_K) * 4, 4 * TR_H, TR_KB, rows);
            TR_BARRIER();
            float sum[2][4];
            tr_multiply<TR_KW / 8>(sum, w, read, share * (TR_KW / 8));
            TR_UNROLL for (int i = 0; i < 2; i++) {
                const int m = 16 * tile + g + 8 * i, to = m / TR_U;
                float* const at = here + ((rank * TR_SHARES + share) * TR_U + m % TR_U) * TR_BT + 2 * q;
                TR_UNROLL for (int n = 0; n < 2; n++)
                    tr_send(tr_remote(at + 8 * n, to), sum[n][2 * i], sum[n][2 * i + 1], tr_remote(bar + (s & 1), to));
            }
            tr_await(bar + (s & 1), (s - 1) >> 1 & 1);
            for (int r = part; r < TR_R * TR_SHARES; r += 4) dh += here[(r * TR_U + own) * TR_BT + b];
            dh += tr_shuffle(dh, 1);
            dh += tr_shuffle(dh, 2);
            if (tid == 0 && s + 2 <= T) tr_expect(bar + (s & 1), bytes);
        }
        if (!mine || part) continue;
        if (t < 0) {
            ((float*)tr.w[7])[place] = dh;
            ((float*)tr.w[8])[place] = dc;
            continue;
        }
        dh += dy;
        const float squashed = tr_tanh(after);
        dc += dh * y.w * (1.0f - squashed * squashed);
        const uint4 v = {tr_told(dc * y.z * y.x * (1.0f - y.x)), tr_told(dc * before * y.y * (1.0f - y.y)),
                         tr_told(dc * y.x * (1.0f - y.z * y.z)), tr_told(dh * squashed * y.w * (1.0f - y.w))};
        tr_hand_on(da + (t * step + place) * 4, v);
        dc *= y.y;
    }
    tr_meet_cluster();
}
