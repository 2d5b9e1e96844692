//! The mount as a share: other machines use it through servers on this one.

use std::ffi::CString;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use horace::sys::Errno;
use horace::sys::handle::{self, FileHandle, HandleUse};
use rstest::rstest;
use rustix::fs::OFlags;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{WAYS, have, must, noise, sha256, told};

/// A Samba server of its own on loopback, with one share.
struct Samba {
    server: Child,
    port: u16,
    auth: PathBuf,
}

impl Samba {
    fn serve(mounted: &Mounted) -> Self {
        Self::serve_dir(mounted, "", "")
    }

    /// Serves a directory of a mount with more lines for its share.
    fn serve_dir(mounted: &Mounted, dir: &str, more: &str) -> Self {
        let share = mounted.mountpoint.join(dir);
        let share = share.display();
        let dir = mounted.scratch("samba");
        fs::create_dir(&dir).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let own = dir.display();
        let settings = format!(
            "[global]\n\
             interfaces = lo\nbind interfaces only = yes\nsmb ports = {port}\n\
             server role = standalone server\nmap to guest = Bad User\ndisable netbios = yes\n\
             lock directory = {own}\nstate directory = {own}\ncache directory = {own}\n\
             private dir = {own}\npid directory = {own}\nncalrpc dir = {own}\nlog file = {own}/log\n\
             load printers = no\nprintcap name = /dev/null\nea support = yes\nstore dos attributes = yes\n\
             [share]\npath = {share}\nread only = no\nguest ok = yes\nforce user = root\n{more}"
        );
        let config = dir.join("smb.conf");
        fs::write(&config, settings).unwrap();
        let auth = dir.join("auth");
        fs::write(&auth, "username = nobody\npassword =\n").unwrap();
        let server = Command::new("smbd")
            .args(["--foreground", "--configfile"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let samba = Self { server, port, auth };
        mounted.wait_for("Samba", || samba.client("ls").output().unwrap().status.success());
        samba
    }

    fn client(&self, commands: &str) -> Command {
        let mut command = Command::new("smbclient");
        command.args(["//127.0.0.1/share", "--port", &self.port.to_string()]);
        command.arg("-A").arg(&self.auth).args(["-c", commands]);
        command
    }

    fn run(&self, commands: &str) -> String {
        let output = self.client(commands).output().unwrap();
        let text = told(&output);
        assert!(output.status.success() && !text.contains("NT_STATUS"), "{commands}: {text}");
        text
    }
}

impl Drop for Samba {
    fn drop(&mut self) {
        // It has a process group of its own, and ends it with itself.
        let _ = Command::new("kill").arg(self.server.id().to_string()).status();
        let _ = self.server.wait();
    }
}

#[test]
fn a_samba_share() {
    if !can_mount() || !have(&["smbd", "smbclient"]) {
        return;
    }
    for way in WAYS {
        let mounted = Mounted::with_options(way);
        let samba = Samba::serve(&mounted);
        let content = noise(1, 3_000_000);
        let [local, back] = ["local", "back"].map(|name| mounted.scratch(name));
        fs::write(&local, &content).unwrap();
        let put = format!("put {} a.bin", local.display());
        let get = format!("get renamed.bin {}", back.display());
        samba.run(&format!("mkdir dir; cd dir; {put}; rename a.bin renamed.bin; ls"));
        samba.run(&format!("cd dir; {get}"));
        assert_eq!(fs::read(&back).unwrap(), content, "{way}");
        assert_eq!(mounted.digests("dir/renamed.bin"), [sha256(&content)], "{way}");
        // Written over, as from another machine; the old version stays in the history.
        fs::write(&local, "smaller").unwrap();
        samba.run(&format!("cd dir; put {} renamed.bin", local.display()));
        let digests = [sha256(&content), sha256("smaller")];
        assert_eq!(mounted.digests("dir/renamed.bin"), digests, "{way}");
        let blame = mounted.ok(&["blame", "dir/renamed.bin"]);
        assert!(blame.contains("smbd"), "{blame}");
        samba.run("cd dir; del renamed.bin; cd ..; rmdir dir");
        assert!(!mounted.at("dir").exists());
        let changes = mounted.records(&["changes"]);
        let operations: Vec<_> = changes.iter().map(|c| c["op"].as_str().unwrap()).collect();
        assert!(operations.ends_with(&["unlink", "unlink"]), "{operations:?}");
        mounted.assert_catalog_is_true();
    }
}

/// Attributes that Samba keeps in extended attributes, and its listings of many names.
#[test]
fn a_samba_share_of_many_names() {
    if !can_mount() || !have(&["smbd", "smbclient"]) {
        return;
    }
    let mounted = Mounted::prepared("", |dir| {
        for n in 0..1_000 {
            fs::write(dir.join(format!("file {n} ä.txt")), n.to_string()).unwrap();
        }
    });
    let samba = Samba::serve(&mounted);
    let listed = samba.run("ls");
    assert_eq!(listed.matches(" ä.txt").count(), 1_000);
    let target = mounted.scratch("copy");
    fs::create_dir(&target).unwrap();
    samba.run(&format!("prompt off; lcd {}; mget *", target.display()));
    must(Command::new("diff").args(["-r", "--exclude=.horace"]).args([&target, &mounted.backing]));
    samba.run("prompt off; setmode \"file 7 ä.txt\" +h; del *");
    assert_eq!(fs::read_dir(&mounted.mountpoint).unwrap().count(), 0);
    mounted.assert_catalog_is_true();
}

/// What the README says to write for Windows' Previous Versions.
fn shadow_copies() -> String {
    let readme = fs::read_to_string("README.md").unwrap();
    let lines: Vec<_> = readme
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("shadow:") || line.starts_with("vfs objects"))
        .collect();
    assert!(lines.len() > 3, "{lines:?}");
    lines.join("\n") + "\n"
}

#[rstest]
fn windows_sees_previous_versions(#[values("", "dir")] shared: &str) {
    if !can_mount() || !have(&["smbd", "smbclient"]) {
        return;
    }
    let mounted = Mounted::new();
    fs::create_dir(mounted.at("dir")).unwrap();
    let second = || mounted.shell("date +%s").trim().parse::<u64>().unwrap();
    let contents = [noise(1, 300_000), b"two".to_vec(), b"three three".to_vec()];
    let tokens: Vec<_> = contents
        .iter()
        .map(|content| {
            fs::write(mounted.at("dir/f.txt"), content).unwrap();
            let written = second();
            mounted.wait_for("another second", || second() > written);
            let token = format!("date --utc -d @{written} +@GMT-%Y.%m.%d-%H.%M.%S");
            mounted.shell(&token).trim().to_owned()
        })
        .collect();
    let samba = Samba::serve_dir(&mounted, shared, &shadow_copies());
    let path = if shared.is_empty() { "dir\\f.txt" } else { "f.txt" };
    let back = mounted.scratch("back");
    // The newest first; a second before the file was there ends the list with an error.
    let told = told(&samba.client(&format!("allinfo {path}")).output().unwrap());
    let oldest = format!("size: {}", contents[0].len());
    let (listed, _) = told.rsplit_once(&oldest).unwrap_or_else(|| panic!("{told}"));
    assert!(!listed.contains("NT_STATUS"), "{told}");
    for (token, content) in tokens.iter().zip(&contents) {
        let info = told.split(token.as_str()).nth(1).unwrap_or_else(|| panic!("{token}: {told}"));
        let size = info.lines().find(|line| line.starts_with("size:"));
        assert_eq!(size, Some(&*format!("size: {}", content.len())), "{told}");
        samba.run(&format!("get {token}\\{path} {}", back.display()));
        assert!(fs::read(&back).unwrap() == *content, "{token}");
    }
    assert!(!samba.run("ls").contains(".horace"));
    // What is gone is in the directory as it was.
    samba.run(&format!("del {path}"));
    let dir = if shared.is_empty() { "dir\\" } else { "" };
    let listed = samba.run(&format!("ls {}\\{dir}*", tokens[1]));
    assert!(listed.contains("f.txt"), "{listed}");
    // Nothing is changed there.
    let put = format!("put {} {}\\{path}", back.display(), tokens[0]);
    assert!(!samba.client(&put).output().unwrap().status.success());
    samba.run(&format!("get {}\\{path} {}", tokens[0], back.display()));
    assert!(fs::read(&back).unwrap() == contents[0]);
    mounted.assert_catalog_is_true();
}

/// What an NFS server does: files are known by their handles alone, whatever the kernel or the
/// daemon has forgotten since.
#[test]
fn file_handles_of_the_mount_last() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    fs::create_dir_all(mounted.at("d/e")).unwrap();
    fs::write(mounted.at("d/e/f"), "content").unwrap();
    let handle = |path: &str| {
        let path = CString::new(mounted.at(path).into_os_string().into_vec()).unwrap();
        handle::of(rustix::fs::CWD, &path, HandleUse::Open).unwrap()
    };
    let handles = ["", "d", "d/e", "d/e/f"].map(handle);
    let open = |mounted: &Mounted, handle: &FileHandle| {
        let root = File::open(&mounted.mountpoint).unwrap();
        handle::open(root.as_fd(), handle, OFlags::RDONLY).map(File::from)
    };
    let place = |mounted: &Mounted, file: &File| {
        let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        path.strip_prefix(&mounted.mountpoint).unwrap().to_str().unwrap().to_owned()
    };
    let forget = |mounted: &Mounted| {
        mounted.wait_for("forgetting", || {
            fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
            mounted.status()["nodes"] == 0
        });
    };
    forget(&mounted);
    // With all that is above it.
    for (handle, expected) in handles.iter().zip(["", "d", "d/e"]) {
        assert_eq!(place(&mounted, &open(&mounted, handle).unwrap()), expected);
    }
    forget(&mounted);
    let file = open(&mounted, &handles[3]).unwrap();
    assert_eq!(std::io::read_to_string(file).unwrap(), "content");
    fs::rename(mounted.at("d/e"), mounted.at("moved")).unwrap();
    forget(&mounted);
    assert_eq!(place(&mounted, &open(&mounted, &handles[2]).unwrap()), "moved");
    mounted.remount();
    let file = open(&mounted, &handles[3]).unwrap();
    assert_eq!(std::io::read_to_string(file).unwrap(), "content");
    // Another file with the same number is another file.
    fs::remove_file(mounted.at("moved/f")).unwrap();
    for n in 0..100 {
        fs::write(mounted.at(format!("moved/{n}")), "other").unwrap();
    }
    assert_eq!(open(&mounted, &handles[3]).unwrap_err(), Errno::STALE);
    forget(&mounted);
    assert_eq!(open(&mounted, &handles[3]).unwrap_err(), Errno::STALE);
    mounted.assert_catalog_is_true();
}

