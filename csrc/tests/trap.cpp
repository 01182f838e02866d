// AMX on a processor without it: a tile instruction raises SIGILL, and the handler here does what the instruction says. So the
// compiled code of the `amx` kernels runs in tests of any machine with avx512_bf16: its configuration of tiles, addresses, strides
// and order of loads and stores, with AddressSanitizer behind each of them. Linked in place of permission.cpp; a processor with AMX
// runs its own instructions. Written from Intel's description of the instructions, not from the emulation in cells/amx.h.
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "../kernels.h"
#include "../permission.h"

namespace {

struct Configuration {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(Configuration) == 64, "as ldtilecfg reads it");

// Per thread, as on the processor. Palette 0: no tiles are configured.
thread_local Configuration configuration;
thread_local uint8_t tiles[8][16][64];

[[noreturn]] void fail(const char* what) {
  (void)!write(STDERR_FILENO, what, strlen(what));
  abort();
}

int general_register(int number) {
  static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return order[number];
}

// An instruction with a three-byte VEX prefix: C4, inverted R X B and the map, W vvvv L pp, opcode, ModRM, then SIB and displacement.
struct Instruction {
  int prefix, opcode, mode, reg, rm, vvvv, bytes;
  const uint8_t* base;  // of the operand in memory
  int64_t index;        // added to it row by row
};

Instruction decode(const greg_t* registers) {
  const uint8_t* at = (const uint8_t*)registers[REG_RIP];
  if (at[0] != 0xc4 || (at[1] & 0x1f) != 2) fail("an illegal instruction that is not an AMX instruction\n");
  Instruction i = {};
  const int extend_index = at[1] & 0x40 ? 0 : 8, extend_base = at[1] & 0x20 ? 0 : 8;
  i.prefix = at[2] & 3, i.vvvv = ~(at[2] >> 3) & 15, i.opcode = at[3];
  i.mode = at[4] >> 6, i.reg = at[4] >> 3 & 7, i.rm = at[4] & 7, i.bytes = 5;
  if (i.mode == 3) return i;
  int64_t base = 0;
  bool no_base = i.mode == 0 && i.rm == 5;  // relative to the next instruction
  if (i.rm == 4) {
    const int sib = at[i.bytes++], index = (sib >> 3 & 7) + extend_index;
    if (index != 4) i.index = registers[general_register(index)] << (sib >> 6);
    if ((sib & 7) == 5 && i.mode == 0) fail("an operand without a base\n");
    base = registers[general_register((sib & 7) + extend_base)];
  } else if (!no_base) {
    base = registers[general_register(i.rm + extend_base)];
  }
  if (i.mode == 1) {
    base += (int8_t)at[i.bytes++];
  } else if (i.mode == 2 || no_base) {
    int32_t displacement;
    memcpy(&displacement, at + i.bytes, 4);
    base += displacement, i.bytes += 4;
  }
  i.base = (const uint8_t*)(no_base ? base + registers[REG_RIP] + i.bytes : base);
  return i;
}

void require_configured(int tile) {
  if (configuration.palette != 1) fail("a tile is used without a configuration\n");
  if (configuration.rows[tile] != 16 || configuration.row_bytes[tile] != 64) fail("a tile that is not 16 rows of 64 bytes\n");
}

void configure(const uint8_t* from) {
  memcpy(&configuration, from, sizeof configuration);
  if (configuration.palette != 1 || configuration.start_row) fail("palette 1 from row 0 is expected\n");
  for (int i = 0; i < 16; ++i)
    if (configuration.row_bytes[i] > 64 || configuration.rows[i] > 16 || (i >= 8 && (configuration.row_bytes[i] || configuration.rows[i])))
      fail("a configuration that the processor refuses\n");
  for (const uint8_t each : configuration.reserved)
    if (each) fail("reserved bytes of the configuration are not 0\n");
  memset(tiles, 0, sizeof tiles);
}

float read(const void* from, bool narrow) {
  uint32_t bits = 0;
  memcpy((char*)&bits + (narrow ? 2 : 0), from, narrow ? 2 : 4);
  if ((bits & 0x7f800000) == 0) bits &= 0x80000000;  // subnormal numbers count as 0
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
float flushed(float x) { return read(&x, false); }

// TDPBF16PS: of each pair of columns the even and the odd products are summed separately, then added to each other and to C.
void multiply(int c, int a, int b) {
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 16; ++n) {
      float even = 0, odd = 0;
      for (int k = 0; k < 16; ++k) {
        even = flushed(__builtin_fmaf(read(tiles[a][m] + 4 * k, true), read(tiles[b][k] + 4 * n, true), even));
        odd = flushed(__builtin_fmaf(read(tiles[a][m] + 4 * k + 2, true), read(tiles[b][k] + 4 * n + 2, true), odd));
      }
      const float sum = flushed(read(tiles[c][m] + 4 * n, false) + flushed(even + odd));
      memcpy(tiles[c][m] + 4 * n, &sum, 4);
    }
}

enum { kNone = 0, kF3 = 2, kF2 = 3 };  // prefixes

void on_illegal_instruction(int, siginfo_t*, void* context) {
  greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
  const Instruction i = decode(registers);
  if (i.opcode == 0x49 && i.prefix == kNone && i.mode != 3) {  // ldtilecfg
    configure(i.base + i.index);
  } else if (i.opcode == 0x49 && i.prefix == kNone) {  // tilerelease
    configuration.palette = 0;
  } else if (i.opcode == 0x49 && i.prefix == kF2 && i.mode == 3) {  // tilezero
    require_configured(i.reg);
    memset(tiles[i.reg], 0, sizeof tiles[i.reg]);
  } else if (i.opcode == 0x4b && (i.prefix == kF2 || i.prefix == kF3) && i.mode != 3) {  // tileloadd, tilestored
    require_configured(i.reg);
    for (int row = 0; row < 16; ++row) {
      uint8_t* memory = (uint8_t*)i.base + row * i.index;
      i.prefix == kF2 ? memcpy(tiles[i.reg][row], memory, 64) : memcpy(memory, tiles[i.reg][row], 64);
    }
  } else if (i.opcode == 0x5c && i.prefix == kF3 && i.mode == 3) {  // tdpbf16ps
    require_configured(i.reg), require_configured(i.rm), require_configured(i.vvvv);
    if (i.reg == i.rm || i.reg == i.vvvv || i.rm == i.vvvv) fail("tdpbf16ps takes three different tiles\n");
    multiply(i.reg, i.rm, i.vvvv);
  } else {
    fail("an illegal instruction that is not one of the kernels'\n");
  }
  registers[REG_RIP] += i.bytes;
}

}  // namespace

namespace padless {

bool permit_tiles() {
  if (request_tiles()) return true;  // the processor has them
  struct sigaction action = {};
  action.sa_sigaction = on_illegal_instruction;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  return sigaction(SIGILL, &action, nullptr) == 0;
}

}  // namespace padless
