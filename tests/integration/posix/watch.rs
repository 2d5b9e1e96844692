//! inotify: watchers on the mount see what happens through it, event for event.

use crate::tools::{have, python_in, same_in_every_way};

/// By a process of one thread: a child that another test is just starting would hold files open.
const WATCH: &str = r"
import ctypes, mmap, os, select, shutil, struct
libc = ctypes.CDLL(None, use_errno=True)
watcher = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
ALL = 0xfff
NAMES = ('ACCESS MODIFY ATTRIB CLOSE_WRITE CLOSE_NOWRITE OPEN MOVED_FROM MOVED_TO CREATE DELETE '
    'DELETE_SELF MOVE_SELF - UNMOUNT OVERFLOW IGNORED').split()

def told():
    # What came since the last time.
    seen = []
    while select.select([watcher], [], [], 0)[0]:
        data = os.read(watcher, 65536)
        while data:
            at, mask, cookie, length = struct.unpack_from('iIII', data)
            name = data[16:16 + length].rstrip(b'\0').decode()
            kinds = [kind for bit, kind in enumerate(NAMES) if mask >> bit & 1]
            kinds += ['DIR'] * (mask >> 30 & 1) + ['joined'] * (cookie != 0)
            seen.append(f'{at}:{name}:' + '+'.join(kinds))
            data = data[16 + length:]
    return seen

def put(name, data, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
    file = os.open(name, flags, 0o644)
    os.write(file, data)
    os.close(file)
def in_place():
    file = os.open('old', os.O_RDWR)
    os.pwrite(file, b'new', 1); os.read(file, 3); os.ftruncate(file, 2)
    os.posix_fallocate(file, 0, 100)
    os.close(file)
def mapped():
    put('m', bytes(4096))
    file = os.open('m', os.O_RDWR)
    memory = mmap.mmap(file, 4096)
    os.close(file)
    memory[:6] = b'stored'
    memory.flush(); memory.close()
def ranges():
    source, target = os.open('m', os.O_RDONLY), os.open('copy', os.O_WRONLY | os.O_CREAT)
    os.copy_file_range(source, target, 4096); os.sendfile(target, source, 0, 100)
    os.close(source); os.close(target)
def unlinked():
    file = os.open('old', os.O_WRONLY | os.O_APPEND)
    os.unlink('old'); os.write(file, b'more'); os.close(file)
ACTS = {
    'written': lambda: put('f', b'x' * 3000000),
    'read': lambda: os.close(os.open('f', os.O_RDONLY)),
    'appended': lambda: put('f', b'more', os.O_WRONLY | os.O_APPEND),
    'in place': in_place,
    'cut by the open': lambda: put('old', b''),
    'cut by its name': lambda: os.truncate('f', 10),
    'mapped': mapped,
    'ranges': ranges,
    'mode': lambda: os.chmod('old', 0o600),
    'owner': lambda: os.chown('old', 1, 1),
    'time': lambda: os.utime('old', (1, 2)),
    'xattr': lambda: (os.setxattr('old', 'user.a', b'x'), os.removexattr('old', 'user.a')),
    'link': lambda: os.link('old', 'sub/linked'),
    'symlink': lambda: os.symlink('old', 's'),
    'rename': lambda: os.rename('f', 'g'),
    'move': lambda: os.rename('g', 'sub/g'),
    'rename over': lambda: os.rename('sub/g', 'sub/linked'),
    'special': lambda: (os.mkfifo('p'), os.unlink('p')),
    'directory': lambda: os.mkdir('d'),
    'directory moved': lambda: os.rename('d', 'sub/d'),
    'directory removed': lambda: os.rmdir('sub/d'),
    'listed': lambda: os.listdir('.') and None,
    'unlinked while open': unlinked,
    'the end of a watched directory': lambda: shutil.rmtree('sub'),
}
os.mkdir('sub')
put('old', b'content')
for name in ('.', 'sub', 'old'):
    assert libc.inotify_add_watch(watcher, name.encode(), ALL) > 0
for what, act in ACTS.items():
    act()
    print(what, *told())
";

#[test]
fn watchers_see_the_same() {
    if have(&["python3"]) {
        same_in_every_way(|dir| python_in(dir, WATCH));
    }
}
