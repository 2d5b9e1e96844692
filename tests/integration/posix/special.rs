//! Everything that is not a regular file: links, devices, fifos, sockets.

use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, OFlags};

use super::actors::{OTHER, ROOT, USER, loner};
use crate::mounted::can_mount;
use crate::tools::{have, same_in_every_way, told};

#[test]
fn special_files() {
    same_in_every_way(|dir| {
        for (name, kind, device) in [
            ("fifo", FileType::Fifo, 0),
            ("socket", FileType::Socket, 0),
            ("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
            ("loop", FileType::BlockDevice, rustix::fs::makedev(7, 200)),
            ("regular", FileType::RegularFile, 0),
        ] {
            let mode = Mode::from_raw_mode(0o640);
            rustix::fs::mknodat(CWD, dir.join(name), kind, mode, device).unwrap();
        }
        // A device works, and a fifo joins two who meet there.
        let mut null = File::options().read(true).write(true).open(dir.join("null")).unwrap();
        assert_eq!(null.write(b"away").unwrap(), 4);
        assert_eq!(null.read(&mut [0; 4]).unwrap(), 0);
        let fifo = dir.join("fifo");
        let writer = std::thread::spawn(move || fs::write(fifo, "through the fifo").unwrap());
        assert_eq!(fs::read_to_string(dir.join("fifo")).unwrap(), "through the fifo");
        writer.join().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(dir.join("bound")).unwrap();
        let client = std::os::unix::net::UnixStream::connect(dir.join("bound"));
        assert!(client.is_ok());
        drop(listener);
        let mut kinds: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let (kind, meta) = (entry.file_type().unwrap(), entry.metadata().unwrap());
                let flags = (kind.is_fifo(), kind.is_socket(), kind.is_char_device());
                (entry.file_name(), flags, meta.mode(), meta.rdev())
            })
            .collect();
        kinds.sort();
        kinds
    });
}

#[test]
fn fifos_join_processes() {
    if !can_mount() || !have(&["mkfifo", "setpriv"]) {
        return;
    }
    same_in_every_way(|dir| {
        let script = r#"
            cd "$1"; mkfifo p; seq 100000 > p & sha256sum < p; wait
            (sleep 0.1; exec 3> p; echo first >&3; echo second >&3) & cat p; wait
            # Nobody reads: a writer that will not wait is told, and one whose reader goes is killed.
            python3 - <<'END'
import errno, os, select
try:
    os.open("p", os.O_WRONLY | os.O_NONBLOCK)
except OSError as error:
    print(errno.errorcode[error.errno])
reader = os.open("p", os.O_RDONLY | os.O_NONBLOCK)
writer = os.open("p", os.O_WRONLY | os.O_NONBLOCK)
print(select.select([reader], [writer], [], 0)[1] == [writer])
os.write(writer, b"x" * 4096)
print(select.select([reader], [], [], 0)[0] == [reader], len(os.read(reader, 8192)))
os.close(reader)
try:
    os.write(writer, b"x")
except OSError as error:
    print(errno.errorcode[error.errno])
try:
    os.lseek(writer, 0, os.SEEK_SET)
except OSError as error:
    print(errno.errorcode[error.errno])
END
            chmod 600 p; setpriv --reuid=61234 --clear-groups -- bash -c ': < p' 2>&1
            mv p q; ln q r; stat -c '%F %h %s' q r; rm q r"#;
        told(&Command::new("bash").args(["-c", script, "-"]).arg(dir).output().unwrap())
    });
}

