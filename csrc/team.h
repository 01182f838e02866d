// The threads of one call and their barrier. A thread may have to wait for one that has no core to run on, because of other load
// or because both are on the same core. After some microseconds it therefore sleeps, which also lets the system move it.
#pragma once

#include <stdint.h>

namespace padless {

struct Barrier {
  alignas(64) int32_t arrived = 0;
  alignas(64) int32_t generation = 0;
  int32_t sleepers = 0;
  int64_t slept = 0;      // nanoseconds that rank 0 slept
  int32_t late = 0;       // prompt waits of this call that ended in sleep
  int32_t next_late = 2;  // not 1: the threads may just have been started
  int64_t alone = 0;      // the result of the last wait; it and next_late change when all threads have arrived
};

struct Team {
  int64_t rank, size;
  Barrier* barrier;  // null for a single thread
  int64_t l2_bytes;  // second-level cache of a core
};

// Calls the kernel on `arguments.threads` threads or, after a call whose threads had to wait for a core, on one. Arguments is
// padless_problem or padless_move.
template <class Arguments>
void run_team(void (*kernel)(const Arguments&, const Team&), const Arguments& arguments, int64_t l2_bytes);

// Returns when all threads have arrived. `prompt`: they are expected within microseconds, as at the barrier of each step. After
// two prompt waits have ended in sleep, barriers cost more than they save: every thread then gets the number of steps that rank 0
// should compute alone, more each time; otherwise 0.
int64_t wait_for_team(const Team& team, bool prompt);

}  // namespace padless
