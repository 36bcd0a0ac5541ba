"""Graphs on a GPU.  From a plan to numbers: `launch` (which kernels, which grids; `rows` and `lookups` write their CUDA C on
top of `source`), `nvrtc` and `kernels` (machine code), `bound` (launches at addresses; `cublas` for products), `runtime` (one
launch at a time), `graphs` (a whole run captured), `mirrors` (where the data of leaves are), `device` (what is there)."""
