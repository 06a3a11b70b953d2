/* The module's functions. Arrays are passed by the buffer protocol: float32, with a contiguous last axis. */

typedef struct { Py_buffer view; int held; ptrdiff_t n[4], s[4]; float *p; } Array;

static int array(PyObject *object, int axes, int writable, Array *a) {
    if (PyObject_GetBuffer(object, &a->view, PyBUF_STRIDES | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0)) < 0) return 0;
    a->held = 1;
    a->p = a->view.buf;
    if (a->view.ndim != axes || strcmp(a->view.format, "f") != 0)
        return PyErr_Format(PyExc_TypeError, "a float32 array of %d axes is expected", axes), 0;
    for (int n = 0; n < axes; n++) {
        a->n[n] = a->view.shape[n];
        a->s[n] = a->view.strides[n] / 4;
    }
    if (axes && a->n[axes - 1] > 1 && a->s[axes - 1] != 1)
        return PyErr_SetString(PyExc_TypeError, "the last axis must have no gaps"), 0;
    return 1;
}

static void release(Array *arrays, int count) {
    for (int n = 0; n < count; n++)
        if (arrays[n].held) PyBuffer_Release(&arrays[n].view);
}

static Rows rows_of(const Array *a) { return (Rows){a->p, a->n[0], a->n[1], a->n[2], a->s[0], a->s[1]}; }

static int same(int condition) {
    if (!condition) PyErr_SetString(PyExc_ValueError, "the arrays' shapes do not fit each other");
    return condition;
}

#define BEGIN Py_BEGIN_ALLOW_THREADS pthread_mutex_lock(&one_at_a_time);
#define END pthread_mutex_unlock(&one_at_a_time); Py_END_ALLOW_THREADS
#define ENOUGH 20000 /* operations above which the other threads are woken */

/* Parse one product of `linear`, y = x · weights + bias. The caller releases its arrays. */
static int product_of(PyObject *given, const Array *x, int add, Linear *t, Array *bias, Array *out, Array *weights) {
    PyObject *bias_, *out_, *weights_;
    unsigned long long base, first;
    if (!PyTuple_Check(given)) return PyErr_SetString(PyExc_TypeError, "a product is a tuple"), 0;
    if (!PyArg_ParseTuple(given, "OOiOnKKf", &bias_, &out_, &t->kind, &weights_, &t->pitch, &base, &first, &t->scale)) return 0;
    if (!array(out_, 3, 1, out) || (bias_ != Py_None && !array(bias_, 1, 0, bias))) return 0;
    if (weights_ != Py_None && !array(weights_, t->kind == PACKED ? 1 : 2, 0, weights)) return 0;
    t->M = x->n[0] * x->n[1], t->K = x->n[2], t->N = out->n[2], t->bias = bias->p, t->weights = weights->p;
    t->base = base, t->first = first, t->add = add;
    if (!same(out->n[0] == x->n[0] && out->n[1] == x->n[1] && (!bias->held || bias->n[0] == t->N))) return 0;
    if (t->kind == ROWS_OF_WEIGHTS && !same(weights->n[0] == t->K && weights->n[1] == t->N)) return 0;
    if (t->kind == TABLE && !same(weights->n[1] == t->K && weights->n[0] == t->N)) return 0;
    if (t->kind == PACKED && !same(weights->n[0] == (t->N + PANEL - 1) / PANEL * PANEL * t->K)) return 0;
    if (t->kind == ROWS_OF_WEIGHTS || t->kind == TABLE) t->pitch = weights->s[0];
    return 1;
}

#define MOST_PRODUCTS 3 /* queries, keys and values */

/* linear(x, add, *products) with products (bias, out, kind, weights, pitch, base, first, scale): the pitch is only for
 * drawn weights, as arrays have their own. x is packed once for all products. */
