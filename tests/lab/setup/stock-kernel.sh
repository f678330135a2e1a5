#!/bin/bash
# Takes the stock Debian 13 kernel and the few modules that the guests need out of its package.
#
# usage: stock-kernel.sh OUTPUT_FOLDER QEMU_TREE
# makes: OUTPUT/vmlinuz, OUTPUT/modules/*.ko, OUTPUT/modules/order (a line `name: file file ..` for each
#        module that a guest may ask for: the files to load, in that order)
set -euo pipefail
out=$1 tree=$2
export LC_ALL=C

# `linux-image-amd64` only names the package that holds the kernel.
chroot "$tree" apt-get -q update
version=$(chroot "$tree" apt-cache policy linux-image-amd64 | awk '/Candidate:/ { print $2 }')
package=$(chroot "$tree" apt-cache show "linux-image-amd64=$version" |
    sed -n 's/^Depends: \(linux-image-[^ ,]*\).*/\1/p' | head -n 1)
echo "stock kernel: $package ($version)"

work=$(mktemp -d "$tree/tmp/stock.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
chroot "$tree" sh -c "cd ${work#"$tree"} && apt-get -q -o APT::Sandbox::User=root download '$package=$version'"
chroot "$tree" dpkg-deb -x "${work#"$tree"}/$(basename "$work"/*.deb)" "${work#"$tree"}/root"

cp "$work"/root/boot/vmlinuz-* "$out/vmlinuz"
release=$(ls "$work/root/usr/lib/modules" 2> /dev/null || ls "$work/root/lib/modules")
modules=$(find "$work/root" -type d -path "*/modules/$release")
root=${modules%/*/*/*}
[ "${root##*/}" = usr ] && base=$root || base=${modules%/lib/modules/*}
depmod -b "$base" "$release"

# modprobe knows the order; what is built into the kernel is printed as "builtin".
mkdir -p "$out/modules"
for name in vfio_iommu_type1 vfio-pci virtio_net tun bridge 8021q macvlan geneve ixgbe i40e ioatdma idxd; do
    printf '%s:' "$name"
    modprobe -d "$base" -S "$release" --show-depends --ignore-install "$name" |
        awk '$1 == "insmod" { print $2 }' |
        while read -r file; do
            plain=$(basename "$file" .xz)
            case $file in
                *.xz) xz -dc "$file" > "$out/modules/$plain" ;;
                *) cp "$file" "$out/modules/$plain" ;;
            esac
            printf ' %s' "$plain"
        done
    echo
done > "$out/modules/order"
echo "$release" > "$out/release"
cat "$out/modules/order"
for needed in vfio.ko vfio_iommu_type1.ko vfio-pci.ko 8021q.ko macvlan.ko geneve.ko ixgbe.ko i40e.ko ioatdma.ko idxd.ko; do
    [ -s "$out/modules/$needed" ] || { echo "the package has no $needed" >&2; exit 1; }
done