#[test]
fn sockets_join_processes() {
    if !can_mount() || !have(&["python3", "setpriv"]) {
        return;
    }
    same_in_every_way(|dir| {
        let script = r#"
            cd "$1"; chmod 777 .; python3 - <<'END'
import errno, os, socket, threading
def told(work):
    try:
        return work()
    except OSError as error:
        return errno.errorcode[error.errno]
def new(kind):
    return socket.socket(socket.AF_UNIX, kind)
for kind, name in [(socket.SOCK_STREAM, "stream"), (socket.SOCK_SEQPACKET, "packet")]:
    server = new(kind)
    server.bind(name)
    print(name, told(lambda: new(kind).connect(name)), told(lambda: new(kind).bind(name)))
    server.listen()
    def serve():
        peer, _ = server.accept()
        peer.sendall(peer.recv(100).upper())
    thread = threading.Thread(target=serve)
    thread.start()
    client = new(kind)
    client.connect(name)
    client.sendall(b"hello")
    print(client.recv(100), client.getpeername(), told(lambda: new(socket.SOCK_DGRAM).connect(name)))
    thread.join()
    os.rename(name, name + "-moved")
    print(told(lambda: new(kind).connect(name)), told(lambda: new(kind).connect(name + "-moved")))
    os.chmod(name + "-moved", 0o600)
    if os.fork() == 0:
        os.setuid(61234)
        print(told(lambda: new(kind).connect(name + "-moved")), flush=True)
        os._exit(0)
    os.wait()
    server.close()
    print(told(lambda: new(kind).connect(name + "-moved")), told(lambda: open(name + "-moved")))
one, two = new(socket.SOCK_DGRAM), new(socket.SOCK_DGRAM)
one.bind("one")
two.bind("two")
one.sendto(b"to two", "two")
print(two.recvfrom(100), told(lambda: one.sendto(b"x", "none")))
open("file", "w").close()
print(told(lambda: new(socket.SOCK_STREAM).connect("file")))
os.unlink("one")
print(sorted((n, oct(os.lstat(n).st_mode)) for n in os.listdir(".")))
END"#;
        told(&Command::new("bash").args(["-c", script, "-"]).arg(dir).output().unwrap())
    });
}

/// What the kernel protects in directories that everybody may write to.
#[test]
fn links_and_files_of_others_are_protected_as_anywhere() {
    same_in_every_way(|dir| {
        fs::set_permissions(dir, Permissions::from_mode(0o1777)).unwrap();
        let made = |name: &str, mode: u32| {
            fs::write(dir.join(name), "of another").unwrap();
            chown(dir.join(name), Some(OTHER), Some(OTHER)).unwrap();
            fs::set_permissions(dir.join(name), Permissions::from_mode(mode)).unwrap();
        };
        made("secret", 0o600);
        made("readable", 0o644);
        made("writable", 0o666);
        made("setuid", 0o4777);
        rustix::fs::mknodat(CWD, dir.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o666), 0)
            .unwrap();
        chown(dir.join("fifo"), Some(OTHER), Some(OTHER)).unwrap();
        let names = ["secret", "readable", "writable", "setuid", "fifo"];
        [loner(USER), loner(OTHER), ROOT].map(|actor| {
            actor.does(|| {
                names.map(|name| {
                    let hard = dir.join(format!("{name}-{}", actor.uid));
                    let linked = rustix::fs::link(dir.join(name), hard);
                    // Opened to be made, which it is already.
                    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NONBLOCK;
                    let opened = rustix::fs::open(dir.join(name), flags, Mode::RUSR);
                    (linked, opened.map(drop))
                })
            })
        })
    });
}

#[test]
fn symlinks_keep_every_byte() {
    same_in_every_way(|dir| {
        let long = "x".repeat(4_095);
        let targets = ["a", "/absolute", "../..", "no such", "a\nb", "\u{e9}", "//", ".", &long];
        let read = targets.iter().enumerate().map(|(n, target)| {
            let link = dir.join(format!("l{n}"));
            std::os::unix::fs::symlink(target, &link).unwrap();
            assert_eq!(fs::symlink_metadata(&link).unwrap().len(), target.len() as u64);
            fs::read_link(&link).unwrap()
        });
        let read: Vec<_> = read.collect();
        let bytes = std::ffi::OsStr::new;
        let odd: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\xfe");
        std::os::unix::fs::symlink(odd, dir.join("odd")).unwrap();
        assert_eq!(fs::read_link(dir.join("odd")).unwrap().as_os_str(), odd);
        let empty = std::os::unix::fs::symlink(bytes(""), dir.join("empty")).unwrap_err();
        let too_long = std::os::unix::fs::symlink("x".repeat(4_096), dir.join("long"));
        std::os::unix::fs::symlink("loop", dir.join("loop")).unwrap();
        let looped = fs::read(dir.join("loop")).unwrap_err();
        let codes = [empty, too_long.unwrap_err(), looped].map(|error| error.raw_os_error());
        (read, codes)
    });
}
