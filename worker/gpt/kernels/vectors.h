/* The arithmetic, for one vector width. Included once for each instruction set, with these defined:
 *   LANES   floats of a vector        ROWS   rows of a block of a product: what the registers hold
 *   FN(f)   the name of f for this set
 * A product's weights come in tiles of [k][PANEL]; what they multiply is packed as [k][rows of the block].
 */

typedef float FN(vf) __attribute__((vector_size(4 * LANES)));
typedef int32_t FN(vi) __attribute__((vector_size(4 * LANES)));
typedef uint64_t FN(vu) __attribute__((vector_size(4 * LANES)));
typedef int16_t FN(vs) __attribute__((vector_size(2 * LANES)));
#define vf FN(vf)
#define vi FN(vi)
#define vu FN(vu)
#define vs FN(vs)
#define NV 2             /* vectors of a row of a block */
#define SUB (NV * LANES) /* columns of a block; PANEL is a multiple of it */

static INLINE vf FN(load)(const float *p) { vf v; memcpy(&v, p, sizeof v); return v; }
static INLINE void FN(store)(float *p, vf v) { memcpy(p, &v, sizeof v); }
static INLINE vf FN(set)(float x) { return (vf){0} + x; }
static INLINE vf FN(pick)(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
static INLINE vf FN(larger)(vf a, vf b) { return FN(pick)(a > b, a, b); }

static INLINE float FN(sum)(vf v) {
    float s = 0;
    for (int i = 0; i < LANES; i++) s += v[i];
    return s;
}

static INLINE float FN(most)(vf v) {
    float m = v[0];
    for (int i = 1; i < LANES; i++) m = v[i] > m ? v[i] : m;
    return m;
}

/* exp(x) to 2 units in the last place: 2^n · e^r with |r| <= ln(2)/2; 0 where float32 has no normal number for it. */
static INLINE vf FN(exp)(vf x) {
    const float magic = 12582912.0f; /* 1.5 · 2^23: adding it rounds to a whole number */
    vf there = (vf)((vi)(x > -87.33f));
    x = FN(pick)(x > 88.3f, FN(set)(88.3f), x);
    x = FN(pick)((vi)there, x, FN(set)(-87.33f));
    vf shifted = x * 1.44269504f + magic, n = shifted - magic;
    vf r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vf p = FN(set)(1.f / 5040);
    p = p * r + 1.f / 720;
    p = p * r + 1.f / 120;
    p = p * r + 1.f / 24;
    p = p * r + 1.f / 6;
    p = p * r + 0.5f;
    p = p * (r * r) + r + 1.f;
    vi power = ((vi)shifted - (vi)FN(set)(magic) + 127) << 23;
    return (vf)((vi)(p * (vf)power) & (vi)there);
}

/* ------------------------------------------------------------------------------------------------ products */

/* acc[r] += Σ_k a[k][r] · b[k][0:SUB], for k from 0 to depth; meanwhile as many rows of `ahead` are asked for. */
static INLINE void FN(multiply)(
    const int rows, const int ask, ptrdiff_t depth, const float *a, const float *b, const float *ahead, vf acc[ROWS][NV]
) {
    for (ptrdiff_t k = 0; k < depth; k++, a += rows, b += PANEL) {
        vf column[NV];
        for (int v = 0; v < NV; v++) {
            if (ask) __builtin_prefetch(ahead + k * PANEL + v * LANES, 0, 2);
            column[v] = FN(load)(b + v * LANES);
        }
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < NV; v++) acc[r][v] += a[r] * column[v];
    }
}

/* y[r][0:columns] = start + Σ_k a[k][r] · b[k][0:SUB], `start` being y itself (add) or init[0:SUB]. */
static INLINE void FN(block)(
    const int rows, ptrdiff_t depth, const float *a, const float *b, const float *init, int add, float **y,
    ptrdiff_t at, ptrdiff_t columns, const float *ahead, ptrdiff_t asks
) {
    vf acc[ROWS][NV];
    float edge[ROWS][SUB];
    if (add && columns < SUB)
        for (int r = 0; r < rows; r++) memcpy(edge[r], y[r] + at, 4 * (size_t)columns);
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < NV; v++)
            acc[r][v] = add ? FN(load)((columns < SUB ? edge[r] : y[r] + at) + v * LANES) : FN(load)(init + v * LANES);
    FN(multiply)(rows, 1, asks, a, b, ahead, acc);
    FN(multiply)(rows, 0, depth - asks, a + asks * rows, b + asks * PANEL, ahead, acc);
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < NV; v++) FN(store)((columns < SUB ? edge[r] : y[r] + at) + v * LANES, acc[r][v]);
    if (columns < SUB)
        for (int r = 0; r < rows; r++) memcpy(y[r] + at, edge[r], 4 * (size_t)columns);
}

