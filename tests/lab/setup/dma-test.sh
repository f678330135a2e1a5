#!/bin/bash
# Builds two modules for the stock kernel: its own test of copy engines, which Debian leaves out, from Debian's source of that kernel, and an
# instruction that the emulated processor does not have; with Debian's compiler and headers, in a copy of the tree that is thrown away.
#
# usage: dma-test.sh OUTPUT_FOLDER QEMU_TREE STOCK_KERNEL STOCK_KERNEL_SCRIPT DIRECT_STORE_SOURCE
# makes: OUTPUT/modules/{dmatest,direct-store}.ko, OUTPUT/modules/order (as stock-kernel.sh)
set -euo pipefail
out=$1 tree=$2 kernel=$3 source=$5
export LC_ALL=C DEBIAN_FRONTEND=noninteractive

release=$(cat "$kernel/release")
abi=${release%-amd64}
work=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$work"' EXIT
cp -a "$tree/." "$work"
chmod 755 "$work"
mkdir -m 777 "$work/build"
chroot "$work" apt-get -q update
chroot "$work" apt-get -q install -y --no-install-recommends gcc-14 libc6-dev make
version=$(chroot "$work" apt-cache policy "linux-headers-$release" | awk '/Candidate:/ { print $2 }')
chroot "$work" sh -c "cd /build && apt-get -q -o APT::Sandbox::User=root download \
    linux-headers-$release=$version linux-headers-$abi-common=$version linux-kbuild-$abi=$version linux-source-6.12=$version"
# Not installed: the headers ask for the kernel itself.
for package in "$work"/build/linux-headers-*.deb "$work"/build/linux-kbuild-*.deb; do
    dpkg-deb -x "$package" "$work"
done
dpkg-deb --fsys-tarfile "$work"/build/linux-source-*.deb | tar -xO ./usr/src/linux-source-6.12.tar.xz |
    tar -xJ -C "$work/build" --strip-components=3 --wildcards '*/drivers/dma/dmatest.c'
cp "$source" "$work/build/direct-store.c"
echo 'obj-m := dmatest.o direct-store.o' > "$work/build/Makefile"
# Without type information for tracers, which would take one more tool.
chroot "$work" make -s -C "/usr/src/linux-headers-$release" M=/build CONFIG_DEBUG_INFO_BTF_MODULES= modules

mkdir -p "$out/modules"
cp "$work/build/dmatest.ko" "$work/build/direct-store.ko" "$out/modules/"
printf '%s\n' 'dmatest: dmatest.ko' 'direct-store: direct-store.ko' > "$out/modules/order"
