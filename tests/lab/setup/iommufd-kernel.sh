#!/bin/bash
# Builds a small 6.12 kernel that has IOMMUFD and VFIO character devices, which Debian's kernels have switched off.
#
# usage: iommufd-kernel.sh OUTPUT_FOLDER QEMU_TREE CONFIG_FRAGMENT
# makes: OUTPUT/vmlinuz (no modules)
set -euo pipefail
out=$1 tree=$2 fragment=$3
export LC_ALL=C

# Builds under a fixed name: an interrupted build goes on where it stopped.
work=$out.build
mkdir -p "$work"
if [ ! -f "$work/unpacked" ]; then
    rm -rf "$work"
    mkdir -p "$work"
    chroot "$tree" apt-get -q update
    download=$(mktemp -d "$tree/tmp/source.XXXXXX")
    trap 'rm -rf "$download"' EXIT
    chroot "$tree" sh -c "cd ${download#"$tree"} && apt-get -q -o APT::Sandbox::User=root download linux-source-6.12"
    mkdir "$work/package" "$work/linux"
    dpkg-deb -x "$download"/linux-source-6.12_*.deb "$work/package"
    tar -xf "$work"/package/usr/src/linux-source-6.12.tar.xz -C "$work/linux" --strip-components=1
    rm -rf "$work/package"
    touch "$work/unpacked"
fi

cd "$work/linux"
make -s ARCH=x86_64 tinyconfig > /dev/null
./scripts/kconfig/merge_config.sh -m .config "$fragment" > /dev/null
make -s ARCH=x86_64 olddefconfig

# An option that fell out because something it depends on is missing would only show much later, in a guest.
missing=$(grep '=y$' "$fragment" | grep -vxFf .config || true)
if [ -n "$missing" ]; then
    echo "these options did not survive olddefconfig:" >&2
    echo "$missing" >&2
    exit 1
fi
make -s ARCH=x86_64 -j"$(nproc)" bzImage
cp arch/x86/boot/bzImage "$out/vmlinuz"
make -s ARCH=x86_64 kernelrelease > "$out/release"
rm -rf "$work"
