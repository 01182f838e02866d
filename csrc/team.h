// The threads of one call, and their barrier. Other load may hold the core that a thread waits for, or two threads may have
// been put on one core: a thread that has waited for some microseconds sleeps, which also lets the system move it.
#pragma once

#include <stdint.h>

namespace padless {

struct Barrier {
  alignas(64) int32_t arrived = 0;
  alignas(64) int32_t generation = 0;
  int32_t sleepers = 0;
  int64_t slept = 0;  // nanoseconds that rank 0 slept
  int32_t late = 0;   // prompt waits of this call that ended in sleep
  int32_t next_late = 2;  // once may be the start of the threads
  int64_t alone = 0;      // what the last barrier decided for all threads; it and next_late change when all have arrived
};

struct Team {
  int64_t rank, size;
  Barrier* barrier;
  int64_t l2_bytes;  // second-level cache of a core
};

// Returns when all threads of the team are here. `prompt`: they were expected within microseconds, once a step. Where that
// has failed twice, barriers cost more than the work that they divide: every thread gets the same number of steps
// that rank 0 had better do alone (0: none), longer each time.
int64_t wait_for_team(const Team& team, bool prompt);

}  // namespace padless
