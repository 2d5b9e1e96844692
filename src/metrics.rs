//! Figures for monitoring, in the form of Prometheus.
//!
//! Owns every name, which stay: dashboards and alerts rely on them. Times are seconds, sizes bytes, and what ends
//! with `_total` only grows while the daemon runs. What happens often is counted here as it does; what
//! [`status`](crate::query::status) knows anyway is put in when somebody asks. A process serves one mount, so
//! there is one of each. Counting takes no lock and no memory.

use std::sync::LazyLock;
use std::time::Instant;

use prometheus::{
    Counter, Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    Opts, Registry, TextEncoder,
};

/// Limits of the buckets for operations of the mount.
const OPERATION_BUCKETS: [f64; 18] = [
    5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1,
    0.25, 0.5, 1.0, 10.0,
];

/// Limits of the buckets for commits and requests.
const SLOW_BUCKETS: [f64; 12] =
    [1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 0.1, 0.5, 2.5, 10.0];

macro_rules! operations {
    ($($name:ident $text:literal,)*) => {
        /// An operation of the mount.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[expect(missing_docs, reason = "they are the kernel's names")]
        pub enum Operation {
            $($name,)*
        }

        /// Their names, in their order.
        pub const OPERATIONS: &[&str] = &[$($text,)*];
    };
}

operations! {
    Lookup "lookup", Getattr "getattr", Setattr "setattr", Readlink "readlink", Mknod "mknod",
    Mkdir "mkdir", Unlink "unlink", Rmdir "rmdir", Symlink "symlink", Rename "rename", Link "link",
    Open "open", Read "read", Write "write", Flush "flush", Release "release", Fsync "fsync",
    Opendir "opendir", Readdir "readdir", Readdirplus "readdirplus", Releasedir "releasedir",
    Fsyncdir "fsyncdir", Statfs "statfs", Setxattr "setxattr", Getxattr "getxattr",
    Listxattr "listxattr", Removexattr "removexattr", Create "create", Fallocate "fallocate",
    Lseek "lseek", CopyFileRange "copy_file_range",
}

macro_rules! gauges {
    ($($field:ident $name:literal $help:literal,)*) => {
        /// What is put in when somebody asks.
        #[derive(Debug)]
        #[expect(missing_docs, reason = "each has its help")]
        pub struct Gauges {
            $(pub $field: Gauge,)*
        }

        impl Gauges {
            fn new(registry: &Registry) -> Self {
                Self { $($field: registered(registry, Gauge::new($name, $help)),)* }
            }
        }
    };
}

gauges! {
    seq "horace_seq" "The last change that is committed.",
    entries "horace_entries" "Live names.",
    versions "horace_versions" "Versions of all files.",
    objects "horace_store_objects" "Contents that are kept, each once.",
    object_bytes "horace_store_object_bytes" "Their sizes.",
    packs "horace_store_packs" "Packs.",
    pack_bytes "horace_store_pack_bytes" "What packs take.",
    queue "horace_catalog_queue_events" "Events that wait for their commit.",
    wal_bytes "horace_catalog_wal_bytes" "Size of the catalog's write-ahead log.",
    degraded "horace_catalog_degraded" "1 if the catalog may be behind.",
    nodes "horace_mount_nodes" "Inodes that the kernel knows.",
    open_files "horace_mount_open_files" "Open files.",
    uptime "horace_uptime_seconds" "Since the mount serves.",
    passthrough "horace_mount_passthrough" "1 if the kernel goes to the backing files by itself.",
    reconcile_running "horace_reconcile_running" "1 while the directory is compared with the catalog.",
    reconcile_files "horace_reconcile_files" "Files that the newest comparison has seen.",
    reconcile_read_bytes "horace_reconcile_read_bytes" "Bytes of content that it has read.",
    reconcile_errors "horace_reconcile_errors" "What it could not look at.",
    reconcile_end "horace_reconcile_end_timestamp_seconds" "When it ended; 0 if it did not.",
    prune_time "horace_prune_timestamp_seconds" "When history was last pruned; 0 if never.",
    prune_freed_bytes "horace_prune_freed_bytes" "Bytes that this freed.",
    prune_failed "horace_prune_failed" "1 if it did nothing, or not all.",
    snapshot_time "horace_snapshot_last_success_timestamp_seconds" "When every scheduled class of snapshots was last well; 0 if one never was.",
    snapshot_overdue "horace_snapshot_overdue_seconds" "Since when a snapshot has been due.",
    snapshot_failures "horace_snapshot_failures" "How often snapshots were tried in vain since they went well.",
    backup_time "horace_backup_timestamp_seconds" "When the catalog was last copied; 0 if never.",
    backup_failed "horace_backup_failed" "1 if it was tried in vain since.",
    verify_damaged "horace_verify_damaged" "Damages that the newest verify has found and not undone.",
    verify_end "horace_verify_end_timestamp_seconds" "When it ended; 0 if it did not.",
}