/* A block of up to ROWS rows times a tile: the number of rows must be known when this is compiled. Meanwhile the first
 * `asks` rows of what comes later are asked for, as memory takes longer to answer than a block takes. */
static void FN(product)(
    int rows, ptrdiff_t depth, const float *a, const float *tile, const float *init, int add, float **y, ptrdiff_t at,
    ptrdiff_t columns, const float *ahead, ptrdiff_t asks
) {
    for (ptrdiff_t s = 0; s < PANEL && s < columns; s += SUB) {
        const ptrdiff_t some = columns - s < SUB ? columns - s : SUB;
        switch (rows) {
#define CASE(n) case n: FN(block)(n, depth, a, tile + s, init + s, add, y, at + s, some, ahead + s, asks); break;
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if ROWS > 6
            CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
#undef CASE
        }
    }
}

/* rows [rows][depth] -> [depth][rows], times a factor. */
static void FN(interleave)(int rows, ptrdiff_t depth, const float **x, float factor, float *out) {
    for (ptrdiff_t some = 0; some < depth; some += 64) /* what is written stays in the first cache */
        for (int r = 0; r < rows; r++) {
            const float *row = x[r];
            float *to = out + r;
            for (ptrdiff_t k = some; k < depth && k < some + 64; k++) to[k * rows] = factor * row[k];
        }
}

/* ------------------------------------------------------------------------------------------------ synthetic weights */

/* Two vectors of values: lanes (int16) of the outputs of SplitMix64 in the states z. */
static INLINE void FN(values)(vu z, float scale, vf out[2]) {
    z ^= z >> 30;
    z *= 0xBF58476D1CE4E5B9ull;
    z ^= z >> 27;
    z *= 0x94D049BB133111EBull;
    z ^= z >> 31;
    vs lanes[2];
    memcpy(lanes, &z, sizeof z);
    for (int half = 0; half < 2; half++) out[half] = (__builtin_convertvector(lanes[half], vf) + 0.5f) * scale;
}

static INLINE vu FN(steps)(void) {
    vu steps;
    for (int i = 0; i < LANES / 2; i++) steps[i] = (uint64_t)i * GAMMA;
    return steps;
}

/* Values `first` to `first + count` of a stream: lane i mod 4 of output i div 4. */
static void FN(draw)(uint64_t base, float scale, uint64_t first, ptrdiff_t count, float *out) {
    const vu steps = FN(steps)();
    uint64_t word = first / 4;
    for (ptrdiff_t done = -(ptrdiff_t)(first % 4); done < count; done += 2 * LANES, word += LANES / 2) {
        vf values[2];
        FN(values)(steps + (base + word * GAMMA), scale, values);
        for (int half = 0; half < 2; half++) {
            const ptrdiff_t at = done + half * LANES;
            if (at >= 0 && at + LANES <= count) FN(store)(out + at, values[half]);
            else
                for (int i = 0; i < LANES; i++)
                    if (at + i >= 0 && at + i < count) out[at + i] = values[half][i];
        }
    }
}

/* A tile [rows, columns] of a matrix whose rows are `pitch` values apart. */
static void FN(draw_tile)(
    uint64_t base, float scale, uint64_t first, ptrdiff_t pitch, ptrdiff_t rows, ptrdiff_t columns, float *tile
) {
    const vu steps = FN(steps)();
    const int whole = columns == PANEL && first % 4 == 0 && pitch % 4 == 0;
    for (ptrdiff_t r = 0; r < rows; r++, first += (uint64_t)pitch, tile += PANEL) {
        if (whole)
            for (int c = 0; c < PANEL; c += 2 * LANES) {
                vf values[2];
                FN(values)(steps + (base + (first + (uint64_t)c) / 4 * GAMMA), scale, values);
                FN(store)(tile + c, values[0]);
                FN(store)(tile + c + LANES, values[1]);
            }
        else FN(draw)(base, scale, first, columns, tile);
    }
}

