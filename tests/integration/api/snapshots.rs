//! Snapshots over HTTP, on the real thing.

use std::fs;
use std::process::Command;

use horace::snapshots::BackendKind;
use rstest::rstest;
use serde_json::{Value, json};

use super::{Answer, Served, names, quoted};
use crate::callers::{USER, as_user};
use crate::mounted::{Mounted, can_mount};
use crate::snapshots::Volume;

/// The API of a mount over a volume, with words for `-o` and a configuration file.
pub(super) fn served(volume: &Volume, options: &str, configuration: &str) -> Served {
    let options = format!("snapshots=off,api=127.0.0.1:0,{options}");
    let mut mounted = Mounted::unmounted_on(volume.path(), &options);
    mounted.configure(configuration);
    mounted.start();
    mounted.wait_reconciled();
    let url = mounted.status()["api"].as_str().unwrap().to_string();
    Served { mounted, url, socket: None }
}

fn text(answer: &Value, field: &str) -> String {
    answer[field].as_str().unwrap_or_else(|| panic!("{answer:#}")).to_owned()
}

/// The status and `code` of a refusal, and whether its words say something.
fn refused(answer: &Answer, words: &str) -> (u16, String) {
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let problem = answer.json();
    assert!(text(&problem, "detail").contains(words), "{problem:#}");
    (answer.status, text(&problem, "code"))
}

#[rstest]
fn snapshots_are_taken_compared_held_and_destroyed_by_asking(
    #[values(BackendKind::Zfs, BackendKind::Btrfs)] kind: BackendKind,
) {
    let Some(volume) = Volume::new(kind) else { return };
    let served = served(&volume, "", "");
    let m = &served.mounted;
    let key = served.key("admin", &["--scope", "admin"]);
    let take = |class: &str| -> String {
        let taken = served.post(&key, "/api/v1/snapshots", &json!({ "class": class })).json();
        assert_eq!((&taken["class"], &taken["backend"]), (&json!(class), &json!(kind.as_str())));
        text(&taken, "name")
    };
    m.shell("mkdir d; echo one > d/f; echo gone > d/gone; echo same > same");
    let first = take("hourly");
    m.shell("echo two > d/f; rm d/gone; echo new > d/new; mv same other");
    fs::write(m.at("sch\u{f6}n & gut"), "").unwrap();
    let second = take("daily");
    let usual = text(&served.post(&key, "/api/v1/snapshots", &json!({})).json(), "name");
    assert!(usual.starts_with("hourly-"), "{usual}");

    // The list, whole and page by page.
    let all = served.get("/api/v1/snapshots");
    assert_eq!(names(&all, "name"), [&*first, &second, &usual]);
    assert!(all["next"].is_null() && all["items"][0]["time"].is_string());
    let page = served.get("/api/v1/snapshots?limit=2");
    assert_eq!(names(&page, "name"), [&*first, &second]);
    let next = text(&page, "next");
    let page = served.get(&format!("/api/v1/snapshots?limit=2&after={next}"));
    assert_eq!((names(&page, "name"), &page["next"]), (vec![&*usual], &Value::Null));
    let mut shown = served.get(&format!("/api/v1/snapshots/{second}"));
    assert_eq!(shown["only"], json!({ "versions": 0, "bytes": 0 }));
    shown.as_object_mut().unwrap().remove("only");
    assert_eq!(shown, all["items"][1]);

    // What has changed, whole and page by page.
    let changed = |page: &Value| -> Vec<[String; 2]> {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|item| [text(item, "change"), text(item, "path")]).collect()
    };
    let between = format!("/api/v1/snapshots/{first}/diff?to={second}");
    let diff = served.get(&between);
    let expected = [
        ["modified", "d/f"],
        ["removed", "d/gone"],
        ["added", "d/new"],
        ["renamed", "other"],
        ["added", "sch\u{f6}n & gut"],
    ];
    assert_eq!(changed(&diff), expected);
    assert_eq!(
        (&diff["items"][3]["from_path"], &diff["items"][3]["kind"]),
        (&json!("same"), &json!("file"))
    );
    let mut paged = Vec::new();
    let mut after = String::new();
    loop {
        let page = served.get(&format!("{between}&limit=2{after}"));
        paged.extend(changed(&page));
        assert!(page["items"].as_array().unwrap().len() <= 2);
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(paged, expected);
    m.shell("echo three > d/f");
    let now = served.get(&format!("/api/v1/snapshots/{second}/diff"));
    assert_eq!(changed(&now), [["modified", "d/f"]]);

    // What is held stays.
    let post =
        |place: &str, body: &Value| served.post(&key, &format!("/api/v1/snapshots{place}"), body);
    let held = post(&format!("/{first}/hold"), &json!({}));
    assert_eq!((held.status, &held.json()["holds"]), (200, &json!(1)));
    let again = post(&format!("/{first}/hold"), &json!({}));
    assert_eq!(refused(&again, &first), (409, "conflict".into()));
    let keep = json!({ "keep": { "hourly": 0, "daily": 0 } });
    let fates = |body: &Value| -> Vec<(String, bool, String)> {
        let answer = post("/prune", body).json();
        let items = answer["items"].as_array().unwrap_or_else(|| panic!("{answer:#}")).iter();
        items.map(|i| (text(i, "name"), i["drop"] == true, text(i, "reason"))).collect()
    };
    let decided = [
        (first.clone(), false, "held".into()),
        (second.clone(), true, "older than every rule".into()),
        (usual.clone(), false, "the newest".into()),
    ];
    assert_eq!(fates(&keep), decided);
    let listed = || served.get("/api/v1/snapshots")["items"].as_array().unwrap().len();
    assert_eq!(listed(), 3, "only told what would go");
    let mut really = keep.clone();
    really["dry_run"] = json!(false);
    assert_eq!(fates(&really), decided);
    assert_eq!(listed(), 2);
    let released = post(&format!("/{first}/release"), &json!({}));
    assert_eq!((released.status, &released.json()["holds"]), (200, &json!(0)));
    let again = post(&format!("/{first}/release"), &json!({}));
    assert_eq!(refused(&again, &first), (409, "conflict".into()));
    assert!(fates(&really)[0].1, "released, it goes");
    assert_eq!(names(&served.get("/api/v1/snapshots"), "name"), [&*usual]);

    // What is not there, and what makes no sense.
    let ask = |place: &str| served.ask(&format!("/api/v1/snapshots{place}"), &[]);
    let nothing = "there is no snapshot `nothing`";
    for answer in [
        ask("/nothing"),
        ask("/nothing/diff"),
        ask(&format!("/{usual}/diff?to=nothing")),
        post("/nothing/hold", &json!({})),
        post("/nothing/release", &json!({})),
    ] {
        assert_eq!(refused(&answer, nothing), (404, "not-found".into()));
    }
    let odd = quoted("a/../b%\u{e9}".as_bytes());
    assert_eq!(ask(&format!("/{odd}")).status, 404);
    for (answer, words) in [
        (ask("/%FF"), "UTF-8"),
        (ask("?after=!"), "`after`"),
        (ask("?after=W10"), "`after`"),
        (ask(&format!("/{usual}/diff?after=W10")), "`after`"),
        (ask("?limit=0"), "`limit`"),
        (post("", &json!({ "class": "nightly" })), "`nightly` is no class of snapshots"),
        (post("", &json!({ "klass": "daily" })), "klass"),
        (post("/prune", &json!({ "keep": { "nightly": 1 } })), "`nightly` is no class"),
        (post("/prune", &json!({ "keep": { "daily": -1 } })), "a number such as 10"),
    ] {
        assert_eq!(refused(&answer, words), (400, "bad-request".into()));
    }
}

