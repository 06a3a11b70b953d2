/* A thread pool that is started again after a fork, and memory for each thread. Included by kernels.c. */

#define MOST_THREADS 64

typedef void (*Work)(void *, ptrdiff_t task, int thread);

static struct {
    int threads, started;
    Work work;
    void *argument;
    ptrdiff_t tasks, share; /* the number of tasks, and how many a thread takes at a time */
    atomic_ptrdiff_t next;
    atomic_int inside, open, asleep;
    atomic_uint round;
    pthread_mutex_t lock;
    pthread_cond_t wake;
} pool = {.threads = 1, .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static void take_tasks(int thread) {
#if defined(__x86_64__)
    const unsigned before = _mm_getcsr(); /* flush subnormal numbers to 0: they are a hundred times slower */
    _mm_setcsr(before | 0x8040);
#endif
    for (ptrdiff_t first; (first = atomic_fetch_add(&pool.next, pool.share)) < pool.tasks;)
        for (ptrdiff_t task = first; task < first + pool.share && task < pool.tasks; task++)
            pool.work(pool.argument, task, thread);
#if defined(__x86_64__)
    _mm_setcsr(before);
#endif
}

static void rest(void) {
#if defined(__x86_64__)
    _mm_pause();
#endif
}

/* A thread of the pool. It joins each round that it notices in time; `run` does not wait for threads that have not joined. */
static void *helper(void *number) {
    for (unsigned seen = 0;;) {
        for (int spin = 0; spin < 2000 && atomic_load(&pool.round) == seen; spin++) rest();
        if (atomic_load(&pool.round) == seen) {
            pthread_mutex_lock(&pool.lock);
            atomic_fetch_add(&pool.asleep, 1);
            while (atomic_load(&pool.round) == seen) pthread_cond_wait(&pool.wake, &pool.lock);
            atomic_fetch_sub(&pool.asleep, 1);
            pthread_mutex_unlock(&pool.lock);
        }
        seen = atomic_load(&pool.round);
        atomic_fetch_add(&pool.inside, 1);
        if (atomic_load(&pool.open)) take_tasks((int)(intptr_t)number);
        atomic_fetch_sub(&pool.inside, 1);
    }
    return NULL;
}

/* Threads do not survive a fork: the child starts its own when it first needs them. */
static void after_fork(void) {
    pool.started = 0;
    atomic_store(&pool.inside, 0);
    atomic_store(&pool.open, 0);
    atomic_store(&pool.asleep, 0);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_mutex_init(&one_at_a_time, NULL);
}

static void start_helpers(void) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the interpreter's threads, which may be waiting */
    pool.started = 1;
    atomic_store(&pool.round, 0);
    for (intptr_t n = 1; n < pool.threads; n++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, helper, (void *)n) == 0) pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Run tasks 0 … tasks − 1, on all threads if it is `worth` waking them. */
static void run(Work work, void *argument, ptrdiff_t tasks, int worth) {
    pool.work = work, pool.argument = argument, pool.tasks = tasks;
    pool.share = tasks / (8 * pool.threads) > 1 ? tasks / (8 * pool.threads) : 1; /* taking a task costs as much as a row */
    atomic_store(&pool.next, 0);
    const int together = worth && tasks > 1 && pool.threads > 1;
    if (together) {
        if (!pool.started) start_helpers();
        atomic_store(&pool.open, 1);
        atomic_fetch_add(&pool.round, 1);
        if (atomic_load(&pool.asleep)) {
            pthread_mutex_lock(&pool.lock);
            pthread_cond_broadcast(&pool.wake);
            pthread_mutex_unlock(&pool.lock);
        }
    }
    take_tasks(0);
    if (together) {
        atomic_store(&pool.open, 0);
        while (atomic_load(&pool.inside)) rest();
    }
}

/* Memory that grows and is never freed, because fresh pages cost more than the arithmetic. One per thread, and a shared one. */
static struct { float *p; size_t size; } rooms[MOST_THREADS + 1];

static float *room(int n, ptrdiff_t floats) {
    const size_t size = (4 * (size_t)floats + 4095) / 4096 * 4096;
    if (rooms[n].size < size) {
        free(rooms[n].p);
        rooms[n].p = aligned_alloc(4096, size);
        rooms[n].size = rooms[n].p ? size : 0;
    }
    return rooms[n].p;
}
