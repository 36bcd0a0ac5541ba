"""Products by cuBLAS through ctypes: a handle and a workspace of our own, so that they may be captured in a graph.

CuPy's own handle refuses to work while a stream is captured, whatever is asked of it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from ctypes import byref, c_double, c_float, c_int, c_int64, c_void_p
from typing import Any, NamedTuple
from weakref import finalize

import numpy as np

from ...errors import BackendError, OutOfMemoryError
from ...ir.node import DType
from . import device
from .errors import allocated

WORKSPACE = {9: 32 << 20, 10: 32 << 20, 12: 32 << 20}  # bytes by compute capability, as cuBLAS advises; 4 MiB for others
NO_TRANSPOSE, TRANSPOSE = 0, 1
_KIND = {"<f4": 0, "<f8": 1}                           # CUDA_R_32F, CUDA_R_64F
_COMPUTE = {("<f4", ""): 68, ("<f8", ""): 70, ("<f4", "tf32"): 77, ("<f8", "tf32"): 70, ("<f4", "bf16"): 75,
            ("<f8", "bf16"): 70}                       # CUBLAS_COMPUTE_32F, _64F, _32F_FAST_TF32, _32F_FAST_16BF
DEFAULT_ALGORITHM, ALLOCATION_FAILED = -1, 3
PRECISIONS = ("", "tf32", "bf16")


_SPARE: dict[int, list[c_void_p]] = {}
"""By device, handles of threads that are gone, for those that come: to destroy one waits for the device, which must not happen
while another thread captures."""


class Matrix(NamedTuple):
    """A batch of matrices as cuBLAS sees them: whether rows and columns are exchanged, the distance of columns, of matrices."""

    transposed: int
    leading: int
    stride: int


def matrix(shape: tuple[int, ...], strides: tuple[int, ...]) -> Matrix:
    """`[batch, rows, columns]` with strides in entries; rows or columns lie without gaps."""
    (_, rows, columns), (apart, by_row, by_column) = shape, strides
    if (columns == 1 or by_column == 1) and (rows == 1 or by_row >= columns):
        return Matrix(NO_TRANSPOSE, max(columns, 1) if rows == 1 else by_row, apart)
    return Matrix(TRANSPOSE, max(rows, 1) if columns == 1 else by_column, apart)


class Cublas:
    """A handle; one thread at a time uses it."""

    def __init__(self, library: Any = None) -> None:
        self.cupy = device.require()
        self.library = library or ctypes.CDLL(device.loaded("cublas"))
        self.library.cublasGemmEx.argtypes = _GEMM
        self.library.cublasGemmStridedBatchedEx.argtypes = _BATCHED
        self.library.cublasSetWorkspace_v2.argtypes = [c_void_p, c_void_p, ctypes.c_size_t]
        self.library.cublasSetStream_v2.argtypes = [c_void_p, c_void_p]
        spare = _SPARE.setdefault(int(self.cupy.cuda.Device().id), [])
        self.handle = spare.pop() if spare else c_void_p()
        if not self.handle:
            self._done(self.library.cublasCreate_v2(byref(self.handle)), "cublasCreate")
        finalize(self, spare.append, self.handle).atexit = False
        self._numbers = {"<f4": (c_float(1), c_float(0)), "<f8": (c_double(1), c_double(0))}

    def use(self, stream: int, workspace: Any) -> None:
        """Work on a stream with a workspace; the stream comes first, since setting it takes the workspace away."""
        self._done(self.library.cublasSetStream_v2(self.handle, stream), "cublasSetStream")
        self._done(self.library.cublasSetWorkspace_v2(self.handle, workspace.data.ptr, workspace.nbytes), "cublasSetWorkspace")

    def workspace(self) -> Any:
        """Memory for the products of one stream."""
        major = int(self.cupy.cuda.Device().compute_capability[:-1])
        size = WORKSPACE.get(major, 4 << 20)
        return allocated(lambda: self.cupy.empty(size, np.uint8), "the workspace of cuBLAS", size)

    def gemm(self, dtype: DType, precision: str, sizes: tuple[int, int, int], batch: int, a: tuple[int, Matrix],
             b: tuple[int, Matrix], c: tuple[int, Matrix]) -> None:
        """`c[i] = a[i] @ b[i]`, rows first; to cuBLAS, whose columns come first, it is `cᵀ = bᵀ aᵀ`."""
        (m, k, n), kind, compute = sizes, _KIND[dtype.str], _COMPUTE[dtype.str, precision]
        one, zero = (byref(x) for x in self._numbers[dtype.str])
        (at_a, left), (at_b, right), (at_c, out) = a, b, c
        head = self.handle, right.transposed, left.transposed, n, m, k, one
        if batch == 1:
            self._done(self.library.cublasGemmEx(
                *head, at_b, kind, right.leading, at_a, kind, left.leading, zero, at_c, kind, out.leading,
                compute, DEFAULT_ALGORITHM), "cublasGemmEx")
        else:
            self._done(self.library.cublasGemmStridedBatchedEx(
                *head, at_b, kind, right.leading, right.stride, at_a, kind, left.leading, left.stride, zero,
                at_c, kind, out.leading, out.stride, batch, compute, DEFAULT_ALGORITHM), "cublasGemmStridedBatchedEx")

    def _done(self, status: int, call: str) -> None:
        if status == ALLOCATION_FAILED:
            raise OutOfMemoryError(f"out of memory on the GPU: {call} found no room. No parameter was changed")
        if status:
            raise BackendError(f"{call} failed: {_STATUS.get(status, 'status')} ({status})")


# handle, transpositions, m n k, alpha, a and b each with kind and leading size (and stride), beta, c likewise, (batch,) how
_GEMM = [c_void_p, *[c_int] * 5, c_void_p, *[c_void_p, c_int, c_int] * 2, c_void_p, c_void_p, c_int, c_int, c_int, c_int]
_BATCHED = [c_void_p, *[c_int] * 5, c_void_p, *[c_void_p, c_int, c_int, c_int64] * 2, c_void_p,
            c_void_p, c_int, c_int, c_int64, c_int, c_int, c_int]
_STATUS: Mapping[int, str] = {1: "not initialised", 7: "invalid value", 8: "architecture mismatch",
                              11: "mapping error", 13: "execution failed", 14: "internal error", 15: "not supported"}
