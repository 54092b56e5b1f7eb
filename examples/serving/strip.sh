#!/bin/sh
# Remove from a folder of packages what no request ever needs: sh strip.sh SITE_PACKAGES
set -eu
cd "$1"
rm -rf pip pip-* setuptools setuptools-* pkg_resources _distutils_hack distutils-precedence.pth wheel wheel-*
rm -rf onnxruntime/transformers onnxruntime/tools onnxruntime/quantization onnxruntime/datasets
# The Python module holds the runtime itself; the library beside it is for programs in C and C++.
if ! ldd onnxruntime/capi/onnxruntime_pybind11_state*.so | grep -q libonnxruntime; then
    rm -f onnxruntime/capi/libonnxruntime.so.*
fi
rm -rf numpy/f2py numpy/distutils numpy/_core/include numpy/_core/lib numpy/random/lib
find . -type d \( -name tests -o -name __pycache__ \) -prune -exec rm -rf {} +
find . -type f \( -name '*.pyi' -o -name '*.pxd' -o -name '*.a' \) -delete
