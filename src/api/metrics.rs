//! `/metrics`: the figures of [`metrics`](crate::metrics), with what `status` knows.

use std::time::Instant;

use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::State;
use super::caller::Caller;
use super::problem::Problem;
use crate::metrics::{Gauges, metrics};
use crate::query::request::Request as Question;
use crate::query::status::{ReconcileProgress, StatusRecord};
use crate::timespec::parse_absolute;

/// What Prometheus calls the form.
const FORM: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Who asks has to be known; nothing of what is in the mount is told.
pub(super) async fn answer(state: State, caller: Caller) -> Result<impl IntoResponse, Problem> {
    let status: StatusRecord = state.record(&caller, Question::Status).await?;
    put(&metrics().gauges, &status);
    Ok(([(CONTENT_TYPE, FORM)], metrics().render()))
}

/// Counts a request.
pub(super) async fn count(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let response = next.run(request).await;
    let metrics = metrics();
    metrics.request_seconds.observe(began.elapsed().as_secs_f64());
    metrics.requests.with_label_values(&[response.status().as_str()]).inc();
    response
}

#[expect(clippy::cast_precision_loss, reason = "figures of a gauge are approximate")]
fn put(gauges: &Gauges, status: &StatusRecord) {
    let yes = |is: bool| f64::from(u8::from(is));
    let when = |time: Option<&str>| {
        let ns = time.and_then(|time| parse_absolute(time, &jiff::tz::TimeZone::UTC));
        ns.map_or(0.0, |ns| ns as f64 / 1e9)
    };
    gauges.seq.set(status.seq.0 as f64);
    gauges.entries.set(status.entries as f64);
    gauges.versions.set(status.versions as f64);
    gauges.objects.set(status.objects as f64);
    gauges.object_bytes.set(status.object_bytes as f64);
    gauges.packs.set(status.space.packs as f64);
    gauges.pack_bytes.set(status.space.pack_bytes as f64);
    gauges.queue.set(status.queue as f64);
    gauges.wal_bytes.set(status.wal_bytes as f64);
    gauges.degraded.set(yes(status.degraded.is_some()));
    if let Some(mount) = &status.mount {
        gauges.nodes.set(mount.nodes as f64);
        gauges.open_files.set(mount.open_files as f64);
        gauges.uptime.set(mount.uptime_s as f64);
        gauges.passthrough.set(yes(mount.passthrough.enabled));
        let classes = &mount.snapshots.classes;
        let oldest = classes.iter().map(|class| when(class.last.as_deref())).reduce(f64::min);
        gauges.snapshot_time.set(oldest.unwrap_or(0.0));
        let overdue = classes.iter().map(|class| class.overdue_s).max();
        gauges.snapshot_overdue.set(overdue.unwrap_or(0) as f64);
        gauges.snapshot_failures.set(classes.iter().map(|class| f64::from(class.failures)).sum());
        if let Some(backups) = &mount.backups {
            gauges.backup_time.set(when(backups.last.as_deref()));
            gauges.backup_failed.set(yes(backups.failed.is_some()));
        }
    }
    let idle = ReconcileProgress::default();
    let reconcile = status.reconcile.as_ref().unwrap_or(&idle);
    gauges.reconcile_running.set(yes(reconcile.state.is_running()));
    gauges.reconcile_files.set(reconcile.files as f64);
    gauges.reconcile_read_bytes.set(reconcile.read_bytes as f64);
    gauges.reconcile_errors.set(reconcile.errors as f64);
    gauges.reconcile_end.set(reconcile.finished_ns.map_or(0.0, |ns| ns as f64 / 1e9));
    if let Some(prune) = &status.last_prune {
        gauges.prune_time.set(when(Some(&prune.time)));
        gauges.prune_freed_bytes.set(prune.freed_bytes as f64);
        gauges.prune_failed.set(yes(prune.error.is_some()));
    }
    if let Some(verify) = &status.verify {
        gauges.verify_damaged.set(verify.damaged as f64);
        gauges.verify_end.set(when(verify.finished.as_deref()));
    }
}
