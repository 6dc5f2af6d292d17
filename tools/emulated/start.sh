# The emulated machine after its first process: the newer Debian's /usr, cgroup v2, its Slurm; then the caller's program.
# What it takes from its maker: SYSTEM (that Debian), PYTHON (parts of this machine's), FILES (this folder), PROGRAM.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
exec 2>&1
off() {
  sync
  echo o > /proc/sysrq-trigger
  while :; do :; done  # nothing is started any more: its file would be read from a host that is gone
}
fail() { echo "lockstep: $1"; off; }
trap 'fail "the start ended early"' EXIT

for part in $PYTHON; do mount --bind "/$part" "$SYSTEM/$part" || fail "no /$part"; done
for part in etc/alternatives etc/ld.so.cache usr; do mount --rbind "$SYSTEM/$part" "/$part" || fail "no /$part"; done
hash -r
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /dev/shm /dev/pts
ln -sfn /proc/self/fd /dev/fd
for number in "0 stdin" "1 stdout" "2 stderr"; do ln -sf /proc/self/fd/${number% *} "/dev/${number#* }"; done
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup || fail "no cgroup v2"
hostname emulated
echo "127.0.0.1 localhost emulated" > /etc/hosts
: > /etc/resolv.conf
# A job without an environment of its own gets that of a login (sbatch --export=NONE): not the host's root's, please.
for file in .profile .bash_profile .bash_login .bashrc; do
  [[ ! -e /root/$file ]] || mount --bind /dev/null /root/$file
done

slurm=/run/slurm
mkdir -p $slurm/spool $slurm/state $slurm/logs
export SLURM_CONF=$slurm/slurm.conf
cores=$(( $(nproc) / 2 / THREADS ))
sed "s/@CORES@/$cores/; s/@THREADS@/$THREADS/" "$FILES/slurm.conf" > $SLURM_CONF
cp "$FILES/cgroup.conf" $slurm/cgroup.conf
head -c 128 /dev/urandom > $slurm/munge.key
chmod 400 $slurm/munge.key
# --force: it wants a folder that belongs to a user of its own.
munged --force --socket=$slurm/munge.socket --key-file=$slurm/munge.key --pid-file=$slurm/munged.pid \
  --log-file=$slurm/logs/munged.log --seed-file=$slurm/munge.seed || fail "munged did not start"
slurmctld || fail "slurmctld did not start"
slurmd -N emulated || fail "slurmd did not start"
for ((tries = 0; tries < 200; tries++)); do
  [[ $(sinfo --noheader --format=%T 2> /dev/null) != idle ]] || break
  sleep 0.3
done
((tries < 200)) || { cat $slurm/logs/*.log; fail "Slurm did not come up"; }
echo "lockstep: up after $(cut -d' ' -f1 /proc/uptime) s"
"$PROGRAM" || echo "lockstep: $PROGRAM ended with exit code $?"
trap - EXIT
off
