//! `GET /health`.

use axum::Json;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::super::State;
use crate::query::snapshots::SnapshotsStatus;
use crate::timespec::rfc3339;

/// For how long a snapshot may be due: `horace check snapshots` warns from then on, too.
const OVERDUE_S: u64 = 15 * 60;

/// Takes no key: it says how the daemon is, and nothing of what is in the mount.
pub(super) async fn health(state: State) -> (StatusCode, Json<Value>) {
    let service = &state.config.service;
    let catalog = service.catalog.status();
    let reconcile = service.host.reconcile_progress();
    let last_commit = state.block(|service| {
        Ok(service.catalog.read_committed(|reader| {
            let seq = reader.seq()?;
            reader.time_of(seq)
        })?)
    });
    let last_commit = last_commit.await.ok().map(|ns| super::stamp(&rfc3339(ns)));
    let well = catalog.degraded.is_none();
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let answer = json!({
        "status": if well { "ok" } else { "degraded" },
        "degraded": catalog.degraded,
        "version": env!("CARGO_PKG_VERSION"),
        "mount": "serving",
        "catalog_queue": catalog.queue,
        "last_commit": last_commit,
        "snapshot_scheduler": scheduler(&service.host.snapshots().status()),
        "reconcile": {
            "state": reconcile.state.as_str(),
            "done": reconcile.files,
            "total": reconcile.total_files,
            "eta_s": reconcile.eta_s,
        },
    });
    (status, Json(answer))
}

/// How the taking of snapshots goes. What it cannot do makes no mount degraded: `horace status` says why.
fn scheduler(snapshots: &SnapshotsStatus) -> Value {
    let classes = &snapshots.classes;
    let state = if snapshots.reason.is_some() {
        "none"
    } else if classes.is_empty() {
        "off"
    } else if classes.iter().any(|class| class.failures > 0) {
        "failing"
    } else if classes.iter().any(|class| class.overdue_s >= OVERDUE_S) {
        "overdue"
    } else {
        "ok"
    };
    // All are written in the same form, in UTC.
    let last = classes.iter().filter_map(|class| class.last.as_deref()).max();
    let next = classes.iter().filter_map(|class| class.next.as_deref()).min();
    json!({
        "state": state,
        "backend": snapshots.backend,
        "last": last.map(super::stamp),
        "next": next.map(super::stamp),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::snapshots::SnapshotClassStatus;
    use rstest::rstest;

    #[rstest]
    #[case(0, 0, "ok")]
    #[case(OVERDUE_S - 1, 0, "ok")]
    #[case(OVERDUE_S, 0, "overdue")]
    #[case(OVERDUE_S, 1, "failing")]
    fn the_worst_class_is_told(#[case] overdue_s: u64, #[case] failures: u32, #[case] state: &str) {
        let class = |overdue_s, failures, time: &str| SnapshotClassStatus {
            class: "daily".into(),
            schedule: "daily".into(),
            keep: "3".into(),
            last: Some(time.into()),
            next: Some(time.into()),
            overdue_s,
            failures,
            error: None,
        };
        let [early, late] = ["2026-01-01T00:00:00.25+00:00", "2026-02-01T00:00:00+00:00"];
        let mut snapshots = SnapshotsStatus {
            backend: "zfs".into(),
            enabled: true,
            classes: vec![class(overdue_s, failures, late), class(0, 0, early)],
            ..SnapshotsStatus::default()
        };
        let told = scheduler(&snapshots);
        assert_eq!((&told["state"], &told["backend"]), (&json!(state), &json!("zfs")));
        assert_eq!(told["last"], late);
        assert_eq!(told["next"], "2026-01-01T00:00:00.250000+00:00");
        snapshots.classes.clear();
        assert_eq!(scheduler(&snapshots)["state"], "off");
        snapshots.reason = Some("ext4".into());
        assert_eq!(scheduler(&snapshots)["state"], "none");
    }
}
