#include "permission.h"

#include "kernels.h"

namespace padless {

bool permit_tiles() { return request_tiles(); }

}  // namespace padless
