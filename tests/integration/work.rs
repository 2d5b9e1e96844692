//! Ordinary work on a mount: afterwards the manifest is what `sha256sum` finds, and a second start has
//! nothing to read.

use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::rstest;

use crate::mounted::{Mounted, can_mount};
use crate::tools::{have, must};

/// Some hundred files of the system, in a few directories.
fn sample() -> Vec<PathBuf> {
    ["/usr/include/linux", "/usr/include/c++", "/usr/share/doc"]
        .map(PathBuf::from)
        .into_iter()
        .filter(|path| path.is_dir())
        .take(2)
        .collect()
}

/// A tree with every kind of file, with times, links and attributes.
fn mixed_tree(dir: &Path) {
    let script = r#"
        mkdir -p tree/deep/er tree/empty; cd tree
        for n in $(seq 100); do head -c $((n * 97)) /dev/urandom > file-$n; done
        head -c 3000000 /dev/urandom > deep/large
        truncate -s 5M deep/sparse; printf x | dd of=deep/sparse bs=1 seek=3000000 conv=notrunc status=none
        ln -s ../file-1 deep/link; ln -s nowhere dangling; ln file-1 deep/hard; ln file-1 deep/er/hard
        mkfifo fifo; chmod 4755 file-2; chmod 2770 deep; chown 12:34 file-3
        touch -d 1999-12-31T23:59:59.123456789Z file-4 deep/er
        setfattr -n user.note -v hello file-5
        setfacl -m u:1234:r file-6; setfacl -d -m g:5:rwx deep
    "#;
    must(Command::new("bash").args(["-euc", script]).current_dir(dir));
}

/// Both trees have the same in them, attributes included.
fn assert_same(a: &Path, b: &Path) {
    let script = r#"
        list() {
            cd "$1"
            find . -type d -printf '%P %y %m %U:%G %T@\n' -o \
                -printf '%P %y %m %n %U:%G %T@ %s %l\n' | sort
            getfattr -Rhdm- . | sort
            getfacl -R . | sort
            find . -type f -exec sha256sum {} + | sort
        }
        diff <(list "$1") <(list "$2") >&2"#;
    must(Command::new("bash").args(["-euc", script, "-"]).args([a, b]));
}

#[test]
fn copied_headers() {
    if !can_mount() {
        return;
    }
    let mut mounted = Mounted::new();
    for dir in sample() {
        must(Command::new("cp").arg("-a").arg(&dir).arg(&mounted.mountpoint));
        let copy = mounted.at(dir.file_name().unwrap());
        must(Command::new("diff").args(["-r", "--no-dereference"]).args([dir, copy]));
    }
    mounted.assert_survives_remount();
}

#[rstest]
fn a_copied_tree(#[values("io=auto", "io=stream", "passthrough=off")] options: &str) {
    if !can_mount() || !have(&["setfattr", "setfacl"]) {
        return;
    }
    let mut mounted = Mounted::with_options(options);
    let source = mounted.scratch("source");
    std::fs::create_dir(&source).unwrap();
    mixed_tree(&source);
    must(Command::new("cp").arg("-a").arg(source.join("tree")).arg(&mounted.mountpoint));
    assert_same(&source.join("tree"), &mounted.at("tree"));
    mounted.assert_survives_remount();
    assert_same(&source.join("tree"), &mounted.at("tree"));
    // And from one place in the mount to another.
    mounted.shell("cp -a tree copy; cp -r --reflink=auto tree again");
    assert_same(&source.join("tree"), &mounted.at("copy"));
    mounted.assert_survives_remount();
}

#[test]
fn untarred_trees() {
    if !can_mount() || !have(&["tar", "setfattr", "setfacl"]) {
        return;
    }
    let mut mounted = Mounted::new();
    let source = mounted.scratch("source");
    std::fs::create_dir(&source).unwrap();
    mixed_tree(&source);
    let all = ["--xattrs", "--acls", "--numeric-owner", "-cf", "../all.tar", "tree"];
    must(Command::new("tar").args(all).current_dir(&source));
    mounted.shell("tar --xattrs --xattrs-include='*' --acls -xpf ../all.tar");
    assert_same(&source.join("tree"), &mounted.at("tree"));
    mounted.assert_survives_remount();
    // Over what is there, as an update does.
    mounted.shell("tar --xattrs --xattrs-include='*' --acls -xpf ../all.tar --overwrite");
    mounted.shell("tar --xattrs --xattrs-include='*' --acls -xpf ../all.tar --recursive-unlink");
    assert_same(&source.join("tree"), &mounted.at("tree"));
    // And packed through the mount.
    mounted.shell("tar --numeric-owner -czf packed.tgz tree; tar -df packed.tgz");
    mounted.assert_survives_remount();
}