/// Every figure.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    operations: Vec<Histogram>,
    /// How long commits take.
    pub commit_seconds: Histogram,
    /// Events that were committed.
    pub committed_events: IntCounter,
    /// Batches that were given up.
    pub failed_batches: IntCounter,
    /// How often an operation waited for room in the queue.
    pub queue_waits: IntCounter,
    /// For how long in all.
    pub queue_wait_seconds: Counter,
    /// How often an operation waited for what was kept before it to be taken in.
    pub keep_waits: IntCounter,
    /// Bytes that were hashed while they were written.
    pub streamed_bytes: IntCounter,
    /// Bytes that were read to be hashed.
    pub reread_bytes: IntCounter,
    /// How long requests of the HTTP API take until their answer begins.
    pub request_seconds: Histogram,
    /// Requests of the HTTP API, by the status of the answer.
    pub requests: IntCounterVec,
    /// What is put in when somebody asks.
    pub gauges: Gauges,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// Those of this process.
pub fn metrics() -> &'static Metrics {
    &METRICS
}

/// Measures an operation of the mount until this is dropped.
#[must_use]
#[derive(Debug)]
pub struct Timed {
    operation: Operation,
    began: Instant,
}

impl Timed {
    /// Begins.
    pub fn new(operation: Operation) -> Self {
        Self { operation, began: Instant::now() }
    }
}

impl Drop for Timed {
    fn drop(&mut self) {
        let took = self.began.elapsed().as_secs_f64();
        METRICS.operations[self.operation as usize].observe(took);
    }
}

/// Names are right and used once: that is seen as soon as there are metrics at all.
fn registered<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    collector: prometheus::Result<C>,
) -> C {
    let collector = collector.expect("names and help are plain");
    registry.register(Box::new(collector.clone())).expect("each name is used once");
    collector
}

impl Metrics {
    fn new() -> Self {
        let registry = Registry::new();
        let counter = |name, help| registered(&registry, IntCounter::new(name, help));
        let histogram = |name, help, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            registered(&registry, Histogram::with_opts(options))
        };
        let operations = registered(
            &registry,
            HistogramVec::new(
                HistogramOpts::new(
                    "horace_operation_seconds",
                    "How long operations of the mount take, without the way through the kernel.",
                )
                .buckets(OPERATION_BUCKETS.to_vec()),
                &["operation"],
            ),
        );
        let build = Opts::new("horace_build_info", "What runs.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        registered(&registry, Gauge::with_opts(build)).set(1.0);
        let hashed = Opts::new("horace_hashed_bytes_total", "Bytes that were hashed.");
        let hashed = registered(&registry, IntCounterVec::new(hashed, &["how"]));
        let requests = Opts::new("horace_http_requests_total", "Requests of the HTTP API.");
        let waited = Counter::new(
            "horace_catalog_queue_wait_seconds_total",
            "How long operations waited for room in the queue.",
        );
        Self {
            operations: OPERATIONS
                .iter()
                .map(|name| operations.with_label_values(&[name]))
                .collect(),
            commit_seconds: histogram(
                "horace_catalog_commit_seconds",
                "How long commits take.",
                &SLOW_BUCKETS,
            ),
            committed_events: counter("horace_catalog_events_total", "Events that were committed."),
            failed_batches: counter(
                "horace_catalog_failed_batches_total",
                "Batches that were given up: a reconcile brings in what they had.",
            ),
            queue_waits: counter(
                "horace_catalog_queue_waits_total",
                "How often an operation waited for room in the queue.",
            ),
            queue_wait_seconds: registered(&registry, waited),
            keep_waits: counter(
                "horace_store_waits_total",
                "How often an operation waited for what was kept before it to be taken in.",
            ),
            streamed_bytes: hashed.with_label_values(&["stream"]),
            reread_bytes: hashed.with_label_values(&["read"]),
            request_seconds: histogram(
                "horace_http_request_seconds",
                "How long requests of the HTTP API take until their answer begins.",
                &SLOW_BUCKETS,
            ),
            requests: registered(&registry, IntCounterVec::new(requests, &["status"])),
            gauges: Gauges::new(&registry),
            registry,
        }
    }

    /// Everything as text.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Into memory it cannot fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_has_a_name_of_its_own_and_help() {
        let text = metrics().render();
        drop(Timed::new(Operation::CopyFileRange));
        let after = metrics().render();
        assert!(after.contains("horace_operation_seconds_count{operation=\"copy_file_range\"}"));
        let help = text.lines().filter(|line| line.starts_with("# HELP")).count();
        let kinds = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(help, kinds);
        assert!(help > 30, "{text}");
        assert!(text.lines().all(|line| line.starts_with('#') || line.starts_with("horace_")));
    }
}
