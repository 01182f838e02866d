// The threads of one call, by OpenMP, and their barrier, by futex.
#include "team.h"

#include <sched.h>
#include <time.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(_OPENMP)
#include <omp.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "padless.h"

namespace padless {
namespace {

constexpr int64_t kSpinNanoseconds = 30000;  // longer than threads differ in a step
constexpr int kAloneSteps = 16;              // doubled with each late barrier

void pause_core() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// How this thread rounds and whether it flushes subnormal numbers to zero. OpenMP's threads have modes of their own.
#if defined(__x86_64__)
typedef unsigned FloatMode;
FloatMode float_mode() { return _mm_getcsr(); }
void set_float_mode(FloatMode mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
typedef uint64_t FloatMode;
FloatMode float_mode() {
  FloatMode mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
void set_float_mode(FloatMode mode) { asm volatile("msr fpcr, %0" : : "r"(mode)); }
#else
typedef int FloatMode;
FloatMode float_mode() { return 0; }
void set_float_mode(FloatMode) {}
#endif

// Sleeps until woken, if *word is still `value`. Without a futex it only yields the core.
void sleep_while(int32_t* word, int32_t value) {
#if defined(__linux__)
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
#else
  (void)word, (void)value;
  sched_yield();
#endif
}
void wake_all(int32_t* word) {
#if defined(__linux__)
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
#else
  (void)word;
#endif
}

int64_t nanoseconds() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * int64_t(1000000000) + now.tv_nsec;
}

#if defined(_OPENMP)
// After a call whose threads had to wait for a core, calls use one thread for as long as 8 such calls take, but at most 0.4 s.
// Results do not depend on it.
constexpr int64_t kCrowdedCalls = 8, kCrowdedNanoseconds = 400000000;
int64_t g_crowded_until = 0;  // by nanoseconds(); read and written atomically
#endif

}  // namespace

template <class Arguments>
void run_team(void (*kernel)(const Arguments&, const Team&), const Arguments& arguments, int64_t l2_bytes) {
#if defined(_OPENMP)
  // One thread opens no OpenMP region, which would hang in a forked child whose parent has used several threads.
  const int64_t threads = arguments.threads, begin = threads > 1 ? nanoseconds() : 0;
  if (threads > 1 && begin >= __atomic_load_n(&g_crowded_until, __ATOMIC_RELAXED)) {
    Barrier barrier;
    const FloatMode mode = float_mode();
#pragma omp parallel num_threads((int)threads)
    {
      const Team team = {omp_get_thread_num(), omp_get_num_threads(), &barrier, l2_bytes};
      const FloatMode own_mode = float_mode();
      set_float_mode(mode);
      kernel(arguments, team);
      set_float_mode(own_mode);
      // OpenMP's own barrier would spin for 5 ms, perhaps on the core that the last thread waits for.
      if (team.size > 1) wait_for_team(team, false);
    }
    // Rank 0 has as much work as the others: if it slept for a third of the call, they had no core to run on.
    const int64_t end = nanoseconds(), took = end - begin;
    if (barrier.slept * 3 > took) {
      const int64_t alone = took < kCrowdedNanoseconds / kCrowdedCalls ? took * kCrowdedCalls : kCrowdedNanoseconds;
      __atomic_store_n(&g_crowded_until, end + alone, __ATOMIC_RELAXED);
    }
    return;
  }
#endif
  kernel(arguments, Team{0, 1, nullptr, l2_bytes});
}
template void run_team(void (*)(const padless_problem&, const Team&), const padless_problem&, int64_t);
template void run_team(void (*)(const padless_move&, const Team&), const padless_move&, int64_t);

int64_t wait_for_team(const Team& team, bool prompt) {
  Barrier* const barrier = team.barrier;
  const int32_t generation = __atomic_load_n(&barrier->generation, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(&barrier->arrived, 1, __ATOMIC_ACQ_REL) == team.size) {
    const int32_t late = __atomic_load_n(&barrier->late, __ATOMIC_RELAXED);
    barrier->alone = prompt && late >= barrier->next_late ? int64_t(kAloneSteps) << (late < 20 ? late : 20) : 0;
    if (barrier->alone) barrier->next_late = late + 1;
    __atomic_store_n(&barrier->arrived, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&barrier->generation, generation + 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&barrier->sleepers, __ATOMIC_SEQ_CST)) wake_all(&barrier->generation);
    return barrier->alone;
  }
  const int64_t since = nanoseconds();
  bool spins = true;
  for (unsigned i = 1; __atomic_load_n(&barrier->generation, __ATOMIC_ACQUIRE) == generation; ++i) {
    if (spins) {
      pause_core();
      if (i % 32 || nanoseconds() - since < kSpinNanoseconds) continue;
      spins = false;
      if (prompt) __atomic_add_fetch(&barrier->late, 1, __ATOMIC_RELAXED);
    }
    const int64_t begin = nanoseconds();
    __atomic_add_fetch(&barrier->sleepers, 1, __ATOMIC_SEQ_CST);
    sleep_while(&barrier->generation, generation);
    __atomic_sub_fetch(&barrier->sleepers, 1, __ATOMIC_SEQ_CST);
    if (team.rank == 0) barrier->slept += nanoseconds() - begin;
  }
  return barrier->alone;
}

}  // namespace padless
