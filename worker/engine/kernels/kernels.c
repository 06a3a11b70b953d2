/* The operations of a forward pass in which NumPy is slowest: products of few rows with large matrices, and elementwise
 * passes. They write to given arrays, on all cores, without the GIL.
 *
 * vectors.h has the arithmetic. This file has the instruction sets and divides the work; python.h has the functions.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define PANEL 32     /* columns of a tile of weights */
#define DEPTH 256    /* rows of a tile: 32 KiB, which stay in the L1 or L2 cache while all rows of x pass */
#define CHUNK 16     /* blocks of x per panel: CHUNK · MOST_ROWS · DEPTH floats fit in the L2 cache */
#define STRIP 8      /* panels that a chunk is multiplied by before its next DEPTH rows are */
#define MOST_ROWS 12 /* of a block of x */
#define ROOM (DEPTH * PANEL + STRIP * CHUNK * MOST_ROWS * PANEL) /* floats of a thread: a tile, and the sums of its blocks */
#define MANY 256     /* positions from which on scores are stored past the caches */
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif
#define GAMMA 0x9E3779B97F4A7C15ull

enum { GELU_NEW, GELU, RELU, SILU };
enum { ROWS_OF_WEIGHTS, TABLE, PACKED, DRAWN, DRAWN_TABLE };

typedef struct { float *p; ptrdiff_t b, h, t; } Heads; /* strides of batch, head and position, in floats */
typedef struct {
    Heads q, k, v, z, scores, pattern, largest, total;
    ptrdiff_t batch, heads, width, length, start, stop;
    ptrdiff_t shared; /* query heads per head of keys and values */
    ptrdiff_t window; /* keys that a query attends to at most, its own included */
    const float *slopes; /* per head, times the distance, are subtracted from scores; NULL for none */
    float factor;
} Attention;

/* Return the first key that query i attends to. */
static INLINE ptrdiff_t seen_from(const Attention *t, ptrdiff_t i) { return i < t->window ? 0 : i - t->window + 1; }

/* ------------------------------------------------------------------------------------------------ instruction sets */

typedef struct {
    int rows; /* of a block of a product */
    void (*product)(int, ptrdiff_t, const float *, const float *, const float *, ptrdiff_t, float *, ptrdiff_t,
                    const float *, ptrdiff_t);
    void (*interleave)(int, ptrdiff_t, const float **, float, float *, ptrdiff_t);
    void (*draw)(uint64_t, float, uint64_t, ptrdiff_t, float *);
    void (*draw_tile)(uint64_t, float, uint64_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, float *);
    void (*activate)(int, ptrdiff_t, const float *, float *);
    void (*normalise)(ptrdiff_t, const float *, const float *, const float *, float, float *, float *, float *);
    void (*rms)(ptrdiff_t, const float *, const float *, float, float *, float *);
    void (*rotate)(ptrdiff_t, ptrdiff_t, int, const float *, const float *, const float *, float *);
    void (*softmax)(ptrdiff_t, const float *, float *, float *, float *);
    void (*head)(const Attention *, ptrdiff_t, ptrdiff_t, float *);
} Set;

#if defined(__x86_64__)
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#define LANES 16
#define ROWS MOST_ROWS
#define STREAM(to, v) _mm512_stream_ps(to, (__m512)(v))
#define FENCE() _mm_sfence()
#define FN(f) f##_avx512
#include "vectors.h"
static const Set avx512 = {
    ROWS, product_avx512, interleave_avx512, draw_avx512, draw_tile_avx512, activate_avx512, normalise_avx512, rms_avx512,
    rotate_avx512, softmax_avx512, head_avx512,
};
#undef LANES
#undef ROWS
#undef STREAM
#undef FENCE
#undef FN
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define LANES 8
#define ROWS 6
#define STREAM(to, v) _mm256_stream_ps(to, (__m256)(v))
#define FENCE() _mm_sfence()
#define FN(f) f##_avx2
#include "vectors.h"
static const Set avx2 = {
    ROWS, product_avx2, interleave_avx2, draw_avx2, draw_tile_avx2, activate_avx2, normalise_avx2, rms_avx2,
    rotate_avx2, softmax_avx2, head_avx2,
};
#undef LANES
#undef ROWS
#undef STREAM
#undef FENCE
#undef FN
#pragma GCC pop_options
#else
#define LANES 4
#define ROWS MOST_ROWS
#define STREAM(to, v) FN(store)(to, v)
#define FENCE()
#define FN(f) f##_plain
#include "vectors.h"
static const Set plain = {
    ROWS, product_plain, interleave_plain, draw_plain, draw_tile_plain, activate_plain, normalise_plain, rms_plain,
    rotate_plain, softmax_plain, head_plain,
};
#endif

