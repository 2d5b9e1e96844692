//! Everything that is not a regular file: links, devices, fifos, sockets.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::fs::{CWD, FileType, Mode};

use crate::tools::same_in_every_way;

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
