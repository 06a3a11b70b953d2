/* Attention, one head at a time. Included by vectors.h. */

/* Write to[0:n] = x[0:n] and to[n:T] = rest; x[n:n + LANES] must already be `rest`. Long rows are stored past the caches:
 * they are not read again soon, and a normal store would first load the line. */
static INLINE void FN(send)(const float *x, ptrdiff_t n, float rest, ptrdiff_t T, float *to) {
    ptrdiff_t i = 0;
    if (T >= MANY) {
        for (; (uintptr_t)(to + i) % (4 * LANES); i++) to[i] = i < n ? x[i] : rest;
        for (; i < n && i + LANES <= T; i += LANES) STREAM(to + i, FN(load)(x + i));
        for (; i + LANES <= T; i += LANES) STREAM(to + i, FN(set)(rest));
    }
    for (; i < n; i++) to[i] = x[i];
    for (; i < T; i++) to[i] = rest;
}

/* Pack keys [stop, A] into tiles of [A][PANEL positions], and values [stop, A] into tiles of [stop][PANEL channels]. */
static void FN(arrange)(const Attention *t, const float *k, const float *v, float *keys, float *values) {
    const ptrdiff_t A = t->width, stop = t->stop;
    for (ptrdiff_t j = 0; j < stop; j += PANEL, keys += A * PANEL) {
        const ptrdiff_t some = stop - j < PANEL ? stop - j : PANEL;
        const float *from[PANEL];
        for (ptrdiff_t n = 0; n < some; n++) from[n] = k + (j + n) * t->k.t;
        if (some < PANEL) memset(keys, 0, 4 * (size_t)(A * PANEL));
        FN(interleave)((int)some, A, from, 1.f, keys, PANEL);
    }
    for (ptrdiff_t a = 0; a < A; a += PANEL, values += stop * PANEL) {
        const ptrdiff_t some = A - a < PANEL ? A - a : PANEL;
        if (some < PANEL) memset(values, 0, 4 * (size_t)(stop * PANEL));
        for (ptrdiff_t j = 0; j < stop; j++) memcpy(values + j * PANEL, v + j * t->v.t + a, 4 * (size_t)some);
    }
}

/* Compute rows start to stop of one head; see `attention` in python.h. `room` has space for attention_room() floats. */
static void FN(head)(const Attention *t, ptrdiff_t b, ptrdiff_t h, float *room) {
#define HERE(of) (t->of.p + b * t->of.b + h * t->of.h)
    const ptrdiff_t group = h / t->shared;
    const float *q = HERE(q), *k = t->k.p + b * t->k.b + group * t->k.h, *v = t->v.p + b * t->v.b + group * t->v.h;
    const float slope = t->slopes ? t->slopes[h] : 0;
    float *z = HERE(z), *scores = HERE(scores), *pattern = HERE(pattern), *largest = HERE(largest), *total = HERE(total);
#undef HERE
    const ptrdiff_t A = t->width, T = t->length, stop = t->stop;
    const ptrdiff_t panels = (stop + PANEL - 1) / PANEL, slices = (A + PANEL - 1) / PANEL, pitch = (panels + 1) * PANEL;
    float *keys = room, *values = keys + panels * A * PANEL, *packed = values + slices * stop * PANEL;
    float *products = packed + MOST_ROWS * (stop > A ? stop : A), *sums = products + MOST_ROWS * pitch;
    static const float zeros[PANEL] = {0};
    const int few = stop - t->start < 4; /* arranging keys and values would take longer than the products */
    if (!few) FN(arrange)(t, k, v, keys, values);
    for (ptrdiff_t i = t->start; i < stop;) {
        const int rows = few ? 1 : (int)(stop - i < ROWS ? stop - i : ROWS);
        const ptrdiff_t past = i + rows, first = seen_from(t, i);
        const float *from[ROWS];
        for (int r = 0; r < rows; r++) from[r] = q + (i + r) * t->q.t;
        if (few)
            for (ptrdiff_t j = first; j < past; j++) products[j] = t->factor * FN(dot)(A, from[0], k + j * t->k.t);
        else {
            FN(interleave)(rows, A, from, t->factor, packed, rows);
            for (ptrdiff_t j = first / PANEL * PANEL; j < past; j += PANEL)
                FN(product)(rows, A, packed, keys + j * A, zeros, 0, products + j, pitch, NULL, 0);
        }
        for (int r = 0; r < rows; r++, i++) {
            float *x = products + r * pitch;
            const ptrdiff_t low = seen_from(t, i);
            if (t->slopes)
                for (ptrdiff_t j = low; j <= i; j++) x[j] += slope * (float)(j - i);
            for (ptrdiff_t j = 0; j < low; j++) x[j] = -INFINITY;
            for (ptrdiff_t j = i + 1; j <= i + LANES; j++) x[j] = -INFINITY;
            FN(send)(x, i + 1, -INFINITY, T, scores + i * t->scores.t);
            FN(softmax)(i + 1 - low, x + low, largest + i * t->largest.t, total + i * t->total.t, x + low);
            for (ptrdiff_t j = 0; j < low; j++) x[j] = 0;
            for (ptrdiff_t j = i + 1; j < past + LANES; j++) x[j] = 0;
            FN(send)(x, i + 1, 0, T, pattern + i * t->pattern.t);
            from[r] = x;
        }
        float *to = z + (past - rows) * t->z.t;
        if (few) {
            memset(to, 0, 4 * (size_t)A);
            for (ptrdiff_t j = first; j < past; j++)
                for (ptrdiff_t a = 0; a < A; a++) to[a] += products[j] * v[j * t->v.t + a];
        } else {
            FN(interleave)(rows, past, from, 1.f, packed, rows);
            for (ptrdiff_t a = 0; a < A; a += PANEL) {
                FN(product)(rows, past, packed, values + a * stop, zeros, 0, sums, PANEL, NULL, 0);
                for (int r = 0; r < rows; r++)
                    memcpy(to + r * t->z.t + a, sums + r * PANEL, 4 * (size_t)(A - a < PANEL ? A - a : PANEL));
            }
        }
    }
    FENCE();
}
