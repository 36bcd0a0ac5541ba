"""Graphs on a CPU.  From a plan to numbers: `backend` (a graph's executable, made once), `runtime` (its tables, buffers and
threads), `driver` (machine code that walks the tables); kernels are emitted by `rows` (entrywise, on top of `codegen`),
`products` (matrix products) and `lookups` (gather, scatter, moves), with `emit` for loops; `engine` compiles and keeps them."""
