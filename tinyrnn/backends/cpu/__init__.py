"""Graphs on a CPU.  From a plan to numbers: `backend` (a graph's executable, made once), `runtime` (what a run does), `tables`
(what the driver reads), `driver` (machine code that walks the tables), `kept` (what is made of weights alone), `memory`,
`threads` and `gang` (helpers, and the code by which they hand work on), `bound` (a run whose places are fixed); kernels are
emitted by `rows` (entrywise, on top of `codegen`), `products` (matrix products) and `lookups` (gather, scatter, moves), with
`emit` for loops; `engine` compiles and keeps them."""
