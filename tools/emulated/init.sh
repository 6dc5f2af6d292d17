#!/bin/busybox sh
# The emulated machine's first process, in its initramfs: its root is the host's own files, under a layer in memory.
b=/bin/busybox
off() { echo "lockstep: $1"; $b poweroff -f; }
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for module in $($b cat /modules/order); do $b insmod "/modules/$module.ko" || off "no module $module"; done
$b mount -t virtiofs -o ro host /lower || off "the host's files cannot be reached"
$b mount -t tmpfs -o mode=755 tmpfs /upper && $b mkdir /upper/files /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /root || off "no root"
$b ip link set lo up
# With an address beside the loopback's, Slurm finds its names (it asks getaddrinfo for what is configured).
for interface in /sys/class/net/eth*; do $b ip addr add 10.9.0.1/24 dev "${interface##*/}" && $b ip link set "${interface##*/}" up; done
for folder in proc sys dev; do $b mount --move /$folder /root/$folder; done
start=$($b sed -n 's/.*lockstep.start=\([^ ]*\).*/\1/p' /root/proc/cmdline)
exec $b switch_root /root /bin/bash "$start"
