#!/usr/bin/env bash
# A private SLURM of two nodes, n1 and n2, on this one machine: for the tests in tests/slurm/, and to try a batch script
# before it meets a cluster.
#
#   bash tools/local_slurm.sh install  # only get the programs it needs
#   bash tools/local_slurm.sh up       # start it (again: does nothing), and say how to use it
#   bash tools/local_slurm.sh status   # what runs, and what is in the queue
#   bash tools/local_slurm.sh down     # cancel all jobs and end every process of it
#
# Everything is in one folder, BIGTRAIN_SLURM_DIR (default: /tmp/bigtrain-slurm-UID): configuration, keys, state, logs.
# Its munge has a key and a socket of its own, so a SLURM that the machine belongs to is neither used nor disturbed.
# Any user can start one. Debian's packages slurm-wlm and munge are installed when missing and the user is root.
#
# Partitions: main (default); urgent, whose jobs take the nodes of main's: those are requeued after 20 s of grace.
# Not like a cluster: no cgroups (what a job leaves behind is not ended by SLURM), no database (no sacct), no GPUs.
set -euo pipefail

folder=${BIGTRAIN_SLURM_DIR:-/tmp/bigtrain-slurm-$(id -u)}
export SLURM_CONF=$folder/slurm.conf
NUM_NODES=2
WAIT_S=30 # for a daemon to answer, or to end; on a busy machine too
PATH=$PATH:/usr/sbin:/sbin

is_installed() {
    local program
    for program in slurmctld slurmd sbatch munged; do
        command -v "$program" >/dev/null || return 1
    done
}

install_packages() {
    is_installed && return
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        echo "SLURM is not installed, and this script can only install it as root with apt-get;" \
            "install Debian's packages slurm-wlm and munge, and start it again" >&2
        exit 2
    fi
    echo "installing slurm-wlm and munge" >&2
    local apt=(timeout 600 apt-get -qq -o Acquire::http::Timeout=20 -o Acquire::Retries=1 -o DPkg::Lock::Timeout=120)
    export DEBIAN_FRONTEND=noninteractive
    # The package lists of a fresh machine are empty or old; where they cannot be fetched, what is there may do.
    { "${apt[@]}" update || true; "${apt[@]}" install -y --no-install-recommends slurm-wlm munge; } \
        </dev/null >"$folder/apt.log" 2>&1 || true
    hash -r
    if ! is_installed; then
        echo "slurm-wlm and munge could not be installed, see $folder/apt.log; install them by hand" >&2
        exit 2
    fi
}

# Ports that are free now; each daemon takes its own at once.
free_ports() {
    python3 - "$1" <<'PYTHON'
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for each in sockets:
    each.bind(("127.0.0.1", 0))
print(*(each.getsockname()[1] for each in sockets))
PYTHON
}

write_configuration() {
    local ports cpus host
    read -ra ports < <(free_ports $((NUM_NODES + 1)))
    cpus=$(nproc)
    host=$(hostname -s)
    # KillWait: between TERM and KILL; 30 by default, short here so that tests of it are. linuxproc and task/none: no
    # cgroups. Both nodes have all of the machine's processors, since both are it.
    cat >"$SLURM_CONF" <<END
ClusterName=bigtrain
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$folder/munge.socket
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=5,bf_interval=5,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
ReturnToService=2
SlurmctldTimeout=10
SlurmdTimeout=15
MailProg=/bin/true
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[1]} CPUs=$cpus State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[2]} CPUs=$cpus State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=urgent Nodes=ALL MaxTime=INFINITE DefaultTime=60 PriorityTier=10 PreemptMode=OFF
END
}

# is_running NAME: whether the daemon whose process number is in NAME.pid runs (numbers are used again, names tell).
is_running() {
    local pid
    pid=$(cat "$folder/$1.pid" 2>/dev/null) && [[ -n $pid && $(cat "/proc/$pid/comm" 2>/dev/null) == "${1%-n?}" ]]
}

start_munge() {
    is_running munged && return
    if [[ ! -f $folder/munge.key ]]; then
        (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
    fi
    munged --socket="$folder/munge.socket" --key-file="$folder/munge.key" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" --num-threads=2
}

wait_until() {
    local end=$((SECONDS + WAIT_S))
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || return 1
        sleep 0.2
    done
}

nodes_are_up() {
    [[ $(sinfo -h -N -p main -t idle,mixed,allocated,completing -o %N | sort -u | wc -l) == "$NUM_NODES" ]]
}

install() {
    mkdir -p "$folder"
    chmod 755 "$folder"
    install_packages
}

up() {
    install
    is_running slurmctld || is_running slurmd-n1 || is_running slurmd-n2 || write_configuration
    mkdir -p "$folder/state" "$folder/spool-n1" "$folder/spool-n2"
    start_munge
    is_running slurmctld || slurmctld
    wait_until scontrol ping || fail "slurmctld does not answer; see $folder/slurmctld.log"
    local node
    for node in n1 n2; do
        is_running "slurmd-$node" || slurmd -N "$node"
    done
    wait_until nodes_are_up || fail "the nodes do not come up; see $folder/slurmd-n1.log and $folder/slurmd-n2.log"
    echo "SLURM with the nodes n1 and n2 is up; in a shell that is to use it:"
    echo "    export SLURM_CONF=$SLURM_CONF"
    echo "    sbatch --nodes=2 slurm/train.sbatch RECIPE engine=ddp"
}

fail() {
    echo "$1" >&2
    exit 1
}

# Numbers of what may outlive its job here, without cgroups: slurmstepds, which run in our folder, and processes that
# were started inside a job of this SLURM.
left_behind() {
    local process
    for process in /proc/[0-9]*; do
        if [[ $(cat "$process/cmdline" 2>/dev/null | tr '\0' ' ') == slurmstepd:* ]]; then
            [[ $(readlink "$process/cwd" 2>/dev/null) == "$folder" ]] && echo "${process#/proc/}"
        elif tr '\0' '\n' 2>/dev/null <"$process/environ" | grep -qx "SLURM_CONF=$SLURM_CONF"; then
            tr '\0' '\n' 2>/dev/null <"$process/environ" | grep -q "^SLURM_JOB_ID=" && echo "${process#/proc/}"
        fi
    done
    return 0
}

down() {
    if is_running slurmctld; then
        squeue -h -o %A | sort -u | xargs -r scancel 2>/dev/null || true
        wait_until queue_is_empty || echo "jobs did not end in $WAIT_S s; ending their processes" >&2
    fi
    local daemon pid
    for daemon in slurmd-n1 slurmd-n2 slurmctld munged; do
        is_running "$daemon" && end "$(cat "$folder/$daemon.pid")"
        rm -f "$folder/$daemon.pid"
    done
    for pid in $(left_behind); do
        end "$pid"
    done
    echo "SLURM in $folder is down; its logs stay there"
}

queue_is_empty() { [[ -z $(squeue -h) ]]; }

has_ended() { ! kill -0 "$1" 2>/dev/null; }

end() {
    kill "$1" 2>/dev/null || return 0
    wait_until has_ended "$1" || kill -KILL "$1" 2>/dev/null || true
}

status() {
    local daemon ended=0
    for daemon in munged slurmctld slurmd-n1 slurmd-n2; do
        if is_running "$daemon"; then
            echo "$daemon runs (process $(cat "$folder/$daemon.pid"))"
        else
            echo "$daemon does not run"
            ended=1
        fi
    done
    ((ended)) || { sinfo && squeue; }
    return "$ended"
}

case ${1:-} in
install | up | down | status) "$1" ;;
*)
    sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0" >&2
    exit 2
    ;;
esac
