//! Flags of `open(2)`, names that end in a slash, and calls on what they are not for.

use crate::tools::{have, python_in, same_in_every_way};

/// Prints what each call gives, or its error.
const NOTING: &str = r"
import errno, fcntl, mmap, os, subprocess
def note(what, call):
    try:
        result = call()
    except OSError as error:
        result = errno.errorcode[error.errno]
    print(what, result)
def put(name, text):
    with open(name, 'w') as file:
        file.write(text)
";

#[track_caller]
fn same_notes(script: &str) {
    if have(&["python3"]) {
        same_in_every_way(|dir| python_in(dir, &format!("{NOTING}\n{script}")));
    }
}

#[test]
fn flags_of_open_do_what_they_do() {
    same_notes(
        r"
FLAGS = ('NOFOLLOW', 'PATH', 'DIRECTORY', 'CREAT', 'TRUNC', 'NOATIME', 'NONBLOCK', 'ASYNC', 'ACCMODE')
COMBINED = {'CREAT|DIRECTORY': os.O_CREAT | os.O_DIRECTORY, 'CREAT|EXCL': os.O_CREAT | os.O_EXCL,
    'TRUNC|PATH': os.O_TRUNC | os.O_PATH, 'CREAT|TRUNC': os.O_CREAT | os.O_TRUNC | os.O_WRONLY}
os.symlink('f', 'link'); os.symlink('nowhere', 'dangling'); os.mkdir('d')
def opened(name, flags):
    file = os.open(name, flags, 0o600)
    seen = fcntl.fcntl(file, fcntl.F_GETFL), os.fstat(file).st_size
    os.close(file)
    return seen
for what, flags in {**{name: getattr(os, 'O_' + name) for name in FLAGS}, **COMBINED}.items():
    for name in ('f', 'link', 'none', 'dangling', 'd', 'd/../f', 'f/'):
        put('f', 'content')
        note(f'{what} {name}', lambda: opened(name, flags))
        for made in ('none', 'nowhere'):
            if os.path.lexists(made):
                os.unlink(made)
put('f', 'content')
note('what is not readable', lambda: os.read(os.open('f', os.O_WRONLY), 1))
note('what is not writable', lambda: os.write(os.open('f', os.O_RDONLY), b'x'))
note('what is made so', lambda: os.write(os.open('ro', os.O_CREAT | os.O_WRONLY, 0o400), b'x'))
path = os.open('f', os.O_PATH)
note('read by path', lambda: os.read(path, 1))
note('chmod by path', lambda: os.fchmod(path, 0o600))
note('stat by path', lambda: os.fstat(path).st_size)
note('opened again', lambda: os.read(os.open(f'/proc/self/fd/{path}', os.O_RDWR), 10))
",
    );
}

#[test]
fn names_of_the_wrong_kind_are_refused() {
    same_notes(
        r"
put('f', 'content'); os.mkdir('d'); os.mkdir('full'); put('full/f', 'x')
for old, new in (('f', 'd'), ('d', 'f'), ('d', 'd/x'), ('f', 'g/'), ('d', 'full'), ('f', 'f/x'), ('none', 'f'), ('d/.', 'e')):
    note(f'rename {old} {new}', lambda: os.rename(old, new))
for name in ('f', 'd', 'full', 'f/', 'd/', 'd/.', 'd/..', 'none', ''):
    if name not in ('f', 'd', 'd/'):
        note(f'rmdir {name}', lambda: os.rmdir(name))
        note(f'unlink {name}', lambda: os.unlink(name))
note('rmdir f', lambda: os.rmdir('f')); note('unlink d', lambda: os.unlink('d'))
for name in ('new/', 'f/', 'f/x', ''):
    note(f'create {name}', lambda: os.open(name, os.O_CREAT | os.O_WRONLY))
    note(f'symlink {name}', lambda: os.symlink('x', name))
    note(f'link {name}', lambda: os.link('f', name))
    note(f'mkdir {name}', lambda: os.mkdir(name))
directory = os.open('d', os.O_RDONLY)
CALLS = {'read': lambda: os.read(directory, 1), 'write': lambda: os.pwrite(directory, b'x', 0),
    'ftruncate': lambda: os.ftruncate(directory, 0), 'truncate': lambda: os.truncate('d', 0),
    'fallocate': lambda: os.posix_fallocate(directory, 0, 1), 'mmap': lambda: mmap.mmap(directory, 10),
    'fsync': lambda: os.fsync(directory), 'fdatasync': lambda: os.fdatasync(directory),
    'flock': lambda: fcntl.flock(directory, fcntl.LOCK_EX), 'sendfile': lambda: os.sendfile(1, directory, 0, 1),
    'lockf': lambda: fcntl.lockf(directory, fcntl.LOCK_SH), 'preadv': lambda: os.preadv(directory, [bytearray(1)], 0),
    'open': lambda: os.open('d', os.O_WRONLY), 'create': lambda: os.open('d', os.O_CREAT)}
for what, call in CALLS.items():
    note(what, call)
",
    );
}

#[test]
fn duplicates_share_a_position() {
    same_notes(
        r"
one = os.open('f', os.O_CREAT | os.O_RDWR)
two = os.dup(one)
for file, text in ((one, b'abc'), (two, b'def'), (one, b'ghi')):
    os.write(file, text)
    note('position', lambda: [os.lseek(file, 0, os.SEEK_CUR) for file in (one, two)])
os.lseek(two, 1, os.SEEK_SET)
note('read', lambda: os.read(one, 5))
SHELL = 'exec 3<>shared; (echo a >&3); (echo b >&3) & wait; echo c >&3; exec 4<shared; read l <&4; cat shared - <&4'
note('shell', lambda: subprocess.run(SHELL, shell=True, capture_output=True).stdout)
",
    );
}