/* ------------------------------------------------------------------------------------------------ elements and rows */

static INLINE vf FN(activated)(int function, vf x) {
    const vf one = FN(set)(1.f);
    if (function == GELU_NEW) { /* tanh(u) = 1 − 2/(e^2u + 1) */
        vf u = x * (0.7978845608f * (1.f + 0.044715f * x * x));
        return 0.5f * x * (2.f - 2.f / (FN(exp)(2.f * u) + 1.f));
    }
    if (function == GELU) { /* the error function of Abramowitz and Stegun 7.1.26 */
        vf m = (vf)((vi)x & 0x7FFFFFFF) * 0.70710678f, t = one / (1.f + 0.3275911f * m);
        vf series = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
        vf erf = 1.f - series * FN(exp)(-m * m);
        erf = (vf)((vi)erf | ((vi)x & INT32_MIN));
        return 0.5f * x * (1.f + erf);
    }
    if (function == SILU) return x / (1.f + FN(exp)(-x));
    return FN(larger)(x, (vf){0});
}

static void FN(activate)(int function, ptrdiff_t n, const float *x, float *out) {
    ptrdiff_t i = 0;
#define EACH(which) for (; i + LANES <= n; i += LANES) FN(store)(out + i, FN(activated)(which, FN(load)(x + i)));
    if (function == GELU_NEW) EACH(GELU_NEW) else if (function == GELU) EACH(GELU) else if (function == SILU) EACH(SILU)
    else EACH(RELU)
#undef EACH
    if (i < n) {
        float rest[LANES] = {0};
        memcpy(rest, x + i, 4 * (size_t)(n - i));
        FN(store)(rest, FN(activated)(function, FN(load)(rest)));
        memcpy(out + i, rest, 4 * (size_t)(n - i));
    }
}

static void FN(normalise)(
    ptrdiff_t n, const float *x, const float *weight, const float *bias, float epsilon, float *mean, float *scale,
    float *out
) {
    vf total = {0}, squares = {0};
    float rest = 0, more = 0;
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES) total += FN(load)(x + i);
    for (; i < n; i++) rest += x[i];
    const float m = (FN(sum)(total) + rest) / (float)n;
    for (i = 0; i + LANES <= n; i += LANES) {
        vf d = FN(load)(x + i) - m;
        squares += d * d;
    }
    for (; i < n; i++) more += (x[i] - m) * (x[i] - m);
    const float s = sqrtf((FN(sum)(squares) + more) / (float)n + epsilon), inverse = 1.f / s;
    for (i = 0; i + LANES <= n; i += LANES)
        FN(store)(out + i, (FN(load)(x + i) - m) * inverse * FN(load)(weight + i) + FN(load)(bias + i));
    for (; i < n; i++) out[i] = (x[i] - m) * inverse * weight[i] + bias[i];
    *mean = m;
    *scale = s;
}

static void FN(softmax)(ptrdiff_t n, const float *x, float *largest, float *total, float *out) {
    float most = -INFINITY, sum = 0;
    ptrdiff_t i = 0;
    if (n >= LANES) {
        vf m = FN(load)(x);
        for (i = LANES; i + LANES <= n; i += LANES) m = FN(larger)(FN(load)(x + i), m);
        most = FN(most)(m);
    }
    for (; i < n; i++) most = x[i] > most ? x[i] : most;
    vf sums = {0};
    for (i = 0; i + LANES <= n; i += LANES) {
        vf e = FN(exp)(FN(load)(x + i) - most);
        sums += e;
        FN(store)(out + i, e);
    }
    if (i < n) {
        float rest[LANES];
        for (ptrdiff_t k = 0; k < LANES; k++) rest[k] = i + k < n ? x[i + k] - most : -1000.f;
        FN(store)(rest, FN(exp)(FN(load)(rest)));
        for (ptrdiff_t k = i; k < n; k++) sum += out[k] = rest[k - i];
    }
    sum += FN(sum)(sums);
    const float inverse = 1.f / sum;
    for (i = 0; i + LANES <= n; i += LANES) FN(store)(out + i, FN(load)(out + i) * inverse);
    for (; i < n; i++) out[i] *= inverse;
    *largest = most;
    *total = sum;
}

static INLINE float FN(dot)(ptrdiff_t n, const float *x, const float *y) {
    vf total = {0};
    float rest = 0;
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES) total += FN(load)(x + i) * FN(load)(y + i);
    for (; i < n; i++) rest += x[i] * y[i];
    return FN(sum)(total) + rest;
}