static PyObject *linear(PyObject *self, PyObject *arguments) {
    PyObject *answer = NULL;
    Array x = {0}, arrays[3 * MOST_PRODUCTS] = {0};
    Linear t[MOST_PRODUCTS] = {0};
    int no_memory = 0;
    const Py_ssize_t products = PyTuple_GET_SIZE(arguments) - 2;
    if (products < 1 || products > MOST_PRODUCTS)
        return PyErr_Format(PyExc_TypeError, "linear takes 1 to %d products", MOST_PRODUCTS);
    const int add = PyObject_IsTrue(PyTuple_GET_ITEM(arguments, 1));
    if (!array(PyTuple_GET_ITEM(arguments, 0), 3, 0, &x)) goto end;
    for (Py_ssize_t n = 0; n < products; n++) {
        Array *own = arrays + 3 * n;
        if (!product_of(PyTuple_GET_ITEM(arguments, 2 + n), &x, add, &t[n], &own[0], &own[1], &own[2])) goto end;
    }
    const ptrdiff_t M = t[0].M, K = t[0].K;
    BEGIN
    float *packed = room(MOST_THREADS, M * K + 4 * M + 16);
    const float **xs = (const float **)(packed + M * K + M * K % 2);
    float **ys = (float **)(xs + M);
    for (int n = 0; n < pool.threads; n++) no_memory |= !room(n, ROOM);
    if (M && !(no_memory |= !packed)) {
        const Rows from = rows_of(&x);
        for (ptrdiff_t m = 0; m < M; m++) xs[m] = row(&from, m);
        Interleave packing = {xs, packed, M, K};
        run(interleave_block, &packing, blocks(M), (double)M * (double)K > 2 * ENOUGH);
        for (Py_ssize_t n = 0; n < products; n++) {
            const Rows to = rows_of(&arrays[3 * n + 1]);
            for (ptrdiff_t m = 0; m < M; m++) ys[m] = row(&to, m);
            t[n].packed = packed, t[n].y = ys;
            run(do_product, &t[n], tasks(M, t[n].N), (double)M * (double)K * (double)t[n].N > 8 * ENOUGH);
        }
    }
    END
    answer = no_memory ? PyErr_NoMemory() : Py_NewRef(Py_None);
end:
    release(&x, 1);
    release(arrays, 3 * MOST_PRODUCTS);
    return answer;
}

/* pack(kind, weights, pitch, base, first, scale, columns, rows, out) */
static PyObject *pack(PyObject *self, PyObject *arguments) {
    PyObject *weights_, *out_, *answer = NULL;
    Array arrays[2] = {0};
    Linear t = {0};
    unsigned long long base, first;
    if (!PyArg_ParseTuple(arguments, "iOnKKfnnO", &t.kind, &weights_, &t.pitch, &base, &first, &t.scale, &t.N, &t.K, &out_))
        return NULL;
    if (!array(out_, 1, 1, &arrays[0]) || (weights_ != Py_None && !array(weights_, 2, 0, &arrays[1]))) goto end;
    if (!same(arrays[0].n[0] == (t.N + PANEL - 1) / PANEL * PANEL * t.K)) goto end;
    if (t.kind == ROWS_OF_WEIGHTS && !same(arrays[1].n[0] == t.K && arrays[1].n[1] == t.N)) goto end;
    if (t.kind == TABLE && !same(arrays[1].n[0] == t.N && arrays[1].n[1] == t.K)) goto end;
    float *out = arrays[0].p;
    t.base = base, t.first = first, t.weights = arrays[1].p, t.y = &out;
    if (weights_ != Py_None) t.pitch = arrays[1].s[0];
    BEGIN
    run(pack_panel, &t, (t.N + PANEL - 1) / PANEL, 1);
    END
    answer = Py_NewRef(Py_None);
end:
    release(arrays, 2);
    return answer;
}

/* draw(base, first, scale, out) */
static PyObject *draw(PyObject *self, PyObject *arguments) {
    PyObject *out_;
    Array out = {0};
    Draw t;
    unsigned long long base, first;
    if (!PyArg_ParseTuple(arguments, "KKfO", &base, &first, &t.scale, &out_)) return NULL;
    if (!array(out_, 1, 1, &out)) return release(&out, 1), NULL;
    t.base = base, t.first = first, t.count = out.n[0], t.out = out.p;
    BEGIN
    run(draw_run, &t, (t.count + RUN - 1) / RUN, 1);
    END
    release(&out, 1);
    Py_RETURN_NONE;
}

