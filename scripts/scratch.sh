# Filesystems and mounts for trying Horace out. To be sourced after lib.sh; the script then calls
# `start_scratch`, and everything that was made lies in $scratch and is gone when the script ends.

# start_scratch: makes the directory, builds, and sees to it that all goes away.
start_scratch() {
    [ "$(id -u)" = 0 ] || die "this mounts filesystems: please run it as root"
    need_rust
    need_fuse
    need_packages mkfs.ext4:e2fsprogs mkfs.xfs:xfsprogs mkfs.btrfs:btrfs-progs getfattr:attr
    say "building"
    # With the tests, as `cargo test` has built it: without them its dependencies are others.
    cargo build --locked --bins --tests
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/horace-scratch.XXXXXX")
    undo=()
    trap end_scratch EXIT
    # A signal ends the script, and with it goes everything else.
    trap 'exit 130' INT TERM
    # Ordinary users take part in the tests.
    chmod 755 "$scratch"
    mkdir "$scratch/run"
    # A copy, because another build may come meanwhile.
    horace=$scratch/horace
    cp target/debug/horace "$horace"
    export HORACE_RUNTIME_DIR=$scratch/run NO_COLOR=1
}

end_scratch() {
    local status=$?
    trap - EXIT INT TERM
    cd /
    # What came last goes first.
    while [ ${#undo[@]} -gt 0 ]; do
        undo_last || status=1
    done
    rm -rf --one-file-system "$scratch"
    exit "$status"
}

# undo_last: takes away what was made last.
undo_last() {
    local command=${undo[-1]}
    unset 'undo[-1]'
    eval "$command"
}

# can_make KIND: whether this machine has such filesystems; says why not.
can_make() {
    case $1 in
        tmpfs) return ;;
        zfs) command -v zpool >/dev/null || { echo "SKIPPED: no zpool for zfs" >&2; return 1; } ;;
        ext4|xfs|btrfs)
            grep -qw "$1" /proc/filesystems || modprobe "$1" 2>/dev/null \
                || { echo "SKIPPED: this kernel has no $1" >&2; return 1; } ;;
        *) die "no filesystem of the kind $1 (there are ext4, xfs, btrfs, tmpfs and zfs)" ;;
    esac
}

# make_filesystem KIND DIR: mounts a new filesystem, of a disk in a file, at a new directory.
make_filesystem() {
    local kind=$1 dir=$2 image=$2.image
    mkdir "$dir"
    if [ "$kind" = tmpfs ]; then
        mount -t tmpfs -o mode=755 tmpfs "$dir"
        undo+=("umount -l '$dir'")
        return
    fi
    truncate -s 1G "$image"
    if [ "$kind" = zfs ]; then
        zpool create -m "$dir" "horace-$$" "$image"
        undo+=("destroy_pool 'horace-$$'")
        return
    fi
    "mkfs.$kind" "$image" >/dev/null 2>&1 || die "mkfs.$kind failed"
    mount -o loop "$image" "$dir"
    undo+=("umount -l '$dir'")
}

# destroy_pool NAME: takes a pool away; it is busy until the last file is really closed.
destroy_pool() {
    local try
    for try in 1 2 3 4 5; do
        zpool destroy -f "$1" && return
        sleep "$try"
    done
    return 1
}

# mount_horace OPTIONS BACKING MOUNTPOINT: mounts two new directories.
mount_horace() {
    mkdir -p "$2" "$3"
    "$horace" mount --quiet -o "api=off,$1" "$2" "$3"
    undo+=("umount_horace '$3'")
}

# umount_horace MOUNTPOINT: unmounts in order, or by force if that fails.
umount_horace() {
    local try
    for try in 1 2 3 4 5; do
        # Somebody may still be closing his last file.
        "$horace" umount "$1" && return
        sleep 0.$try
    done
    umount -l "$1"
    return 1
}

# check_health MOUNTPOINT: the daemon serves, and its catalog is whole.
check_health() {
    local status
    status=$("$horace" status --json "$1")
    [[ $status == *'"running":true'* && $status == *'"degraded":null'* ]] \
        || die "the mount is not well: $status"
}
