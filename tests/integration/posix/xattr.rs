//! Extended attributes.

use std::fs::{self};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::tools::{noise, same_in_every_way};

#[test]
fn extended_attributes() {
    same_in_every_way(|dir| {
        let file = dir.join("f");
        fs::write(&file, "x").unwrap();
        std::os::unix::fs::symlink("f", dir.join("l")).unwrap();
        let mut results = Vec::new();
        let mut note = |what: &str, result: Result<Vec<u8>, Errno>| {
            results.push(format!("{what}: {result:?}"));
        };
        let done = |result: Result<(), Errno>| result.map(|()| Vec::new());
        for name in ["user.a", "user.empty", "trusted.b", "security.c", "system.none", "none"] {
            let value = if name == "user.empty" { b"".to_vec() } else { noise(1, 300) };
            note(name, done(rustix::fs::setxattr(&file, name, &value, XattrFlags::empty())));
            let again = rustix::fs::setxattr(&file, name, b"x", XattrFlags::CREATE);
            note("create", done(again));
            let replaced = rustix::fs::setxattr(&file, "user.new", b"x", XattrFlags::REPLACE);
            note("replace", done(replaced));
            let mut buffer = vec![0; 1_000];
            let got = rustix::fs::getxattr(&file, name, &mut buffer[..]);
            note("get", got.map(|n| buffer[..n].to_vec()));
            let small = rustix::fs::getxattr(&file, name, &mut [0; 2][..]);
            note("small", small.map(|n| vec![u8::try_from(n).unwrap()]));
            let size = rustix::fs::getxattr(&file, name, &mut [0; 0][..]);
            note("size", size.map(|n| n.to_le_bytes().to_vec()));
            let link = rustix::fs::lsetxattr(dir.join("l"), name, b"x", XattrFlags::empty());
            note("on a symlink", done(link));
        }
        let mut list = vec![0; 1_000];
        let listed = rustix::fs::listxattr(&file, &mut list[..]).unwrap();
        let mut names: Vec<_> = list[..listed].split(|b| *b == 0).map(<[u8]>::to_vec).collect();
        names.sort();
        results.push(format!("{names:?}"));
        results.push(format!("{:?}", rustix::fs::removexattr(&file, "user.a")));
        results.push(format!("{:?}", rustix::fs::removexattr(&file, "user.a")));
        let large = rustix::fs::setxattr(&file, "user.l", &vec![1; 70_000], XattrFlags::empty());
        results.push(format!("{large:?}"));
        results
    });
}