static const Set *set; /* NULL if this processor has none of them */

static const Set *best(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512vl"))
        return &avx512;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &avx2 : NULL;
#else
    return &plain;
#endif
}

#include "threads.h"

/* ------------------------------------------------------------------------------------------------ products */

typedef struct {
    ptrdiff_t M, K, N; /* y [M, N] = x [M, K] · weights [K, N] + bias */
    const float *bias, *weights, *packed;
    float **y;
    int kind, add;
    ptrdiff_t pitch;  /* between rows of weights, in floats or values of the stream */
    uint64_t base, first; /* of the stream of synthetic weights, and the index of the first */
    float scale;
} Linear;

static ptrdiff_t blocks(ptrdiff_t M) { return (M + set->rows - 1) / set->rows; }

/* Return the first row of block n; blocks are of about equal size. */
static ptrdiff_t block_start(ptrdiff_t M, ptrdiff_t n) { return M * n / blocks(M); }

static void fill_tile(const Linear *t, ptrdiff_t n, ptrdiff_t columns, ptrdiff_t k, ptrdiff_t depth, float *tile) {
    float drawn[PANEL * DEPTH];
    const float *rows[PANEL]; /* of a table: the columns of the tile */
    if (columns < PANEL) memset(tile, 0, 4 * (size_t)(depth * PANEL));
    if (t->kind == ROWS_OF_WEIGHTS)
        for (ptrdiff_t d = 0; d < depth; d++)
            memcpy(tile + d * PANEL, t->weights + (k + d) * t->pitch + n, 4 * (size_t)columns);
    else if (t->kind == DRAWN)
        set->draw_tile(t->base, t->scale, t->first + (uint64_t)(k * t->pitch + n), t->pitch, depth, columns, tile);
    else {
        for (ptrdiff_t c = 0; c < columns; c++) {
            const ptrdiff_t at = (n + c) * t->pitch + k;
            rows[c] = t->kind == DRAWN_TABLE ? drawn + c * DEPTH : t->weights + at;
            if (t->kind == DRAWN_TABLE) set->draw(t->base, t->scale, t->first + (uint64_t)at, depth, drawn + c * DEPTH);
        }
        set->interleave((int)columns, depth, rows, 1.f, tile, PANEL);
    }
}

static INLINE void copy(float *to, const float *from, ptrdiff_t columns) {
    if (columns == PANEL) memcpy(to, from, 4 * PANEL); /* the usual case, inlined */
    else memcpy(to, from, 4 * (size_t)columns);
}

/* Multiply blocks `from` to `to` of x by rows k to k + depth of a panel. `sums` [rows][PANEL] accumulate, and are written
 * to y after the last rows. Each block prefetches a part of the `next` tile. */
