// Cuts buffers out of the caller's scratch memory, each in cache lines of its own. Begun at address 0, a cursor finds out how many
// bytes the same buffers take.
#pragma once

struct ScratchCursor {
  uintptr_t at;
  template <class T> T* take(int64_t count) {
    T* const buffer = (T*)at;
    at += round_up(count * (int64_t)sizeof(T), 64);
    return buffer;
  }
};
