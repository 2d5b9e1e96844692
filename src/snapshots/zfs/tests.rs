//! What is asked of `zfs`, and what is made of its answers.

use std::collections::VecDeque;

use parking_lot::Mutex;
use uuid::Uuid;

use super::*;
use crate::types::Seq;

const CATALOG_ID: Uuid = Uuid::from_u128(7);

/// A command that answers as it was told to, and remembers what it was asked.
#[derive(Debug, Default)]
struct Script {
    answers: Mutex<VecDeque<Result<String, String>>>,
    asked: Mutex<Vec<String>>,
}

impl Run for Script {
    fn run(&self, program: &str, args: &[&str], _: Duration) -> Result<String, ProgramError> {
        let line = format!("{program} {}", args.join(" "));
        self.asked.lock().push(line.clone());
        let answer = self.answers.lock().pop_front().unwrap_or_else(|| Ok(String::new()));
        answer.map_err(|said| ProgramError::Failed { line, said })
    }
}

fn mount() -> Mount {
    Mount {
        id: 1,
        root: "/".into(),
        mountpoint: "/tank/files".into(),
        fstype: "zfs".into(),
        source: "tank/files".into(),
    }
}

const WELL: &str = "tank/files\ttype\tfilesystem\t-\n\
                    tank/files\tmountpoint\t/tank/files\tdefault\n\
                    tank/files\tmounted\tyes\t-\n";

fn zfs(answers: &[Result<&str, &str>]) -> (Arc<Script>, Zfs) {
    let script = Arc::new(Script::default());
    let answers = std::iter::once(&Ok(WELL)).chain(answers);
    let owned = |answer: &Result<&str, &str>| answer.map(str::to_owned).map_err(str::to_owned);
    script.answers.lock().extend(answers.map(owned));
    let backing = rustix::fs::open("/", OFlags::PATH, Mode::empty()).unwrap();
    let zfs = Zfs::open(Arc::clone(&script) as Arc<dyn Run>, &mount(), backing).unwrap();
    script.asked.lock().clear();
    (script, zfs)
}

/// The rows of a snapshot of `dataset`.
fn told(name: &str, txg: u64, clones: &str, seq: (&str, &str), holds: u64) -> String {
    let (value, source) = seq;
    format!(
        "{name}\tguid\t1{txg}\t-\n{name}\tcreatetxg\t{txg}\t-\n{name}\tcreation\t1769868000\t-\n\
         {name}\tused\t4096\t-\n{name}\tuserrefs\t{holds}\t-\n{name}\tclones\t{clones}\t-\n\
         {name}\torg.horace:seq\t{value}\t{source}\n{name}\torg.horace:catalog\t{CATALOG_ID}\t{source}\n\
         {name}\torg.horace:base\t-\t-\n"
    )
}

#[test]
fn only_what_is_of_exactly_the_dataset_is_listed_in_the_order_of_its_transactions() {
    let said = [
        told("tank/files@daily-20260131-140000", 30, "", ("12", "local"), 0),
        told("tank/files@hourly-20260131-140000", 20, "tank/a,tank/b", ("11", "local"), 1),
        told("tank/files/child@hourly-20260131-140000", 5, "", ("1", "local"), 0),
        told("tank/files2@hourly-20260131-140000", 6, "", ("1", "local"), 0),
    ]
    .concat();
    let (script, zfs) = zfs(&[Ok(&said)]);
    let list = zfs.list().unwrap();
    let names: Vec<_> = list.iter().map(|snapshot| &*snapshot.name).collect();
    assert_eq!(names, ["hourly-20260131-140000", "daily-20260131-140000"]);
    assert_eq!(
        list[0],
        Snapshot {
            name: "hourly-20260131-140000".into(),
            guid: "120".into(),
            createtxg: 20,
            time_ns: 1_769_868_000_000_000_000,
            used_bytes: Some(4096),
            mark: Some(Mark { seq: Seq(11), catalog: CATALOG_ID }),
            holds: 1,
            clones: vec!["tank/a".into(), "tank/b".into()],
            is_base: false,
        }
    );
    assert_eq!(
        *script.asked.lock(),
        ["zfs get -Hp -r -d 1 -t snapshot -o name,property,value,source \
          guid,createtxg,creation,used,userrefs,clones,org.horace:seq,org.horace:catalog,org.horace:base \
          tank/files"]
    );
}

