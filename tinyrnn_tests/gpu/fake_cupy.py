"""A stand-in for CuPy: memory that is not the host's, work that is late, and refusals like CuPy's own.

It knows what tinyrnn uses and nothing else, so that a new use shows at once.  What raises here raises in CuPy 14: numbers
that leave the device without `.get()`, arrays of Python objects, NumPy arrays as kernel arguments, copies to the host and
CuPy's products while a stream is captured.  Kernels get addresses, so strides mean nothing to them; a grid of no blocks
is launched with one, and one-dimensional cooperative grids are cut to what fits.
"""

import ctypes
import gc
import math
import sys
import threading
import time
import types
import warnings
from typing import ClassVar

import numpy as np

from . import toolchain

COOPERATIVE_LIMIT = 132
BLOCKS = 3  # multiprocessors, each of which holds one block


class OutOfMemoryError(MemoryError):
    pass


class CUDARuntimeError(RuntimeError):
    """By its number, as CuPy's."""

    KNOWN: ClassVar = {2: "cudaErrorMemoryAllocation: out of memory",
                       700: "cudaErrorIllegalAddress: an illegal memory access was encountered",
                       900: "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing"}

    def __init__(self, status):
        self.status = status
        super().__init__(self.KNOWN[status])


class CUDADriverError(CUDARuntimeError):
    KNOWN: ClassVar = {1: "CUDA_ERROR_INVALID_VALUE: invalid argument", 2: "CUDA_ERROR_OUT_OF_MEMORY: out of memory"}


def _library():
    lib = ctypes.CDLL(str(toolchain.runtime()), mode=ctypes.RTLD_GLOBAL)
    for name in ("fake_alloc",):
        getattr(lib, name).restype = ctypes.c_void_p
    for name in ("fake_position", "fake_end", "fake_nodes", "fake_in_use", "fake_blocks", "fake_stream", "fake_number", "fake_handles"):
        getattr(lib, name).restype = ctypes.c_long
    lib.fake_trouble.restype = ctypes.c_char_p
    return lib


LIB = _library()
P, L = ctypes.c_void_p, ctypes.c_long


def check():
    """Raise what went wrong in memory or in the use of libraries."""
    LIB.fake_check_guards()
    trouble = LIB.fake_trouble().decode()
    assert not trouble, trouble


def settle():
    """Everything that waits in a stream is done, and memory that nobody holds is back."""
    gc.collect()
    LIB.fake_settle()


def forgive():
    """What went wrong was meant to."""
    settle()
    LIB.fake_forgive()


class little_memory:  # noqa: N801  (a context manager that reads as a word)
    """No more than so many bytes beside what is in use."""

    def __init__(self, more):
        self.more = more

    def __enter__(self):
        settle()
        LIB.fake_limit(ctypes.c_size_t(LIB.fake_in_use() + self.more))

    def __exit__(self, *_):
        LIB.fake_limit(ctypes.c_size_t(2**63))


# ---- streams

class Event:
    def __init__(self, block=False, disable_timing=False):
        self.stream = self.at = self.seen = None

    def record(self, stream):
        self.stream, self.at = LIB.fake_number(L(stream.ptr)), LIB.fake_position(L(stream.ptr))

    def synchronize(self):
        LIB.fake_flush(L(self.stream), L(self.at))
        self.seen = time.perf_counter()


def get_elapsed_time(first, last):
    first.synchronize()
    return max(1e3 * abs(last.seen - first.seen), 1e-6)


class Stream:
    null = None

    def __init__(self, null=False, non_blocking=False, ptds=False):
        self.ptr, self.is_non_blocking = 0 if null else LIB.fake_stream(int(not non_blocking)), non_blocking

    def __del__(self):
        if getattr(self, "ptr", 0):
            LIB.fake_destroy(L(self.ptr))

    def __enter__(self):
        _stack().append(self)
        return self

    def __exit__(self, *_):
        _stack().pop()

    def use(self):
        _stack()[-1] = self

    def synchronize(self):
        if self.is_capturing():
            raise CUDARuntimeError(900)
        LIB.fake_flush(L(LIB.fake_number(L(self.ptr))), L(-1))

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event):
        LIB.fake_wait(L(self.ptr), L(event.stream), L(event.at))

    def begin_capture(self, mode=None):
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.is_capturing():
            raise RuntimeError("the stream is already capturing")
        LIB.fake_begin(L(self.ptr))

    def is_capturing(self):
        return bool(LIB.fake_capturing(L(self.ptr)))

    def end_capture(self):
        if not self.is_capturing():
            raise RuntimeError("the stream is not capturing")
        return Graph(LIB.fake_end(L(self.ptr)))


