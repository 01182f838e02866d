// Divides the caller's scratch memory into buffers, each in cache lines of its own. A cursor that starts at address 0 counts the
// bytes that the same buffers take.
#pragma once

struct ScratchCursor {
  uintptr_t at;
  template <class T> T* take(int64_t count) {
    T* const buffer = (T*)at;
    at += round_up(count * (int64_t)sizeof(T), 64);
    return buffer;
  }
};