static PyObject *each(Each *t, double cost) {
    BEGIN
    run(do_row, t, t->x.batch * t->x.rows, (double)(t->x.batch * t->x.rows) * (double)t->x.n * cost > ENOUGH);
    END
    return Py_NewRef(Py_None);
}

static int shaped_alike(const Array *a, const Array *b, ptrdiff_t last) {
    return same(a->n[0] == b->n[0] && a->n[1] == b->n[1] && b->n[2] == last);
}

/* layer_norm(x, weight, bias, epsilon, mean, scale, out) */
static PyObject *layer_norm(PyObject *self, PyObject *arguments) {
    PyObject *o[6], *answer = NULL;
    Array a[6] = {0};
    Each t = {.what = NORMALISE};
    if (!PyArg_ParseTuple(arguments, "OOOfOOO", &o[0], &o[1], &o[2], &t.epsilon, &o[3], &o[4], &o[5])) return NULL;
    for (int n = 0; n < 6; n++)
        if (!array(o[n], n == 1 || n == 2 ? 1 : 3, n > 2, &a[n])) goto end;
    if (!shaped_alike(&a[0], &a[3], 1) || !shaped_alike(&a[0], &a[4], 1) || !shaped_alike(&a[0], &a[5], a[0].n[2])) goto end;
    if (!same(a[1].n[0] == a[0].n[2] && a[2].n[0] == a[0].n[2])) goto end;
    t.x = rows_of(&a[0]), t.mean = rows_of(&a[3]), t.scale = rows_of(&a[4]), t.out = rows_of(&a[5]);
    t.weight = a[1].p, t.bias = a[2].p;
    answer = each(&t, 2);
end:
    release(a, 6);
    return answer;
}

/* rms_norm(x, weight, epsilon, scale, out) */
static PyObject *rms_norm(PyObject *self, PyObject *arguments) {
    PyObject *o[4], *answer = NULL;
    Array a[4] = {0};
    Each t = {.what = RMS};
    if (!PyArg_ParseTuple(arguments, "OOfOO", &o[0], &o[1], &t.epsilon, &o[2], &o[3])) return NULL;
    for (int n = 0; n < 4; n++)
        if (!array(o[n], n == 1 ? 1 : 3, n > 1, &a[n])) goto end;
    if (!shaped_alike(&a[0], &a[2], 1) || !shaped_alike(&a[0], &a[3], a[0].n[2]) || !same(a[1].n[0] == a[0].n[2])) goto end;
    t.x = rows_of(&a[0]), t.scale = rows_of(&a[2]), t.out = rows_of(&a[3]), t.weight = a[1].p;
    answer = each(&t, 2);
end:
    release(a, 4);
    return answer;
}

/* rotate(x, cos, sin, width, neighbours, out): [B, n, H, A], [1, n, A] */
static PyObject *rotate(PyObject *self, PyObject *arguments) {
    PyObject *o[4], *answer = NULL;
    Array a[4] = {0};
    Rotation t = {0};
    if (!PyArg_ParseTuple(arguments, "OOOnpO", &o[0], &o[1], &o[2], &t.width, &t.neighbours, &o[3])) return NULL;
    for (int n = 0; n < 4; n++)
        if (!array(o[n], n == 1 || n == 2 ? 3 : 4, n == 3, &a[n])) goto end;
    const ptrdiff_t *s = a[0].n;
    for (int n = 0; n < 4; n++) same(a[3].n[n] == s[n]);
    for (int n = 1; n < 3; n++) same(a[n].n[0] == 1 && a[n].n[1] == s[1] && a[n].n[2] == s[3]);
    same(0 <= t.width && t.width <= s[3] && t.width % 2 == 0);
    if (PyErr_Occurred()) goto end;
    t.x = (Heads){a[0].p, a[0].s[0], a[0].s[2], a[0].s[1]}, t.out = (Heads){a[3].p, a[3].s[0], a[3].s[2], a[3].s[1]};
    t.cosine = a[1].p, t.sine = a[2].p, t.cosine_pitch = a[1].s[1], t.sine_pitch = a[2].s[1];
    t.positions = s[1], t.heads = s[2], t.channels = s[3];
    BEGIN
    run(rotate_position, &t, s[0] * s[1], (double)(s[0] * s[1]) * (double)(s[2] * s[3]) > ENOUGH);
    END
    answer = Py_NewRef(Py_None);
end:
    release(a, 4);
    return answer;
}