/* ------------------------------------------------------------------------------------------------ attention */

/* One head, its rows start to stop; see `attention` in kernels.c. `room` holds attention_room() floats. */
static void FN(head)(const Attention *t, ptrdiff_t b, ptrdiff_t h, float *room) {
    const ptrdiff_t A = t->width, T = t->length, stop = t->stop;
    const ptrdiff_t panels = (stop + PANEL - 1) / PANEL, slices = (A + PANEL - 1) / PANEL;
    const float *q = t->q.p + b * t->q.b + h * t->q.h, *k = t->k.p + b * t->k.b + h * t->k.h;
    const float *v = t->v.p + b * t->v.b + h * t->v.h;
    float *z = t->z.p + b * t->z.b + h * t->z.h;
    float *scores = t->scores.p + b * t->scores.b + h * t->scores.h;
    float *pattern = t->pattern.p + b * t->pattern.b + h * t->pattern.h;
    float *largest = t->largest.p + b * t->largest.b + h * t->largest.h;
    float *total = t->total.p + b * t->total.b + h * t->total.h;
    float *keys = room, *values = keys + panels * A * PANEL, *packed = values + slices * stop * PANEL;
    static const float zeros[PANEL] = {0};
    const int few = stop - t->start < 4; /* packing keys and values would take longer than their products */
    if (!few) {
        memset(keys + (panels - 1) * A * PANEL, 0, 4 * (size_t)(A * PANEL));
        for (ptrdiff_t j = 0; j < stop; j++)
            for (ptrdiff_t a = 0; a < A; a++) keys[(j / PANEL) * A * PANEL + a * PANEL + j % PANEL] = k[j * t->k.t + a];
        if (A % PANEL) memset(values + (slices - 1) * stop * PANEL, 0, 4 * (size_t)(stop * PANEL));
        for (ptrdiff_t s = 0; s < slices; s++)
            for (ptrdiff_t j = 0; j < stop; j++)
                memcpy(values + (s * stop + j) * PANEL, v + j * t->v.t + s * PANEL,
                       4 * (size_t)(A - s * PANEL < PANEL ? A - s * PANEL : PANEL));
    }
    for (ptrdiff_t i = t->start; i < stop;) {
        const int rows = few ? 1 : (int)(stop - i < ROWS ? stop - i : ROWS);
        const ptrdiff_t past = i + rows;
        const float *from[ROWS];
        float *to[ROWS];
        for (int r = 0; r < rows; r++) from[r] = q + (i + r) * t->q.t, to[r] = scores + (i + r) * t->scores.t;
        if (few)
            for (ptrdiff_t j = 0; j < past; j++) to[0][j] = t->factor * FN(dot)(A, from[0], k + j * t->k.t);
        else {
            FN(interleave)(rows, A, from, t->factor, packed);
            for (ptrdiff_t p = 0; p * PANEL < past; p++)
                FN(product)(rows, A, packed, keys + p * A * PANEL, zeros, 0, to, p * PANEL, T - p * PANEL, keys, 0);
        }
        for (int r = 0; r < rows; r++) {
            const ptrdiff_t seen = i + r + 1;
            float *out = pattern + (i + r) * t->pattern.t;
            FN(softmax)(seen, to[r], largest + (i + r) * t->largest.t, total + (i + r) * t->total.t, out);
            for (ptrdiff_t j = seen; j < T; j++) to[r][j] = -INFINITY;
            memset(out + seen, 0, 4 * (size_t)(T - seen));
            from[r] = out;
        }
        for (int r = 0; r < rows; r++) to[r] = z + (i + r) * t->z.t;
        if (few) {
            memset(to[0], 0, 4 * (size_t)A);
            for (ptrdiff_t j = 0; j < past; j++)
                for (ptrdiff_t a = 0; a < A; a++) to[0][a] += from[0][j] * v[j * t->v.t + a];
        } else {
            FN(interleave)(rows, past, from, 1.f, packed);
            for (ptrdiff_t s = 0; s < slices; s++)
                FN(product)(rows, past, packed, values + s * stop * PANEL, zeros, 0, to, s * PANEL, A - s * PANEL, values, 0);
        }
        i += rows;
    }
}

#undef vf
#undef vi
#undef vu
#undef vs
#undef NV
#undef SUB