/// An NFS server of its own on loopback that exports a mount: NFS-Ganesha, by file handles.
struct Nfs {
    server: Child,
    port: u16,
}

impl Nfs {
    fn serve(mounted: &Mounted) -> Self {
        let dir = mounted.scratch("nfs");
        fs::create_dir(&dir).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (own, share) = (dir.display(), mounted.mountpoint.display());
        let settings = format!(
            "NFS_CORE_PARAM {{ NFS_Port = {port}; Protocols = 4; Bind_addr = 127.0.0.1;\n\
               Enable_NLM = false; Enable_RQUOTA = false; }}\n\
             NFSV4 {{ Graceless = true; RecoveryRoot = {own}; }}\n\
             EXPORT {{ Export_Id = 7; Path = {share}; Pseudo = /m; Access_Type = RW;\n\
               Squash = No_Root_Squash; SecType = sys; Protocols = 4; Transports = TCP;\n\
               FSAL {{ Name = VFS; }} }}\n"
        );
        let config = dir.join("ganesha.conf");
        fs::write(&config, settings).unwrap();
        let mut server = Command::new("ganesha.nfsd");
        server.arg("-F").arg("-f").arg(&config).arg("-L").arg(dir.join("log"));
        server.arg("-p").arg(dir.join("pid")).stdin(Stdio::null());
        let server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let nfs = Self { server, port };
        mounted.wait_for("NFS", || {
            Command::new("nfs-ls").arg(nfs.url("")).output().unwrap().status.success()
        });
        nfs
    }