class Graph:
    alive = 0

    def __init__(self, number):
        self.number = number
        Graph.alive += 1

    def __del__(self):
        Graph.alive -= 1
        LIB.fake_forget(L(self.number))

    @property
    def nodes(self):
        return LIB.fake_nodes(L(self.number))

    def launch(self, stream=None):
        LIB.fake_launch_graph(L(self.number), L((stream or current()).ptr))


Stream.null = Stream(null=True)
_threads = threading.local()


def _stack():
    if not hasattr(_threads, "streams"):
        _threads.streams = [Stream.null]
    return _threads.streams


def current():
    return _stack()[-1]


def _refuse_while_capturing():
    if current().is_capturing():
        raise CUDARuntimeError(900)


# ---- memory and arrays

class Memory:
    """Device memory, which goes back to the stream that it came from."""

    def __init__(self, size):
        stream = current().ptr
        self.ptr, self.stream = LIB.fake_alloc(ctypes.c_size_t(size), L(stream)) or 0, LIB.fake_number(L(stream))
        if not self.ptr:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes")

    def __del__(self):
        if getattr(self, "ptr", 0):
            LIB.fake_free(P(self.ptr), L(self.stream))


class UnownedMemory:
    def __init__(self, ptr, size, owner, device_id=-1):
        self.ptr, self.owner = ptr, owner


class MemoryPointer:
    def __init__(self, mem, offset):
        self.mem, self.ptr = mem, mem.ptr + offset

    def __add__(self, offset):
        return MemoryPointer(self.mem, self.ptr - self.mem.ptr + offset)


class _Device:
    def __init__(self, number=0):
        self.id = 0 if number is None else number

        self.attributes = {"MultiProcessorCount": BLOCKS}

    def use(self):
        _threads.context = True

    compute_capability = "90"