static void do_panel(
    const Linear *t, ptrdiff_t panel, ptrdiff_t k, ptrdiff_t depth, ptrdiff_t from, ptrdiff_t to, const float *next,
    float *tile, float *sums
) {
    const ptrdiff_t n = panel * PANEL, columns = t->N - n < PANEL ? t->N - n : PANEL;
    const ptrdiff_t asks = next ? (depth + to - from - 1) / (to - from) : 0;
    const int begun = k || t->add, last = k + depth == t->K;
    const float *weights = tile;
    float bias[PANEL] = {0};
    if (t->bias) copy(bias, t->bias + n, columns);
    if (t->kind == PACKED) weights = t->weights + (panel * t->K + k) * PANEL;
    else fill_tile(t, n, columns, k, depth, tile);
    for (ptrdiff_t block = from; block < to; block++) {
        const ptrdiff_t m = block_start(t->M, block), rows = block_start(t->M, block + 1) - m;
        float **y = t->y + m;
        for (ptrdiff_t r = 0; r < rows && last; r++) /* loaded while the block is multiplied */
            for (ptrdiff_t c = 0; c < columns; c += 16) __builtin_prefetch(y[r] + n + c, 1);
        for (ptrdiff_t r = 0; r < rows && t->add && !k; r++) copy(sums + r * PANEL, y[r] + n, columns);
        set->product((int)rows, depth, t->packed + m * t->K + k * rows, weights, begun ? sums : bias, begun ? PANEL : 0,
                     sums, PANEL, next, asks);
        for (ptrdiff_t r = 0; r < rows && last; r++) copy(y[r] + n, sums + r * PANEL, columns);
        sums += rows * PANEL;
        if (next) next += asks * PANEL;
    }
}

static ptrdiff_t chunks(ptrdiff_t M) { return (blocks(M) + CHUNK - 1) / CHUNK; }

/* Return the panels per task: neighbours in memory, each of which is prefetched while the one before is multiplied. */
static ptrdiff_t strip(ptrdiff_t N) {
    const ptrdiff_t fair = N / (PANEL * 4 * pool.threads);
    return fair < 1 ? 1 : fair < STRIP ? fair : STRIP;
}

static ptrdiff_t tasks(ptrdiff_t M, ptrdiff_t N) { return chunks(M) * ((N + PANEL * strip(N) - 1) / (PANEL * strip(N))); }

static void do_product(void *argument, ptrdiff_t task, int thread) {
    const Linear *t = argument;
    const ptrdiff_t panels = (t->N + PANEL - 1) / PANEL, all = chunks(t->M), chunk = task % all;
    const ptrdiff_t first = task / all * strip(t->N), last = first + strip(t->N) < panels ? first + strip(t->N) : panels;
    const ptrdiff_t from = blocks(t->M) * chunk / all, to = blocks(t->M) * (chunk + 1) / all;
    const ptrdiff_t at_once = all > 1 ? last - first : 1; /* panels that take turns, so that a part of a chunk stays in the cache */
    float *tile = rooms[thread].p, *sums = tile + DEPTH * PANEL;
    for (ptrdiff_t some = first; some < last; some += at_once)
        for (ptrdiff_t k = 0; k < t->K; k += DEPTH)
            for (ptrdiff_t n = 0; n < at_once; n++) {
                const ptrdiff_t depth = t->K - k < DEPTH ? t->K - k : DEPTH;
                const ptrdiff_t next = n + 1 < at_once ? (some + n + 1) * t->K + k : some * t->K + k + depth;
                do_panel(t, some + n, k, depth, from, to, t->kind == PACKED ? t->weights + next * PANEL : NULL, tile,
                         sums + n * CHUNK * MOST_ROWS * PANEL);
            }
}

static void pack_panel(void *argument, ptrdiff_t panel, int thread) {
    const Linear *t = argument;
    (void)thread;
    const ptrdiff_t n = panel * PANEL, columns = t->N - n < PANEL ? t->N - n : PANEL;
    for (ptrdiff_t k = 0; k < t->K; k += DEPTH)
        fill_tile(t, n, columns, k, t->K - k < DEPTH ? t->K - k : DEPTH, t->y[0] + (panel * t->K + k) * PANEL);
}

typedef struct { const float **x; float *packed; ptrdiff_t M, K; } Interleave;