/* softmax(x, largest, total, out): the last axis of the statistics is 1 */
static PyObject *softmax(PyObject *self, PyObject *arguments) {
    PyObject *o[4], *answer = NULL;
    Array a[4] = {0};
    Each t = {.what = SOFTMAX};
    if (!PyArg_ParseTuple(arguments, "OOOO", &o[0], &o[1], &o[2], &o[3])) return NULL;
    for (int n = 0; n < 4; n++)
        if (!array(o[n], 3, n > 0, &a[n])) goto end;
    if (!shaped_alike(&a[0], &a[1], 1) || !shaped_alike(&a[0], &a[2], 1) || !shaped_alike(&a[0], &a[3], a[0].n[2])) goto end;
    t.x = rows_of(&a[0]), t.mean = rows_of(&a[1]), t.scale = rows_of(&a[2]), t.out = rows_of(&a[3]);
    answer = each(&t, 4);
end:
    release(a, 4);
    return answer;
}

/* activate(function, x, out) */
static PyObject *activate(PyObject *self, PyObject *arguments) {
    PyObject *x_, *out_, *answer = NULL;
    Array a[2] = {0};
    Each t = {.what = ACTIVATE};
    if (!PyArg_ParseTuple(arguments, "iOO", &t.function, &x_, &out_)) return NULL;
    if (array(x_, 3, 0, &a[0]) && array(out_, 3, 1, &a[1]) && shaped_alike(&a[0], &a[1], a[0].n[2])) {
        t.x = rows_of(&a[0]), t.out = rows_of(&a[1]);
        answer = each(&t, 4);
    }
    release(a, 2);
    return answer;
}

static PyObject *of_two(Each t, PyObject **o) {
    PyObject *answer = NULL;
    Array a[3] = {0};
    for (int n = 0; n < 3; n++)
        if (!array(o[n], 3, n == 2, &a[n]) || !shaped_alike(&a[0], &a[n], a[0].n[2])) goto end;
    t.x = rows_of(&a[0]), t.y = rows_of(&a[1]), t.out = rows_of(&a[2]);
    answer = each(&t, t.what == ADD ? 1 : 4);
end:
    release(a, 3);
    return answer;
}

/* add(x, y, out) */
static PyObject *add(PyObject *self, PyObject *arguments) {
    PyObject *o[3];
    if (!PyArg_ParseTuple(arguments, "OOO", &o[0], &o[1], &o[2])) return NULL;
    return of_two((Each){.what = ADD}, o);
}

/* gate(function, x, y, out) */
static PyObject *gate(PyObject *self, PyObject *arguments) {
    PyObject *o[3];
    Each t = {.what = GATE};
    if (!PyArg_ParseTuple(arguments, "iOOO", &t.function, &o[0], &o[1], &o[2])) return NULL;
    return of_two(t, o);
}

/* attention(start, stop, scale, window, slopes, q, k, v, scores, largest, total, pattern, z): q and z [B, T, H, A], k and
 * v [B, T, G, A], slopes [H] or None, then [B, H, T, T] and [B, H, T] */
