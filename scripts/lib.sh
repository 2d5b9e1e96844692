# What the other scripts share. To be sourced from the top of the project.

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# as_root CMD...: runs a command as root.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# need_packages PROGRAM:PACKAGE...: installs the packages whose program is missing.
need_packages() {
    local missing=() pair
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null 2>&1 || missing+=("${pair#*:}")
    done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null 2>&1 \
        || die "please install: ${missing[*]} (this script can only do it with apt-get)"
    say "installing ${missing[*]}"
    as_root apt-get update -qq >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >&2
}

# need_rust: has cargo on the path, by the distribution's rustup if there is none.
need_rust() {
    [ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
    if ! command -v cargo >/dev/null 2>&1; then
        need_packages rustup:rustup
        rustup toolchain install >&2
    fi
    need_packages cc:gcc make:make
}

need_fuse() {
    [ -e /dev/fuse ] || as_root modprobe fuse || die "this kernel has no FUSE"
    need_packages fusermount3:fuse3
}

# need_cargo_tool NAME VERSION: installs a program from the registry of crates, in this version.
need_cargo_tool() {
    [ "$("$1" --version 2>/dev/null)" = "$1 $2" ] && return
    say "installing $1 $2"
    cargo install --quiet --locked --force "$1@$2" >&2
}

# need_debian PACKAGE...: installs packages that have no program to look for.
need_debian() {
    local missing=() package
    for package in "$@"; do
        dpkg -s "$package" >/dev/null 2>&1 || missing+=("none:$package")
    done
    [ ${#missing[@]} = 0 ] || need_packages "${missing[@]}"
}

# need_python PACKAGE==VERSION...: prints a Python that has these packages, in a place of its own.
need_python() {
    local place=target/test-python
    if [ "$(cat $place/packages 2>/dev/null)" != "$*" ]; then
        python3 -c 'import ensurepip' 2>/dev/null || need_debian python3-venv
        say "installing $*"
        rm -rf $place
        python3 -m venv $place && $place/bin/pip install --quiet "$@" >&2 || return 1
        echo "$*" >$place/packages
    fi
    echo "$PWD/$place/bin/python"
}
