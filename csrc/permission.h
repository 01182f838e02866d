// Permission to use AMX's tiles. Separate from dispatch.cpp, because the tests link trap.cpp in place of permission.cpp.
#pragma once

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace padless {

// Whether the processor has tiles with bfloat16 products, by CPUID, and the system permits their registers to this process, once for
// all its threads and children. It refuses where a thread has a small alternate signal stack.
static inline bool request_tiles() {
#if defined(__x86_64__) && defined(__linux__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 22 & 1) || !(d >> 24 & 1)) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

}  // namespace padless