static PyObject *attention(PyObject *self, PyObject *arguments) {
    PyObject *o[9], *answer = NULL;
    Array a[9] = {0};
    Attention t = {0};
    int no_memory = 0;
    if (!PyArg_ParseTuple(arguments, "nnfnOOOOOOOOO", &t.start, &t.stop, &t.factor, &t.window, &o[8], &o[0], &o[1], &o[2],
                          &o[3], &o[4], &o[5], &o[6], &o[7]))
        return NULL;
    for (int n = 0; n < 8; n++)
        if (!array(o[n], n == 4 || n == 5 ? 3 : 4, n > 2, &a[n])) goto end;
    if (o[8] != Py_None && !array(o[8], 1, 0, &a[8])) goto end;
    const ptrdiff_t B = a[0].n[0], T = a[0].n[1], H = a[0].n[2], A = a[0].n[3], G = a[1].n[2];
    for (int n = 0; n < 8; n++) {
        const int by_position = n < 3 || n == 7;
        const ptrdiff_t *s = a[n].n, heads = n == 1 || n == 2 ? G : H;
        if (!same(s[0] == B && s[1] == (by_position ? T : H) && s[2] == (by_position ? heads : T))) goto end;
        if (a[n].view.ndim == 4 && !same(s[3] == (by_position ? A : T))) goto end;
    }
    if (!same(0 <= t.start && t.start <= t.stop && t.stop <= T && t.window > 0 && G > 0 && H % G == 0)) goto end;
    if (a[8].held && !same(a[8].n[0] == H)) goto end;
    Heads *parts[] = {&t.q, &t.k, &t.v, &t.scores, &t.largest, &t.total, &t.pattern, &t.z};
    for (int n = 0; n < 8; n++) {
        const int by_position = n < 3 || n == 7;
        *parts[n] = (Heads){a[n].p, a[n].s[0], a[n].s[by_position ? 2 : 1], a[n].s[by_position ? 1 : 2]};
    }
    t.batch = B, t.heads = H, t.width = A, t.length = T, t.shared = H / G, t.slopes = a[8].p;
    BEGIN
    for (int n = 0; n < pool.threads; n++) no_memory |= !room(n, attention_room(&t));
    if (!no_memory) run(do_head, &t, B * H, (double)(B * H * A) * (double)(t.stop - t.start) * (double)t.stop > 4 * ENOUGH);
    END
    answer = no_memory ? PyErr_NoMemory() : Py_NewRef(Py_None);
end:
    release(a, 9);
    return answer;
}

static PyMethodDef methods[] = {
    {"linear", linear, METH_VARARGS, NULL},         {"pack", pack, METH_VARARGS, NULL},
    {"draw", draw, METH_VARARGS, NULL},             {"layer_norm", layer_norm, METH_VARARGS, NULL},
    {"softmax", softmax, METH_VARARGS, NULL},       {"activate", activate, METH_VARARGS, NULL},
    {"add", add, METH_VARARGS, NULL},               {"attention", attention, METH_VARARGS, NULL},
    {"rms_norm", rms_norm, METH_VARARGS, NULL},     {"rotate", rotate, METH_VARARGS, NULL},
    {"gate", gate, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int threads_wanted(void) {
    const char *wanted = getenv("OPENBLAS_NUM_THREADS");
    if (!wanted) wanted = getenv("OMP_NUM_THREADS");
    int n = wanted ? atoi(wanted) : 0;
#if defined(__linux__)
    cpu_set_t cpus;
    if (n < 1 && sched_getaffinity(0, sizeof cpus, &cpus) == 0) n = CPU_COUNT(&cpus);
#endif
    return n < 1 ? 1 : n > MOST_THREADS ? MOST_THREADS : n;
}

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernels", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernels(void) {
    set = best();
    if (!set) return PyErr_SetString(PyExc_ImportError, "this processor has neither AVX-512 nor AVX2"), NULL;
    pool.threads = threads_wanted();
    pthread_atfork(NULL, NULL, after_fork);
    PyObject *made = PyModule_Create(&module);
    if (made) PyModule_AddIntConstant(made, "PANEL", PANEL);
    return made;
}