/// "Only root and the user who mounted see snapshots and have them changed, and keys of theirs: for changing with the
/// scope `admin`."
#[test]
fn only_who_may_sees_snapshots_and_has_them_changed() {
    let Some(volume) = Volume::new(BackendKind::Btrfs) else { return };
    let served = served(&volume, "", "");
    let m = &served.mounted;
    fs::create_dir(m.at("d")).unwrap();
    let admin = served.key("admin", &["--scope", "admin"]);
    let taken = served.post(&admin, "/api/v1/snapshots", &json!({})).json();
    let name = text(&taken, "name");
    let reading = ["".into(), format!("/{name}"), format!("/{name}/diff")]
        .map(|end| format!("/api/v1/snapshots{end}"));
    let changing = ["", &format!("/{name}/hold"), &format!("/{name}/release"), "/prune"]
        .map(|end| format!("/api/v1/snapshots{end}"));
    let bearer = |key: &str| format!("Authorization: Bearer {key}");
    let user = USER.to_string();
    let [read, restore] = ["read", "restore"].map(|scope| served.key(scope, &["--scope", scope]));
    let below = served.key("below", &["--scope", "admin", "--below", "d"]);
    let theirs = served.key("theirs", &["--scope", "admin", "--user", &user]);
    for place in &reading {
        assert_eq!(served.ask(place, &[]).status, 200, "root on this machine: {place}");
        for key in [&admin, &read, &restore] {
            assert_eq!(served.ask(place, &["-H", &bearer(key)]).status, 200, "{place}");
        }
        for key in [&below, &theirs] {
            assert_eq!(served.ask(place, &["-H", &bearer(key)]).status, 403, "{place}");
        }
        assert_eq!(served.ask_by(as_user(USER, "curl"), place, &[]).status, 403, "{place}");
    }
    for place in &changing {
        let body = ["-H", "Content-Type: application/json", "-d", "{}"];
        for curl in [Command::new("curl"), as_user(USER, "curl")] {
            assert_eq!(served.ask_by(curl, place, &body).status, 403, "without a key: {place}");
        }
        for key in [&read, &restore, &below, &theirs] {
            assert_eq!(served.post(key, place, &json!({})).status, 403, "{place}");
        }
    }
    assert_eq!(served.get("/api/v1/snapshots")["items"], json!([taken]), "nothing was done");
    served.post(&admin, &format!("/api/v1/snapshots/{name}/hold"), &json!({}));
    let log = m.log();
    for what in ["take snapshot", "hold snapshot"] {
        assert!(log.contains(&format!("what=\"{what}\"")), "{log}");
    }
    assert!(!log.contains("prune snapshots"), "{log}");
}

#[test]
fn where_there_are_no_snapshots_the_answers_say_why() {
    if !can_mount() {
        return;
    }
    let served = Served::new();
    let key = served.key("admin", &["--scope", "admin"]);
    assert_eq!(served.get("/api/v1/snapshots"), json!({ "items": [], "next": null }));
    let why = text(&served.get("/api/v1/status")["snapshots"], "reason");
    for place in ["", "/any/hold", "/any/release", "/prune"] {
        let answer = served.post(&key, &format!("/api/v1/snapshots{place}"), &json!({}));
        assert_eq!(refused(&answer, &why), (409, "conflict".into()), "{place}");
    }
    for place in ["/any", "/any/diff"] {
        let answer = served.ask(&format!("/api/v1/snapshots{place}"), &[]);
        assert_eq!(refused(&answer, "there is no snapshot `any`"), (404, "not-found".into()));
    }
}