static void interleave_block(void *argument, ptrdiff_t block, int thread) {
    const Interleave *t = argument;
    (void)thread;
    const ptrdiff_t m = block_start(t->M, block), rows = block_start(t->M, block + 1) - m;
    set->interleave((int)rows, t->K, t->x + m, 1.f, t->packed + m * t->K, rows);
}

/* ------------------------------------------------------------------------------------------------ rows and heads */

typedef struct { float *p; ptrdiff_t batch, rows, n, b, r; } Rows; /* [batch, rows, n], strides in floats */

static float *row(const Rows *x, ptrdiff_t i) { return x->p + i / x->rows * x->b + i % x->rows * x->r; }

typedef struct {
    int what, function;
    Rows x, y, out, mean, scale;
    const float *weight, *bias;
    float epsilon;
} Each;

enum { NORMALISE, RMS, SOFTMAX, ACTIVATE, GATE, ADD };

static void do_row(void *argument, ptrdiff_t i, int thread) {
    const Each *t = argument;
    (void)thread;
    const float *x = row(&t->x, i);
    float *out = row(&t->out, i);
    if (t->what == NORMALISE)
        set->normalise(t->x.n, x, t->weight, t->bias, t->epsilon, row(&t->mean, i), row(&t->scale, i), out);
    else if (t->what == RMS) set->rms(t->x.n, x, t->weight, t->epsilon, row(&t->scale, i), out);
    else if (t->what == SOFTMAX) set->softmax(t->x.n, x, row(&t->mean, i), row(&t->scale, i), out);
    else if (t->what == ACTIVATE || t->what == GATE) set->activate(t->function, t->x.n, x, out);
    if (t->what == GATE || t->what == ADD) {
        const float *y = row(&t->y, i);
        if (t->what == ADD)
            for (ptrdiff_t n = 0; n < t->x.n; n++) out[n] = x[n] + y[n];
        else
            for (ptrdiff_t n = 0; n < t->x.n; n++) out[n] *= y[n];
    }
}

typedef struct {
    Heads x, out;
    const float *cosine, *sine; /* [T, A] */
    ptrdiff_t positions, heads, channels, width, cosine_pitch, sine_pitch;
    int neighbours;
} Rotation;

/* Rotate all heads of a position. */
static void rotate_position(void *argument, ptrdiff_t task, int thread) {
    const Rotation *t = argument;
    (void)thread;
    const ptrdiff_t b = task / t->positions, i = task % t->positions;
    for (ptrdiff_t h = 0; h < t->heads; h++)
        set->rotate(
            t->channels, t->width, t->neighbours, t->x.p + b * t->x.b + i * t->x.t + h * t->x.h,
            t->cosine + i * t->cosine_pitch, t->sine + i * t->sine_pitch, t->out.p + b * t->out.b + i * t->out.t + h * t->out.h
        );
}

static void do_head(void *argument, ptrdiff_t task, int thread) {
    const Attention *t = argument;
    set->head(t, task / t->heads, task % t->heads, rooms[thread].p);
}

/* Return the floats for packed keys and values, a block of queries or of the pattern, their products, and a block of z. */
static ptrdiff_t attention_room(const Attention *t) {
    const ptrdiff_t panels = (t->stop + PANEL - 1) / PANEL, slices = (t->width + PANEL - 1) / PANEL;
    return panels * t->width * PANEL + slices * t->stop * PANEL + MOST_ROWS * (t->stop > t->width ? t->stop : t->width)
         + MOST_ROWS * (panels + 1) * PANEL + MOST_ROWS * PANEL;
}

typedef struct { uint64_t base, first; float scale; ptrdiff_t count; float *out; } Draw;

#define RUN 65536

static void draw_run(void *argument, ptrdiff_t n, int thread) {
    const Draw *t = argument;
    (void)thread;
    const ptrdiff_t at = n * RUN;
    set->draw(t->base, t->scale, t->first + (uint64_t)at, t->count - at < RUN ? t->count - at : RUN, t->out + at);
}

#include "python.h"
