/* The arithmetic, for one vector width. Included once for each instruction set, with these defined:
 *   LANES   floats of a vector        ROWS    rows of a block of a product: what the registers hold
 *   FN(f)   the name of f for this set
 *   STREAM(to, v)   store a vector past the caches, at a multiple of its size        FENCE()   wait for such stores
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

/* exp(x) to 2 units in the last place: 2^n · e^r with |r| <= ln(2)/2; 0 where the result is subnormal in float32. */
static INLINE vf FN(exp)(vf x) {
    const float magic = 12582912.0f; /* 1.5 · 2^23: adding it rounds to an integer */
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

#include "products.h"

/* ------------------------------------------------------------------------------------------------ synthetic weights */

/* Return two vectors of values: the int16 lanes of SplitMix64's outputs for the states z. */
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

/* Generate values `first` to `first + count` of a stream: value i is lane i mod 4 of output i div 4. */
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

/* Generate a tile [rows, columns] of a matrix whose rows are `pitch` values apart. */
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

/* x / √(mean of squares + ε) · weight */
static void FN(rms)(ptrdiff_t n, const float *x, const float *weight, float epsilon, float *scale, float *out) {
    vf squares = {0};
    float rest = 0;
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES) squares += FN(load)(x + i) * FN(load)(x + i);
    for (; i < n; i++) rest += x[i] * x[i];
    const float s = sqrtf((FN(sum)(squares) + rest) / (float)n + epsilon), inverse = 1.f / s;
    for (i = 0; i + LANES <= n; i += LANES) FN(store)(out + i, FN(load)(x + i) * inverse * FN(load)(weight + i));
    for (; i < n; i++) out[i] = x[i] * inverse * weight[i];
    *scale = s;
}

/* Rotate pairs of the first `width` of n channels; cosine and sine are those of the angles. */
static void FN(rotate)(
    ptrdiff_t n, ptrdiff_t width, int neighbours, const float *x, const float *cosine, const float *sine, float *out
) {
    const ptrdiff_t half = width / 2;
    if (neighbours)
        for (ptrdiff_t i = 0; i < width; i += 2) {
            const float a = x[i], b = x[i + 1];
            out[i] = a * cosine[i] - b * sine[i];
            out[i + 1] = b * cosine[i + 1] + a * sine[i + 1];
        }
    else {
        ptrdiff_t i = 0;
        for (; i + LANES <= half; i += LANES) {
            const vf a = FN(load)(x + i), b = FN(load)(x + half + i);
            FN(store)(out + i, a * FN(load)(cosine + i) - b * FN(load)(sine + i));
            FN(store)(out + half + i, b * FN(load)(cosine + half + i) + a * FN(load)(sine + half + i));
        }
        for (; i < half; i++) {
            const float a = x[i], b = x[half + i];
            out[i] = a * cosine[i] - b * sine[i];
            out[half + i] = b * cosine[half + i] + a * sine[half + i];
        }
    }
    for (ptrdiff_t i = width; i < n; i++) out[i] = x[i] * cosine[i];
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

#include "attention.h"

#undef vf
#undef vi
#undef vu
#undef vs
#undef NV
#undef SUB
