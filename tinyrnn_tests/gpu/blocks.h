#pragma once
#include "tr_cpu.h"
#include <algorithm>
typedef void (*Kernel)(TrWords);
// Runs a grid; `meets` says that the kernel's threads meet at barriers or shuffles.
void tr_run(Kernel kernel, const tr_i64* words, TrDim grid, TrDim shape, bool meets);