#[test]
fn a_mark_that_is_inherited_or_received_makes_nothing_ours() {
    for source in ["inherited from tank", "received", "-"] {
        let said = told("tank/files@hourly-20260131-140000", 3, "", ("12", source), 0);
        let (_, zfs) = zfs(&[Ok(&said)]);
        assert_eq!(zfs.list().unwrap()[0].mark, None, "{source}");
    }
}

#[test]
fn an_old_command_is_asked_in_its_own_way() {
    let said = told("tank/files@a", 3, "-", ("12", "local"), 0);
    let origins = "tank\torigin\t-\t-\ntank/c\torigin\ttank/files@a\t-\n";
    let (script, zfs) = zfs(&[Err("invalid option 't'"), Ok(&said), Ok(origins)]);
    assert_eq!(zfs.list().unwrap()[0].clones, ["tank/c"]);
    let asked = std::mem::take(&mut *script.asked.lock());
    assert!(asked[1].starts_with("zfs get -Hp -r -d 1 -o name,property,value,source guid"));
    assert!(!asked[1].contains("clones"), "{asked:?}");
    assert_eq!(asked[2], "zfs get -Hp -r -o name,property,value,source origin tank");
    zfs.destroy(&["a", "b"]);
    assert_eq!(*script.asked.lock(), ["zfs destroy tank/files@a", "zfs destroy tank/files@b"]);
}

#[test]
fn what_is_misunderstood_is_no_empty_list() {
    for said in ["tank/files@a guid 1 -\n", "tank/files@a\tguid\t1\t-\n"] {
        let (_, zfs) = zfs(&[Ok(said)]);
        assert!(matches!(zfs.list(), Err(BackendError::Answer { .. })), "{said}");
    }
}

#[test]
fn snapshots_are_taken_with_their_mark_and_destroyed_in_batches() {
    let (script, zfs) = zfs(&[Ok(""), Err("cannot destroy: b is busy"), Ok(""), Err("busy")]);
    zfs.create("a", &Mark { seq: Seq(12), catalog: CATALOG_ID }).unwrap();
    let done = zfs.destroy(&["a", "b", "c"]);
    let gone: Vec<_> = done.iter().map(|(name, result)| (*name, result.is_ok())).collect();
    assert_eq!(gone, [("a", true), ("b", false), ("c", true)], "it goes on past one that fails");
    assert_eq!(
        *script.asked.lock(),
        [
            &*format!(
                "zfs snapshot -o org.horace:seq=12 -o org.horace:catalog={CATALOG_ID} tank/files@a"
            ),
            "zfs destroy tank/files@a,b,c",
            "zfs destroy tank/files@a",
            "zfs destroy tank/files@b",
            "zfs destroy tank/files@c",
        ]
    );
}

#[test]
fn a_name_that_means_more_is_never_handed_on() {
    let (script, zfs) = zfs(&[]);
    for name in ["a%b", "a,b", "", "a@b", "-r", "a b"] {
        assert!(zfs.create(name, &Mark { seq: Seq(1), catalog: CATALOG_ID }).is_err());
        assert!(zfs.destroy(&[name])[0].1.is_err(), "{name}");
        assert!(zfs.hold(name).is_err() && zfs.release(name).is_err() && zfs.open(name).is_err());
    }
    assert!(script.asked.lock().is_empty());
}

#[test]
fn the_dataset_and_the_mountpoint_are_checked_against_each_other() {
    let open = |said: &str, mount: Mount| {
        let script = Arc::new(Script::default());
        script.answers.lock().push_back(Ok(said.into()));
        let backing = rustix::fs::open("/", OFlags::PATH, Mode::empty()).unwrap();
        Zfs::open(script, &mount, backing).map(drop)
    };
    assert_eq!(open(WELL, mount()), Ok(()));
    assert_eq!(open(&WELL.replace("/tank/files\tdef", "legacy\tdef"), mount()), Ok(()));
    let bound = Mount { root: "/sub".into(), mountpoint: "/srv".into(), ..mount() };
    assert_eq!(open(WELL, bound), Ok(()), "a directory of it is mounted elsewhere");
    let wrong = open(WELL, Mount { mountpoint: "/srv".into(), ..mount() }).unwrap_err();
    assert_eq!(wrong, "tank/files is at /tank/files, says ZFS, but at /srv for us");
    let wrong = open(&WELL.replace("filesystem", "volume"), mount()).unwrap_err();
    assert_eq!(wrong, "tank/files is a volume, and no filesystem");
    let wrong = open(&WELL.replace("yes", "no"), mount()).unwrap_err();
    assert_eq!(wrong, "tank/files is mounted by no means that ZFS knows of");
    assert!(open(WELL, Mount { source: "-r".into(), ..mount() }).is_err());
}
