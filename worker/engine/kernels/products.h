/* Matrix products. Weights are packed in tiles of [k][PANEL], and x in blocks of [k][rows]. Included by vectors.h. */

/* acc[r] += Σ_k a[k][r] · b[k][0:SUB] for k from 0 to depth. Every `step` of them, prefetch the first `lines` cache lines
 * of a row `ahead`. */
static INLINE void FN(multiply)(
    const int rows, const int lines, ptrdiff_t depth, ptrdiff_t step, const float *a, const float *b, const float *ahead,
    vf acc[ROWS][NV]
) {
    for (ptrdiff_t done = 0; done < depth; done += step, ahead += PANEL) {
        for (int n = 0; n < lines; n++) __builtin_prefetch(ahead + 16 * n, 0, 2);
        const ptrdiff_t stop = done + step < depth ? step : depth - done;
        for (ptrdiff_t k = 0; k < stop; k++, a += rows, b += PANEL) {
            vf column[NV];
            for (int v = 0; v < NV; v++) column[v] = FN(load)(b + v * LANES);
            for (int r = 0; r < rows; r++)
                for (int v = 0; v < NV; v++) acc[r][v] += a[r] * column[v];
        }
    }
}

/* sums[r][0:SUB] = from[r][0:SUB] + Σ_k a[k][r] · b[k][0:SUB]; rows are `pitch` and `apart` floats apart. */
static INLINE void FN(block)(
    const int rows, ptrdiff_t depth, const float *a, const float *b, const float *from, ptrdiff_t pitch, float *sums,
    ptrdiff_t apart, const float *ahead, ptrdiff_t asks
) {
    vf acc[ROWS][NV];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < NV; v++) acc[r][v] = FN(load)(from + r * pitch + v * LANES);
    /* Memory loads lines in pairs, so one per row is enough, except for a single block, which would wait for the other. */
    if (!asks) FN(multiply)(rows, 0, depth, depth, a, b, ahead, acc);
    else if (asks == depth) FN(multiply)(rows, 2, depth, 1, a, b, ahead, acc);
    else FN(multiply)(rows, 1, depth, depth / asks, a, b, ahead, acc);
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < NV; v++) FN(store)(sums + r * apart + v * LANES, acc[r][v]);
}

/* A block of up to ROWS rows times a tile; the number of rows is a compile-time constant in each case. Prefetches `asks`
 * rows of the next tile, because memory latency exceeds the time of a block. */
static void FN(product)(
    int rows, ptrdiff_t depth, const float *a, const float *tile, const float *from, ptrdiff_t pitch, float *sums,
    ptrdiff_t apart, const float *ahead, ptrdiff_t asks
) {
    for (ptrdiff_t s = 0; s < PANEL; s += SUB) {
        switch (rows) {
#define CASE(n) case n: FN(block)(n, depth, a, tile + s, from + s, pitch, sums + s, apart, ahead, asks); break;
            CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#if ROWS > 6
            CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#endif
#undef CASE
        }
    }
}

/* Transpose LANES × LANES values: exchange the off-diagonal blocks of 1, 2, 4 … lanes. */
#define LOW(j, s) ((j) & (s) ? LANES + (j) - (s) : (j))
#define HIGH(j, s) ((j) & (s) ? LANES + (j) : (j) + (s))
#define FOUR(f, j, s) f(j, s), f(j + 1, s), f(j + 2, s), f(j + 3, s)
#if LANES == 16
#define ALL(f, s) FOUR(f, 0, s), FOUR(f, 4, s), FOUR(f, 8, s), FOUR(f, 12, s)
#elif LANES == 8
#define ALL(f, s) FOUR(f, 0, s), FOUR(f, 4, s)
#else
#define ALL(f, s) FOUR(f, 0, s)
#endif
#define EXCHANGE(s)                                                                                                    \
    for (int i = 0; i < LANES; i++)                                                                                    \
        if (!(i & s)) {                                                                                                \
            const vf low = x[i], high = x[i + s];                                                                      \
            x[i] = SHUFFLE(low, high, ALL(LOW, s));                                                                    \
            x[i + s] = SHUFFLE(low, high, ALL(HIGH, s));                                                               \
        }

static INLINE void FN(transpose)(vf x[LANES]) {
    EXCHANGE(1)
    EXCHANGE(2)
#if LANES > 4
    EXCHANGE(4)
#endif
#if LANES > 8
    EXCHANGE(8)
#endif
}

#undef LOW
#undef HIGH
#undef FOUR
#undef ALL
#undef EXCHANGE

/* out[k · pitch + r] = factor · x[r][k]; out has space for depth · pitch floats. */
static void FN(interleave)(int rows, ptrdiff_t depth, const float **x, float factor, float *out, ptrdiff_t pitch) {
    ptrdiff_t k = 0;
    for (; k + LANES <= depth; k += LANES)
        for (int some = (rows - 1) / LANES * LANES; some >= 0; some -= LANES) { /* the next group overwrites the excess */
            vf part[LANES];
            for (int r = 0; r < LANES; r++) part[r] = some + r < rows ? FN(load)(x[some + r] + k) * factor : FN(set)(0);
            FN(transpose)(part);
            for (int j = 0; j < LANES; j++) {
                float *to = out + (k + j) * pitch + some;
                if (to + LANES <= out + depth * pitch) FN(store)(to, part[j]);
                else memcpy(to, &part[j], 4 * (size_t)(rows - some));
            }
        }
    for (; k < depth; k++)
        for (int r = 0; r < rows; r++) out[k * pitch + r] = factor * x[r][k];
}
