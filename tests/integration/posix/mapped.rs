//! Mappings and calls on the same file, by one user and by several.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use rstest::rstest;

use crate::mapping::Mapping;
use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, have, noise, same_in_every_way, sha256};

const SIZE: usize = 64 << 10;

fn open(path: &std::path::Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn piece(file: &File, offset: usize) -> [u8; 8] {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, offset as u64).unwrap();
    bytes
}

#[test]
fn what_is_stored_is_read_and_what_is_written_is_loaded() {
    same_in_every_way(|dir| {
        let path = dir.join("f");
        fs::write(&path, noise(1, SIZE)).unwrap();
        let (file, other, reader) = (open(&path), open(&path), File::open(&path).unwrap());
        let [one, two] = [&file, &other].map(|file| Mapping::of(file, SIZE));
        for n in 0..100_u8 {
            let at = usize::from(n) * 611;
            one.store(at, &[n; 8]);
            assert_eq!(two.bytes()[at..at + 8], [n; 8], "by the other mapping");
            assert_eq!(piece(&other, at), [n; 8], "by read");
            assert_eq!(piece(&reader, at), [n; 8], "by another reader");
            let written = [100 + n; 8];
            let writer = if n % 2 == 0 { &file } else { &other };
            writer.write_all_at(&written, at as u64 + 3).unwrap();
            assert_eq!(one.bytes()[at + 3..at + 11], written, "in the mapping");
            assert_eq!(two.bytes()[at + 3..at + 11], written, "in the other mapping");
        }
        // By a handle of its own, and for a while by another process.
        let appender = OpenOptions::new().append(true).open(&path).unwrap();
        appender.write_at(b"appended", 0).unwrap();
        assert_eq!(piece(&file, SIZE), *b"appended");
        drop((one, two));
        sha256(fs::read(&path).unwrap())
    });
}

#[rstest]
fn processes_share_a_mapping(
    #[values("io=auto", "io=stream", "io=passthrough", "passthrough=off")] options: &str,
) {
    if !can_mount() || !have(&["python3"]) {
        return;
    }
    let mounted = Mounted::with_options(options);
    fs::write(mounted.at("f"), vec![0; SIZE]).unwrap();
    let file = open(&mounted.at("f"));
    let mapping = Mapping::of(&file, SIZE);
    let script = "import mmap
f = open('f', 'r+b'); m = mmap.mmap(f.fileno(), 0)
while m[0] == 0: pass
m[1] = m[0] + 1
while m[2] == 0: pass
m[5000:5007] = b'the end'";
    let mut other = Command::new("python3")
        .args(["-c", script])
        .current_dir(&mounted.mountpoint)
        .spawn()
        .unwrap();
    mapping.store(0, &[7]);
    mounted.wait_for("the other's store", || piece(&file, 0)[1] == 8);
    file.write_all_at(&[1], 2).unwrap();
    assert!(other.wait().unwrap().success());
    assert_eq!(mapping.bytes()[5_000..5_007], *b"the end");
    drop((mapping, file));
    mounted.assert_catalog_is_true();
}

#[test]
fn memory_beyond_the_end_is_refused() {
    if !can_mount() || !have(&["python3"]) {
        return;
    }
    // Stores to the last page beyond the end are nobody's; to pages beyond it they end the program.
    same_in_every_way(|dir| {
        let run = |script: &str| {
            fs::write(dir.join("f"), vec![1; SIZE]).unwrap();
            let script = format!(
                "import mmap, os\nf = open('f', 'r+b'); m = mmap.mmap(f.fileno(), {SIZE})\n{script}"
            );
            let status =
                Command::new("python3").args(["-c", &script]).current_dir(dir).status().unwrap();
            let content = fs::read(dir.join("f")).unwrap();
            (status.signal(), status.code(), content.len(), sha256(content))
        };
        [
            run("m[0]; f.truncate(5000); m[4999] = 2; m[8000] = 3; m[8191]"),
            run("m[9000]; f.truncate(5000); m[9000]"),
            run("m[9000]; f.truncate(5000); m[9000] = 1"),
            run("m[9000]; os.truncate('f', 0); m[0]"),
            run("m[9000]; open('f', 'w').close(); m[0] = 1"),
            run("m[9000]; f.truncate(0); f.truncate(70000); m[9000] = 7"),
            run("m[60000]; f.truncate(5000); f.truncate(70000); assert m[8000] == m[9000] == 0"),
        ]
    });
}

#[test]
fn private_mappings_are_private() {
    if !have(&["python3"]) {
        return;
    }
    same_in_every_way(|dir| {
        crate::tools::python_in(
            dir,
            "import mmap, os
open('f', 'wb').write(b'.' * 20000)
f = open('f', 'rb')
m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)
m[100:104] = b'mine'
w = open('f', 'r+b', buffering=0)
w.seek(100); w.write(b'theirs'); w.seek(9000); w.write(b'theirs')
print(m[100:106], m[9000:9006], open('f', 'rb').read()[100:106])
for flags, kind in ((os.O_RDONLY, mmap.PROT_WRITE), (os.O_WRONLY, mmap.PROT_READ)):
    fd = os.open('f', flags)
    try:
        mmap.mmap(fd, 100, mmap.MAP_SHARED, kind)
    except OSError as error:
        print(error.errno)",
        )
    });
}

#[test]
fn stores_reach_the_backing_file_with_msync() {
    if !can_mount() {
        return;
    }
    for options in WAYS {
        let mounted = Mounted::with_options(options);
        fs::write(mounted.at("f"), vec![0; SIZE]).unwrap();
        let file = open(&mounted.at("f"));
        let mapping = Mapping::of(&file, SIZE);
        mapping.store(0, &noise(1, SIZE));
        mapping.sync();
        assert_eq!(fs::read(mounted.backing.join("f")).unwrap(), noise(1, SIZE), "{options}");
        drop((mapping, file));
        mounted.assert_catalog_is_true();
    }
}
