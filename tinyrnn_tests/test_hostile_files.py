"""Weights in files from strangers: every oddity of a safetensors file is one clear error, in bounded time and memory, for every
reader: `read_weights`, `tr.load`, `from_torch`, `inspect`."""

import json
import resource
import subprocess
import sys
import time

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.errors import LoadError


def packed(header, body=b"", size=None):
    """A file with a header, whatever is in it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + body


def one(shape=(2,), dtype="F32", offsets=(0, 8), name="w", **further):
    return {name: {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **further}}


BODY = b"\0" * 64
FILES = {
    "n = 0": packed(b""), "seven bytes": b"\0" * 7, "n = 2^63": packed(b"{}", size=2**63), "n = 2^64 - 1": packed(b"{}", size=2**64 - 1),
    "n = 200 MB": packed(b"{}", size=200_000_000), "n past the end": packed(b"{}", size=3), "bad UTF-8": packed(b'{"\xff":1}'), "no JSON": packed(b"{nothing}"),
    "an array": packed(b"[]"), "leading space": packed(b" " + json.dumps(one()).encode(), BODY[:8]),
    "overlap": packed(one() | one(name="v", offsets=(4, 12)), BODY[:12]), "a hole": packed(one() | one(name="v", offsets=(16, 24)), BODY[:24]),
    "trailing bytes": packed(one(), BODY), "truncated": packed(one(), BODY[:7]), "wrong size": packed(one(shape=(3,)), BODY[:8]),
    "overflow": packed(one(shape=(2**40, 2**40)), BODY[:8]), "a huge shape of nothing": packed(one(shape=(2**62, 2**62, 0), offsets=(0, 0))),
    "a negative size": packed(one(shape=(-2,)), BODY[:8]), "half a size": packed(one(shape=(2.0,)), BODY[:8]), "true as a size": packed(one(shape=(True, 2)), BODY[:8]),
    "an unknown dtype": packed(one(dtype="F31"), BODY[:8]), "bfloat16": packed(one(shape=(4,), dtype="BF16"), BODY[:8]), "F8": packed(one(shape=(8,), dtype="F8_E4M3"), BODY[:8]),
    "metadata of numbers": packed({"__metadata__": {"a": 1}, **one()}, BODY[:8]), "metadata of no kind": packed({"__metadata__": [], **one()}, BODY[:8]),
    "a deep header": packed(b'{"a":' * 100_000), "rank 65": packed(one(shape=(1,) * 65, offsets=(0, 4)), BODY[:4]),
    "a name of a path": packed(one(name="../../x"), BODY[:8]), "no name": packed(one(name=""), BODY[:8]), "NUL in a name": packed(one(name="a\0b"), BODY[:8]),
    "a long name": packed(one(name="a" * 5000), BODY[:8]), "a bool of 7": packed(one(dtype="BOOL", offsets=(0, 2)), b"\x01\x07"),
    "twice a name": packed(b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', BODY[:4]),
    "offsets of words": packed(one(offsets=("0", "8")), BODY[:8]), "one offset": packed(one(offsets=(8,)), BODY[:8]), "offsets turned round": packed(one(offsets=(8, 0)), BODY[:8]),
    "an entry that is a list": packed({"w": [1, 2]}), "a million entries": packed({f"w{i}": one(offsets=(0, 0), shape=(0,))["w"] for i in range(110_000)}),
    "a pickle": b"\x80\x04\x95" + BODY, "a zip": b"PK\x03\x04" + BODY}
READERS = {"read_weights": tr.io.read_weights, "load": tr.load, "from_torch": tr.io.from_torch}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", FILES)
def test_one_error(name, reader, tmp_path):
    file = tmp_path / "w.safetensors"
    file.write_bytes(FILES[name])
    began = time.process_time()
    with pytest.raises(LoadError, match=r"w\.safetensors") as error:
        READERS[reader](file)
    assert time.process_time() - began < 5
    assert len(str(error.value)) < 600
    assert str(error.value).isprintable()


def test_what_is_odd_but_sound(tmp_path):
    """NaN, sizes of zero, no tensors at all."""
    for data, expected in ((packed(one(), np.array([np.nan, np.inf], "f4").tobytes()), {"w": [np.nan, np.inf]}), (packed(b"{}"), {}),
                           (packed(one(shape=(0, 3), offsets=(0, 0))), {"w": np.zeros((0, 3))})):
        (tmp_path / "w.safetensors").write_bytes(data)
        found, _ = tr.io.read_weights(tmp_path / "w.safetensors")
        assert found.keys() == expected.keys()
        for k, v in expected.items():
            np.testing.assert_array_equal(found[k], v)


def test_a_shape_of_nothing_takes_no_memory(tmp_path):
    """No entries along one axis, as many as one likes along another."""
    (tmp_path / "w.safetensors").write_bytes(packed(one(shape=(0, 2**40), offsets=(0, 0))))
    code = (f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({4 << 30},) * 2)\nimport sys, tinyrnn as tr\n"
            "try: print(tr.io.read_weights(sys.argv[1])[0]['w'].shape)\n"
            "except tr.TinyRNNError as error: print(type(error).__name__)")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "w.safetensors")], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("LoadError", f"(0, {2**40})")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2 << 20