#[test]
fn a_tree_mirrored_by_rsync() {
    if !can_mount() || !have(&["rsync", "setfattr", "setfacl"]) {
        return;
    }
    let mut mounted = Mounted::new();
    let source = mounted.scratch("source");
    std::fs::create_dir(&source).unwrap();
    mixed_tree(&source);
    let rsync = |more: &[&str]| {
        let mut command = Command::new("rsync");
        command
            .args(["-aHAX", "--delete", "--modify-window=-1"])
            .args(more)
            .arg(format!("{}/", source.display()));
        must(command.arg(&mounted.mountpoint))
    };
    rsync(&[]);
    assert_same(&source.join("tree"), &mounted.at("tree"));
    let seq = mounted.ok(&["sync", "."]);
    assert_eq!(rsync(&["-i"]), "", "nothing to do the second time");
    assert_eq!(mounted.ok(&["sync", "."]), seq, "and nothing to catalogue");
    let change = "cd tree; rm file-7; echo more >> file-8; mv file-9 deep; echo new > deep/new";
    must(Command::new("bash").args(["-euc", change]).current_dir(&source));
    rsync(&["--checksum", "--inplace"]);
    assert_same(&source.join("tree"), &mounted.at("tree"));
    mounted.assert_survives_remount();
}

#[test]
fn a_git_repository() {
    if !can_mount() || !have(&["git"]) {
        return;
    }
    let mut mounted = Mounted::new();
    mounted.shell(
        r#"
        export HOME="$PWD/.." GIT_CONFIG_NOSYSTEM=1
        git config --global user.email a@example.org; git config --global user.name A
        git init -q -b main r; cd r
        for n in $(seq 60); do mkdir -p d$((n % 7)); echo "file $n" > d$((n % 7))/f$n; done
        git add .; git commit -qm one
        for n in $(seq 30); do echo "change $n" >> d$((n % 7))/f$n; git commit -qam "change $n"; done
        git checkout -qb side HEAD~5; git mv d1 moved; git commit -qm moved
        git checkout -q main; git merge -q side -m merged; git stash list
        git gc -q --prune=now; git fsck --strict; git status --porcelain
        cd ..; git clone -q r clone; git clone -q --bare r bare.git; git clone -q --shared r shared
        cd clone; git log --oneline | wc -l; git fsck --strict
        git worktree add -q ../tree HEAD~3; git reset -q --hard HEAD~10; git pull -q
        test -z "$(git status --porcelain)"
        "#,
    );
    mounted.assert_survives_remount();
    mounted.shell(r#"export HOME="$PWD/.."; cd clone; git fsck --strict; git status --porcelain"#);
}

#[test]
fn a_python_environment() {
    if !can_mount() || !have(&["python3"]) {
        return;
    }
    let mut mounted = Mounted::new();
    // Distributions may keep the parts for pip in a package of its own.
    let pip = Command::new("python3").args(["-c", "import ensurepip"]).status().unwrap().success();
    let without = if pip { "" } else { "--without-pip" };
    mounted.shell(&format!("python3 -m venv {without} venv"));
    mounted.shell(
        r#"
        unset PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX
        printf 'def f():\n    return 42\n' > venv/helper.py
        venv/bin/python -c "import sys; sys.path.insert(0, 'venv'); import helper; assert helper.f() == 42"
        test -n "$(find venv/__pycache__ -name 'helper*.pyc')"
        "#,
    );
    mounted.assert_survives_remount();
    mounted
        .shell("venv/bin/python -c 'import sys; assert sys.prefix != sys.base_prefix'; rm -r venv");
    mounted.assert_manifest_passes();
}

const SQLITE: &str = r#"
import sqlite3, sys, threading
wal = sys.argv[1] == 'wal'
db = sqlite3.connect('data.db', timeout=60)
if wal:
    assert db.execute('pragma journal_mode=wal').fetchone() == ('wal',)
db.execute('create table if not exists t (worker, n, text)')
db.commit()
def work(worker):
    con = sqlite3.connect('data.db', timeout=60)
    for n in range(40):
        with con:
            con.execute('insert into t values (?, ?, ?)', (worker, n, 'x' * 500))
        con.execute('select count(*) from t').fetchone()
    con.close()
workers = [threading.Thread(target=work, args=(w,)) for w in range(4)]
for w in workers: w.start()
for w in workers: w.join()
assert db.execute('select count(*) from t').fetchone() == (160,)
assert db.execute('pragma integrity_check').fetchone() == ('ok',)
"#;

#[rstest]
fn an_sqlite_database(
    #[values("wal", "rollback")] journal: &str,
    #[values("io=auto", "io=stream", "passthrough=off")] options: &str,
) {
    if !can_mount() || !have(&["python3", "sqlite3"]) {
        return;
    }
    let mut mounted = Mounted::with_options(options);
    if journal == "wal" && options == "passthrough=off" && !shares_memory(&mounted) {
        // Without the kernel's help a file has no shared writable mapping, and sqlite says so.
        return;
    }
    // Connections of several processes, and of several threads.
    let script = mounted.scratch("work.py");
    std::fs::write(&script, SQLITE).unwrap();
    mounted.shell(&format!("python3 {} {journal}", script.display()));
    mounted.shell(
        r#"
        for n in 1 2 3 4; do
            for i in $(seq 10); do
                echo "pragma busy_timeout=60000; insert into t values ('shell', $i, 'y');" |
                    sqlite3 data.db > /dev/null
            done & jobs="${jobs-} $!"
        done
        for job in $jobs; do wait $job; done
        test "$(sqlite3 data.db 'select count(*) from t')" = 200
        test "$(sqlite3 data.db 'pragma integrity_check')" = ok
        "#,
    );
    mounted.assert_survives_remount();
    assert_eq!(mounted.shell("sqlite3 data.db 'select count(*) from t'").trim(), "200");
}

/// Whether a file of the mount can be mapped for writing by several.
fn shares_memory(mounted: &Mounted) -> bool {
    let program = "if 1:
        import mmap
        with open('probe', 'w+b') as f:
            f.truncate(4096)
            mmap.mmap(f.fileno(), 4096)[0] = 1";
    let mut command = Command::new("python3");
    let status = command.args(["-c", program]).current_dir(&mounted.mountpoint).output().unwrap();
    status.status.success()
}

#[test]
fn a_build() {
    if !can_mount() || !have(&["cargo"]) {
        return;
    }
    let mut mounted = Mounted::new();
    let build = r#"
        unset CARGO_TARGET_DIR RUSTFLAGS
        cargo build -q --offline 2>&1
        ./target/debug/tiny"#;
    mounted.shell("cargo init -q --offline --vcs none --name tiny tiny 2>&1");
    // Whatever lies above the scratch directory has no say.
    mounted.shell("echo '[workspace]' >> tiny/Cargo.toml");
    assert!(mounted.shell_in("tiny", build).contains("Hello, world!"));
    // Changed and built again, incrementally.
    mounted.shell_in("tiny", "sed -i 's/world/mount/' src/main.rs");
    assert!(mounted.shell_in("tiny", build).contains("Hello, mount!"));
    mounted.assert_survives_remount();
    assert!(mounted.shell_in("tiny", build).contains("Hello, mount!"));
    mounted.shell_in("tiny", "cargo clean -q 2>&1");
    mounted.assert_manifest_passes();
}

#[test]
fn renames_links_and_attributes_leave_nothing_to_read() {
    if !can_mount() || !have(&["setfattr"]) {
        return;
    }
    let mut mounted = Mounted::new();
    mounted.shell(
        r#"
        for n in $(seq 9); do echo $n > f$n; done
        ln f1 g1; mv f2 g2; mv f3 f4; chmod 600 f5; touch f6; setfattr -n user.a -v b f7
        ln f8 h; mkdir d e; mv f9 d; mv d e/d; ln g2 l; rm g2
        ln e/d/f9 over; echo new > t; mv t over
        exec 5>>open; echo 1 >&5; mv open e; ln e/open opened; chmod 640 opened; echo 2 >&5
        "#,
    );
    mounted.assert_survives_remount();
}

#[test]
fn a_compiled_c_program() {
    if !can_mount() || !have(&["gcc", "make"]) {
        return;
    }
    let mut mounted = Mounted::new();
    mounted.shell(
        r#"
        for n in 1 2 3 4 5; do echo "int f$n(void) { return $n; }" > f$n.c; done
        echo 'int f5(void); int main(void) { return f5() - 5; }' > main.c
        printf 'main: main.o libf.a\n\t$(CC) -o $@ $^\nlibf.a: f1.o f2.o f3.o f4.o f5.o\n\t$(AR) rcs $@ $^\n' > Makefile
        make -s -j2; ./main; touch f3.c; make -s; make -s -q; ./main
        "#,
    );
    mounted.assert_survives_remount();
}