class ndarray:  # noqa: N801  (CuPy's name)
    """Numbers on the device.  Nothing here hands them to NumPy unless it is asked to by `get`."""

    __array_priority__ = 100
    __array_ufunc__ = None

    def __init__(self, shape, dtype=float, memptr=None, strides=None):
        self.shape = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        if self.dtype.kind not in "biufc":
            raise ValueError(f"Unsupported dtype {self.dtype}")
        self.size = math.prod(self.shape)
        self.nbytes = self.size * self.dtype.itemsize
        if memptr is None:
            memptr = MemoryPointer(Memory(self.nbytes), 0) if self.nbytes else MemoryPointer(UnownedMemory(0, 0, None), 0)
        self.data, self.device = memptr, _Device()
        self.strides = tuple(strides) if strides is not None else _strides(self.shape, self.dtype.itemsize)

    ndim = property(lambda self: len(self.shape))
    flags = property(lambda self: types.SimpleNamespace(c_contiguous=self._whole()))

    def _whole(self):
        whole = _strides(self.shape, self.dtype.itemsize)
        return self.size == 0 or all(n == 1 or a == b for n, a, b in zip(self.shape, self.strides, whole, strict=True))

    def _host(self):
        """A window on the memory for the stand-in itself."""
        if not self.size:
            return np.empty(self.shape, self.dtype)
        low = sum(min(0, (n - 1) * s) for n, s in zip(self.shape, self.strides, strict=True))
        high = sum(max(0, (n - 1) * s) for n, s in zip(self.shape, self.strides, strict=True)) + self.dtype.itemsize
        raw = (ctypes.c_char * (high - low)).from_address(self.data.ptr + low)
        return np.ndarray(self.shape, self.dtype, raw, -low, self.strides)

    # ---- what CuPy refuses

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array "
                        "explicitly.")

    def _unsupported(self, other):
        if isinstance(other, (np.ndarray, list)):
            raise TypeError(f"Unsupported type {type(other)}")
        raise NotImplementedError("the stand-in knows no arithmetic: tinyrnn does it in kernels of its own")

    __add__ = __radd__ = __sub__ = __mul__ = __rmul__ = __truediv__ = __matmul__ = _unsupported

    def __bool__(self):
        return bool(self.get())

    def __float__(self):
        return float(self.get())

    # ---- what tinyrnn asks of it

    def get(self):
        _refuse_while_capturing()
        LIB.fake_set(L(current().ptr), P(self.data.ptr), 0, ctypes.c_size_t(0))  # the copy's place in the stream
        current().synchronize()
        return np.array(self._host(), order="C")

    def set(self, host):
        if not isinstance(host, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if host.dtype != self.dtype or host.shape != self.shape or not self._whole():
            raise ValueError(f"{host.dtype}{host.shape} cannot be set to {self.dtype}{self.shape}")
        _refuse_while_capturing()
        host = np.ascontiguousarray(host)
        LIB.fake_copy(L(current().ptr), P(self.data.ptr), P(host.ctypes.data), ctypes.c_size_t(host.nbytes), 0)

    def copy(self):
        new = ndarray(self.shape, self.dtype)
        source = self if self._whole() else ascontiguousarray(self)
        LIB.fake_copy(L(current().ptr), P(new.data.ptr), P(source.data.ptr), ctypes.c_size_t(self.nbytes), 1)
        return new

    def reshape(self, *shape):
        shape = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        known = math.prod(n for n in shape if n >= 0)
        shape = tuple(self.size // max(known, 1) if n < 0 else n for n in shape)
        source = self if self._whole() else self.copy()
        return ndarray(shape, self.dtype, source.data)

    def view(self, dtype):
        return ndarray((self.nbytes // np.dtype(dtype).itemsize,), dtype, self.data)

    def __getitem__(self, key):
        if isinstance(key, int):
            return ndarray(self.shape[1:], self.dtype, self.data + key * self.strides[0], self.strides[1:])
        first, last, step = key.indices(self.shape[0])
        return ndarray((max(0, -(-(last - first) // step)), *self.shape[1:]), self.dtype, self.data + first * self.strides[0],
                       (step * self.strides[0], *self.strides[1:]))

    def transpose(self):
        return ndarray(self.shape[::-1], self.dtype, self.data, self.strides[::-1])

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **_):
        return self


def _strides(shape, size):
    strides = []
    for n in reversed(shape):
        strides.append(size)
        size *= max(n, 1)
    return tuple(reversed(strides))


def empty(shape, dtype=float):
    return ndarray(shape, dtype)


def zeros(shape, dtype=float):
    new = ndarray(shape, dtype)
    LIB.fake_set(L(current().ptr), P(new.data.ptr), 0, ctypes.c_size_t(new.nbytes))
    return new


def asarray(value):
    if isinstance(value, ndarray):
        return value
    host = np.asarray(value)
    if host.dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {host.dtype}")
    new = ndarray(host.shape, host.dtype)
    new.set(np.asarray(host, order="C"))
    return new


def ascontiguousarray(value, dtype=None):
    """As CuPy's: of no axes it makes one, over the same memory."""
    value = asarray(value)
    dtype = value.dtype if dtype is None else np.dtype(dtype)
    if value.dtype == dtype and value._whole():
        return value if value.shape else ndarray((1,), dtype, value.data)
    new = ndarray(value.shape, dtype)
    current().synchronize()  # the stand-in converts on the host
    new.set(np.ascontiguousarray(value._host(), dtype))
    return new


def asnumpy(value):
    return value.get() if isinstance(value, ndarray) else np.asarray(value)


def from_dlpack(value):
    found = value.__dlpack__()
    if not isinstance(found, ndarray):
        raise BufferError("not memory of this device")
    return found


def matmul(a, b, out=None):
    """As CuPy's: never while a stream is captured; operands are arrays of the device, of one dtype."""
    if not all(isinstance(x, ndarray) for x in (a, b, out)):
        raise TypeError("Unsupported type: matmul takes cupy.ndarray")
    if current().is_capturing():
        raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
    if a.dtype != b.dtype or out.dtype != a.dtype:
        raise TypeError("operands of different dtypes")
    current().synchronize()
    with np.errstate(all="ignore"):
        out._host()[...] = np.matmul(a._host(), b._host())
    return out


# ---- kernels

class Function:
    shared = 48 << 10

    def __init__(self, module, name):
        self.module, self.name = module, name
        self.words, self.threads, text = toolchain.kernels_in(module.source)[name]
        self.meets = toolchain.meets(text)
        self.address = ctypes.cast(getattr(module.lib, name), P).value

    def __call__(self, grid, block, args, shared_mem=0, stream=None, enable_cooperative_groups=False):
        grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        grid = tuple(max(1, n) for n in grid)  # CuPy launches a block where there should be none
        if enable_cooperative_groups and math.prod(grid) > COOPERATIVE_LIMIT:
            if grid[1] == grid[2] == 1:
                warnings.warn(f"The grid size will be reduced from {grid[0]} to {COOPERATIVE_LIMIT}", stacklevel=2)
                grid = (COOPERATIVE_LIMIT, 1, 1)
            else:
                raise ValueError(f"The specified grid size ({grid}) exceeds the limit ({COOPERATIVE_LIMIT})")
        if math.prod(block) > self.threads:
            raise CUDADriverError(1)
        if not 0 < grid[0] < 2**31 or max(grid[1:]) > 65_535:
            raise CUDADriverError(1)
        (words,) = args
        if not isinstance(words, np.ndarray):
            raise TypeError(f"Unsupported type {type(words)}")
        if words.size != 1:
            raise TypeError(f"You are trying to pass a numpy.ndarray of shape {words.shape} as a kernel parameter. Only "
                            "numpy.ndarrays of size one can be passed by value.")
        if words.itemsize != 8 * self.words:
            raise AssertionError(f"{self.name} takes {self.words} words, got {words.itemsize / 8}")
        self.launch(current().ptr, grid, block, words.ctypes.data)

    def launch(self, stream, grid, block, words, cluster=1):
        numbers = (ctypes.c_uint * 2)(*grid[:2]), (ctypes.c_uint * 2)(*block[:2])
        LIB.fake_launch(L(stream), P(self.address), self.meets, *numbers, P(words), L(self.words), ctypes.c_uint(cluster))


class Module:
    def load(self, image):
        self.source = image.decode()
        self.lib = ctypes.CDLL(str(toolchain.kernels(self.source)))

    def get_function(self, name):
        return Function(self, name)


# ---- the module

def _memcpy_async(to, source, size, kind, stream):
    LIB.fake_copy(L(stream), P(to), P(source), ctypes.c_size_t(size), 1)


class _Pinned(bytearray):
    """Memory of the host that goes away with whoever held it: what is read from it afterwards is nothing of theirs."""

    gone: ClassVar = []

    def __del__(self):
        rest = bytearray(b"\xff") * len(self)
        self[:] = rest
        _Pinned.gone.append(self)


def _alloc_pinned(size):
    return _Pinned(size)


# ---- the driver's own functions, by the names of cuda-python

class _Named(types.SimpleNamespace):
    """A structure whose parts are there when they are asked for."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        part = _Named()
        setattr(self, name, part)
        return part


def _module_of(image):
    found = Module()
    found.load(image)
    return found


def _shape_of(how):
    """Blocks of the grid, threads of a block, blocks of a cluster."""
    clusters = [a.value.clusterDim.x for a in how.attrs if a.id == "clusters"]
    return how.gridDimX, how.blockDimX, clusters[0] if clusters else 1


def _most_active(function, how):
    return 0, _together(how) // _shape_of(how)[2]


def _together(how):
    """Blocks that are on the chip at once: as many as shared memory lets a multiprocessor hold."""
    return BLOCKS * max(1, min(8, (227 << 10) // max(how.sharedMemBytes, 1)))


def _launch_ex(how, function, places, extra):
    blocks, threads, cluster = _shape_of(how)
    together = any(a.id == "cooperative" for a in how.attrs)
    if len(how.attrs) != how.numAttrs or blocks % cluster or threads > function.threads:
        return (1,)
    if how.sharedMemBytes > function.shared:
        return (1,)
    if together and blocks > max(_together(how), cluster):
        return (720,)  # CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE
    words = ctypes.cast(places, ctypes.POINTER(P))[0]
    function.launch(how.hStream, (blocks, 1), (threads, 1), words, cluster)
    return (0,)


def _set_attribute(function, attribute, value):
    if attribute == "shared":
        function.shared = value
    return (0,)


def _stream_id(stream):
    """A thread that has not used the device has no context, and the driver answers nothing."""
    return (0, LIB.fake_number(L(stream))) if getattr(_threads, "context", False) else (201, 0)


DRIVER = types.SimpleNamespace(
    CUstream=int, CUlaunchConfig=_Named, CUlaunchAttribute=_Named,
    CUlaunchAttributeID=types.SimpleNamespace(CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION="clusters", CU_LAUNCH_ATTRIBUTE_COOPERATIVE="cooperative"),
    CUfunction_attribute=types.SimpleNamespace(CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED="any size",
                                               CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared"),
    cuStreamGetId=_stream_id, cuModuleLoadData=lambda image: (0, _module_of(image)),
    cuModuleGetFunction=lambda module, name: (0, module.get_function(name.decode())), cuFuncSetAttribute=_set_attribute,
    cuOccupancyMaxActiveClusters=_most_active, cuLaunchKernelEx=_launch_ex)


def modules():
    """The stand-in as CuPy's modules, for `sys.modules`."""
    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: 1, driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 13000, memcpyAsync=_memcpy_async,
        memsetAsync=lambda ptr, value, size, stream: LIB.fake_set(L(stream), P(ptr), value, ctypes.c_size_t(size)),
        memGetInfo=lambda: (1 << 20, 1 << 30), CUDARuntimeError=CUDARuntimeError,
        getDeviceProperties=lambda i: {"name": b"Stand-in", "major": 9, "minor": 0})
    cuda = types.SimpleNamespace(
        runtime=runtime, driver=types.SimpleNamespace(CUDADriverError=CUDADriverError), Stream=Stream, Event=Event, Graph=Graph,
        Device=_Device, get_current_stream=current, get_elapsed_time=get_elapsed_time, alloc_pinned_memory=_alloc_pinned, MemoryPointer=MemoryPointer,
        UnownedMemory=UnownedMemory, function=types.SimpleNamespace(Module=Module),
        memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError))
    cupy = types.ModuleType("cupy")
    names = {"ndarray": ndarray, "empty": empty, "zeros": zeros, "asarray": asarray, "ascontiguousarray": ascontiguousarray,
             "asnumpy": asnumpy, "from_dlpack": from_dlpack, "matmul": matmul, "cuda": cuda, "get_default_memory_pool": lambda: types.SimpleNamespace(free_all_blocks=lambda: None),
              "__version__": "14.2.0 (stand-in)"}
    for name, value in names.items():
        setattr(cupy, name, value)
    cupy.__spec__ = types.SimpleNamespace(name="cupy")
    return {"cupy": cupy}


def install(monkeypatch):
    """Make tinyrnn find the stand-in where CuPy would be."""
    from tinyrnn.backends.cuda import device, kernels, nvrtc, runtime

    for name, module in modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(device, "loaded", lambda name: str(toolchain.runtime()))
    monkeypatch.setattr(device, "driver", lambda: DRIVER)
    monkeypatch.setattr(nvrtc, "cubin", lambda source, architecture: source.encode())
    monkeypatch.setattr(nvrtc, "version", lambda: (13, 0))
    monkeypatch.setattr(kernels, "load_object", lambda identity: None)
    monkeypatch.setattr(kernels, "store_object", lambda identity, code: None)
    monkeypatch.setattr(runtime, "_own", threading.local())
    forget()


def forget():
    """What tinyrnn remembers of a device; memory that is free goes back."""
    from tinyrnn.backends.cuda import cublas, device, graphs, kernels, runtime

    for cached in (device.missing, device.architecture, kernels.library):
        cached.cache_clear()
    runtime._workspaces.clear()
    cublas._SPARE.clear()
    graphs.CAPTURED.clear()
    settle()
