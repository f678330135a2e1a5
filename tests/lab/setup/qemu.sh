#!/bin/bash
# Makes a small Debian 13 tree with a QEMU new enough to have vfio-user-pci (10.1 and later).
# It is run by its own loader, so that the host keeps its own libraries and QEMU.
#
# usage: MIRROR=URL qemu.sh OUTPUT_FOLDER
set -euo pipefail
out=$1 mirror=$MIRROR

echo "debootstrap of trixie from $mirror"
debootstrap --variant=minbase --include=ca-certificates trixie "$out" "$mirror"

cat > "$out/etc/apt/sources.list" <<SOURCES
deb $mirror trixie main
deb $mirror trixie-updates main
deb $mirror trixie-backports main
SOURCES
# No daemon may start inside the tree.
printf '#!/bin/sh\nexit 101\n' > "$out/usr/sbin/policy-rc.d"
chmod +x "$out/usr/sbin/policy-rc.d"
cp /etc/resolv.conf "$out/etc/resolv.conf"

export DEBIAN_FRONTEND=noninteractive LC_ALL=C
chroot "$out" apt-get -q update
chroot "$out" apt-get -q install -y --no-install-recommends -t trixie-backports qemu-system-x86
chroot "$out" apt-get clean

# The tree must be able to do what it was made for.
libraries=$out/usr/lib/x86_64-linux-gnu
qemu=("$out/lib64/ld-linux-x86-64.so.2" --library-path "$libraries:$libraries/pulseaudio" "$out/usr/bin/qemu-system-x86_64")
export QEMU_MODULE_DIR=$libraries/qemu
"${qemu[@]}" --version
"${qemu[@]}" -machine none -device help | grep '"vfio-user-pci"' > /dev/null || {
    echo "this QEMU has no vfio-user-pci" >&2
    exit 1
}
