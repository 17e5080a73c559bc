#!/usr/bin/env bash
# A real one-node SLURM on this computer, for tests: root, no systemd, loopback only.
#   slurm-local.sh start       # munged, slurmctld and slurmd below $SLURM_LOCAL_DIR; waits until the node is idle
#   export SLURM_CONF=$SLURM_LOCAL_DIR/slurm.conf   # for sbatch, srun, squeue, ...
#   slurm-local.sh stop
set -euo pipefail

DIR=${SLURM_LOCAL_DIR:-${TMPDIR:-/tmp}/slurm-local}
CPUS=${SLURM_LOCAL_CPUS:-8}          # declared, not real: config_overrides lets it exceed nproc
GPUS=${SLURM_LOCAL_GPUS:-4}          # pretend GPUs (device files /dev/tty0..): CUDA_VISIBLE_DEVICES is set
CTLD_PORT=${SLURM_LOCAL_CTLD_PORT:-16817}
SLURMD_PORT=${SLURM_LOCAL_SLURMD_PORT:-16818}
# How a job's processes are found when it is cancelled. cgroup (what clusters use) finds all of them
# and needs only the v1 freezer hierarchy; pgid misses children in sessions of their own (torchrun's
# workers); linuxproc misses children whose parent has died.
FREEZER=/sys/fs/cgroup/freezer
if [ -w "$FREEZER/cgroup.procs" ]; then PROCTRACK=cgroup; else PROCTRACK=pgid; fi
PROCTRACK=${SLURM_LOCAL_PROCTRACK:-$PROCTRACK}
export SLURM_CONF=$DIR/slurm.conf

die() { echo "slurm-local: $*" >&2; exit 1; }

write_config() {
    local host mem
    host=$(hostname -s)
    mem=$(awk '/^MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    mkdir -p "$DIR"/{state,spool,log,run}
    chmod 755 "$DIR" "$DIR"/{state,spool,log,run}
    if [ ! -s "$DIR/munge.key" ]; then
        (umask 077; head -c 128 /dev/urandom > "$DIR/munge.key")
    fi
    cat > "$SLURM_CONF" <<CONF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$CTLD_PORT
SlurmdPort=$SLURMD_PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# cred_expire also sets how long a requeued job is held back (default 120 s)
AuthInfo=socket=$DIR/run/munge.socket,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmdPidFile=$DIR/run/slurmd.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.log
# no systemd; no cgroup limits
ProctrackType=proctrack/$PROCTRACK
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc=$DIR/log/jobcomp.txt
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MailProg=/bin/true
# quick answers for tests
KillWait=5
MinJobAge=3600
# jobs of two such clusters must not meet in one cgroup
FirstJobId=$((CTLD_PORT * 100))
MaxJobId=$((CTLD_PORT * 100 + 9999))
SchedulerParameters=sched_interval=2,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
SchedulerTimeSlice=5
MaxArraySize=10001
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=$CPUS RealMemory=$mem Gres=gpu:$GPUS State=UNKNOWN
PartitionName=gpu Nodes=$host Default=YES DefaultTime=5 MaxTime=INFINITE State=UP
CONF
    printf 'CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\n' > "$DIR/cgroup.conf"
    echo "NodeName=$host Name=gpu File=/dev/tty[0-$((GPUS - 1))]" > "$DIR/gres.conf"
}

# A zombie counts as gone: PID 1 of a container may never reap the daemons.
running() { grep -Eqs '^State:\s+[^ZX\s]' "/proc/$1/status"; }
alive() { [ -s "$1" ] && running "$(cat "$1")"; }

start() {
    local name i
    for name in munged slurmctld slurmd sbatch; do
        command -v "$name" > /dev/null || die "$name is missing: apt-get install slurmctld slurmd slurm-client munge"
    done
    alive "$DIR/run/slurmctld.pid" && die "already running ($DIR)"
    write_config
    munged --key-file="$DIR/munge.key" --socket="$DIR/run/munge.socket" \
        --pid-file="$DIR/run/munged.pid" --seed-file="$DIR/run/munge.seed" \
        --log-file="$DIR/log/munged.log" --num-threads=2
    slurmctld -c
    slurmd -c
    for i in $(seq 100); do
        if [ "$(sinfo -h -o %T 2> /dev/null)" = idle ]; then return 0; fi
        sleep 0.1
    done
    tail -5 "$DIR"/log/*.log >&2
    die "the node did not come up (try $i)"
}

stop() {
    local name pid
    if alive "$DIR/run/slurmctld.pid"; then
        scancel --quiet --user="$(id -un)" 2> /dev/null || true
        scancel --quiet --full --signal=KILL --user="$(id -un)" 2> /dev/null || true
        for _ in $(seq 50); do
            [ -z "$(squeue -h -t R,CG 2> /dev/null)" ] && break
            sleep 0.1
        done
    fi
    for name in slurmd slurmctld munged; do
        alive "$DIR/run/$name.pid" || continue
        pid=$(cat "$DIR/run/$name.pid")
        kill "$pid"
        for _ in $(seq 100); do running "$pid" || break; sleep 0.1; done
        if running "$pid"; then kill -KILL "$pid"; fi
    done
    # the (empty) cgroups that slurmd leaves behind
    find "$FREEZER/slurm_$(hostname -s)" -depth -type d -exec rmdir {} + 2> /dev/null || true
}

case ${1:-} in
    start) start ;;
    stop) stop ;;
    *) die "usage: $0 start|stop" ;;
esac
