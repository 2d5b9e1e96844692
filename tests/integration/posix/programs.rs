//! Programs that lie on the mount.

use std::path::Path;

use rstest::rstest;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, python_in, same_in_every_way, script_in, told};

#[test]
fn programs_and_scripts_run() {
    same_in_every_way(|dir| {
        script_in(
            dir,
            r#"
            printf '#!/bin/sh\necho script "$@"\n' > script; chmod +x script; ./script a
            printf '#!%s/script arg\n' "$PWD" > nested; chmod +x nested; ./nested
            cp "$(type -P echo)" program; ./program from a binary
            chmod -x program; ./program || echo "not without the bit: $?"
            : > empty; chmod +x empty; ./empty && echo empty
            printf 'no program' > text; chmod +x text; ./text 2>/dev/null || echo "text: $?"
            "#,
        )
    });
}

#[test]
fn what_runs_is_not_written_and_what_is_written_does_not_run() {
    same_in_every_way(|dir| {
        if !have(&["python3"]) {
            return String::new();
        }
        python_in(
            dir,
            r"
import errno, os, shutil, subprocess
shutil.copy(shutil.which('sleep'), 'sleeper')
child = subprocess.Popen(['./sleeper', '1000'])
def content(name):
    return len(open(name, 'rb').read())
for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_TRUNC,
              os.O_RDONLY | os.O_TRUNC):
    print('write', tried(os.open, 'sleeper', flags), content('sleeper') > 1000)
print('cut', tried(os.truncate, 'sleeper', 0))
print('mode', tried(os.chmod, 'sleeper', 0o700), content('sleeper') > 1000)
# A new one may take its place, and it runs on.
shutil.copy(shutil.which('true'), 'new')
os.rename('new', 'sleeper')
print('replaced', child.poll(), subprocess.run(['./sleeper']).returncode)
print('its program', os.readlink(f'/proc/{child.pid}/exe').split('/')[-1])
print('read', len(open(f'/proc/{child.pid}/exe', 'rb').read()) > 1000)
child.kill(); child.wait()
for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND):
    writer = os.open('sleeper', flags)
    print('run', tried(lambda: subprocess.run(['./sleeper']).returncode))
    os.close(writer)
    print('run', tried(lambda: subprocess.run(['./sleeper']).returncode))
reader = os.open('sleeper', os.O_RDONLY)
for round in range(200):
    shutil.copy(shutil.which('true'), 'cut')
    subprocess.run(['./cut'], check=True)
    os.close(os.open('cut', os.O_RDONLY | os.O_TRUNC))
    assert content('cut') == 0
print('run', tried(lambda: subprocess.run(['./sleeper']).returncode))
",
        )
    });
}

#[test]
fn what_was_just_written_runs() {
    same_in_every_way(|dir| {
        if !have(&["python3"]) {
            return String::new();
        }
        python_in(
            dir,
            r"
import os, shutil, subprocess
program = open(shutil.which('true'), 'rb').read()
WAYS = os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_TRUNC, os.O_RDWR, os.O_WRONLY
for round in range(200):
    name = f'./program{round % 3}'
    file = os.open(name, os.O_CREAT | WAYS[round % 4], 0o755)
    os.write(file, program)
    os.close(file)
    subprocess.run([name], check=True)
for round in range(50):
    with open('./script', 'w') as file:
        file.write('#!/bin/sh\nexit ' + str(round))
    os.chmod('./script', 0o755)
    assert subprocess.run(['./script']).returncode == round
print('all of them')
",
        )
    });
}

#[test]
fn libraries_are_loaded_and_stay_loaded() {
    same_in_every_way(|dir| {
        if !have(&["python3"]) {
            return String::new();
        }
        python_in(
            dir,
            r"
import ctypes, ctypes.util, os, re, shutil
maps = lambda: [line.split()[1] for line in open('/proc/self/maps') if 'own.so' in line]
found = next(line.split()[-1] for line in open('/proc/self/maps') if '/libc.so' in line)
shutil.copy(os.path.join(os.path.dirname(found), 'libm.so.6'), './own.so')
library = ctypes.CDLL('./own.so')
library.cos.restype = ctypes.c_double
library.cos.argtypes = [ctypes.c_double]
print(library.cos(0.0), sorted(maps()))
os.rename('own.so', 'moved-own.so')
shutil.copy('moved-own.so', 'own.so')
os.unlink('moved-own.so')
print(library.cos(0.0), sorted(maps()))
",
        )
    });
}

/// What a program learns about its user that runs as another than its owner.
fn run_as_owner(dir: &Path) -> String {
    script_in(
        dir,
        r#"
        cp "$(type -P id)" id; chown 1001:1002 id
        for mode in 755 4755 2755 6755 4711; do
            chmod $mode id
            echo $(cd /; setpriv --reuid 1003 --regid 1003 --clear-groups "$OLDPWD/id")
        done
        "#,
    )
}

#[test]
fn programs_run_as_their_owner() {
    same_in_every_way(|dir| if have(&["setpriv"]) { run_as_owner(dir) } else { String::new() });
}

#[rstest]
#[case("nosuid", "uid=1003 gid=1003 groups=1003")]
#[case("noexec", "")]
fn mounts_can_forbid_it(#[case] option: &str, #[case] every: &str) {
    if !can_mount() || !have(&["setpriv"]) {
        return;
    }
    let mounted = Mounted::with_options(option);
    if option == "noexec" {
        mounted.shell("cp \"$(type -P true)\" program");
        let error = std::process::Command::new(mounted.at("program")).output().map(|o| told(&o));
        assert_eq!(error.unwrap_err().raw_os_error(), Some(libc::EACCES));
        return;
    }
    for line in run_as_owner(&mounted.mountpoint).lines() {
        assert_eq!(line, every);
    }
}
