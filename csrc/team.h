// The threads of one call. The barrier spins for a while and then yields: other load may hold the core that it waits for.
#pragma once

#include <stdint.h>

namespace padless {

struct Barrier {
  alignas(64) int32_t arrived = 0;
  alignas(64) int32_t generation = 0;
};

struct Team {
  int64_t rank, size;
  Barrier* barrier;
};

void wait_for_team(Barrier* barrier, int64_t size);

}  // namespace padless