    fn url(&self, path: &str) -> String {
        format!("nfs://127.0.0.1/m/{path}?version=4&nfsport={}", self.port)
    }
}

impl Drop for Nfs {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn an_nfs_export() {
    if !can_mount() || !have(&["ganesha.nfsd", "nfs-ls", "nfs-cat", "nfs-cp"]) {
        return;
    }
    for way in WAYS {
        let mounted = Mounted::prepared(way, |dir| {
            fs::create_dir(dir.join("d")).unwrap();
            fs::write(dir.join("d/large"), noise(2, 3_000_000)).unwrap();
        });
        let nfs = Nfs::serve(&mounted);
        let listed = must(Command::new("nfs-ls").arg(nfs.url("d")));
        assert!(listed.contains("large") && !listed.contains(".horace"), "{listed}");
        // This client fails to write much more at a time, to a plain directory too.
        let local = mounted.scratch("local");
        fs::write(&local, noise(1, 1_500)).unwrap();
        must(Command::new("nfs-cp").arg(&local).arg(nfs.url("d/new")));
        assert_eq!(fs::read(mounted.at("d/new")).unwrap(), noise(1, 1_500), "{way}");
        mounted.wait_for("version", || {
            mounted.digests("d/new").last() == Some(&sha256(noise(1, 1_500)))
        });
        assert!(mounted.ok(&["blame", "d/new"]).contains("ganesha"), "{way}");
        fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
        let read = Command::new("nfs-cat").arg(nfs.url("d/large")).output().unwrap();
        assert_eq!(read.stdout, noise(2, 3_000_000), "{way}");
        drop(nfs);
        mounted.assert_catalog_is_true();
    }
}
