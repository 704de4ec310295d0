#!/bin/sh
# Boots the system in a directory, in namespaces of its own but for the network's: boot.sh DIR CGROUP
set -eu
root=$1

# A place among the machine's control groups, which is all that the system sees of them.
groups=$(mktemp -d)
mount -t cgroup2 none "$groups"
mkdir "$groups/$2"
echo $$ >"$groups/$2/cgroup.procs"
umount "$groups"
rmdir "$groups"

exec unshare --pid --fork --kill-child --mount --uts --ipc --cgroup --propagation private sh -euc '
mount --bind "$0" "$0"
cd "$0"
# The machine is not its own to set up; the network is.
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --bind /proc/sys/net proc/sys/net
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs dev
for device in null zero full random urandom tty; do
	: >dev/$device
	mount --bind /dev/$device dev/$device
done
ln -s /proc/self/fd dev/fd
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
: >etc/machine-id
pivot_root . mnt
umount -l /mnt
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=journal --show-status=no
' "$root"
