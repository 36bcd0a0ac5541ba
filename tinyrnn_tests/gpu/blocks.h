#pragma once
#include "tr_cpu.h"
#include <algorithm>
typedef void (*Kernel)(TrWords);
// Runs a grid; `meets` says that the kernel's threads meet: 1 within a block, at barriers or shuffles, 2 in all of the grid.
void tr_run(Kernel kernel, const tr_i64* words, TrDim grid, TrDim shape, int meets, unsigned cluster = 1);
