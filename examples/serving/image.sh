#!/bin/sh
# The whole file tree of a server's image, from Debian 12's packages and pip's: sh image.sh REPOSITORY TARGET
# It needs Debian 12 (apt-get, dpkg) and a Python 3.11 with pip. The Dockerfile beside it calls it; `chroot TARGET` runs it too.
set -eu
repository=$(cd "$1" && pwd)
mkdir -p "$2"
target=$(cd "$2" && pwd)

# Python 3.11 and the libraries that it, numpy and onnxruntime are linked with; no shell, no package manager.
debs=$(mktemp -d)
chmod 755 "$debs"
cd "$debs"
apt-get download -q python3.11-minimal libpython3.11-minimal libpython3.11-stdlib \
    libc6 libgcc-s1 libstdc++6 libssl3 libexpat1 libffi8 libbz2-1.0 liblzma5 libuuid1 zlib1g
for deb in *.deb; do dpkg -x "$deb" "$target"; done
cd "$repository"
rm -rf "$debs" "$target/usr/share/doc" "$target/usr/share/man" "$target/usr/share/lintian" "$target/usr/share/locale"
rm -rf "$target"/usr/lib/*/gconv "$target/usr/share/applications" "$target/usr/share/pixmaps" "$target/usr/share/binfmts"
mkdir -m 1777 -p "$target/tmp"
echo 'recdistill:x:65532:65532::/tmp:' > "$target/etc/passwd"

python3 -m pip install --quiet --no-cache-dir --no-compile --target "$target/packages" \
    -c "$repository/constraints.txt" "$repository[serve]"
sh "$repository/examples/serving/strip.sh" "$target/packages"
