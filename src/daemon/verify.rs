//! A verify for the socket.
//!
//! Owns how what the filesystem finds is called in the records.

use std::num::NonZeroU64;

use crate::fs::Fs;
use crate::fs::verify::{
    Begin, Copy, Finding, Go, Healing, Outcome, Subject, Told, Trouble, Verified, VerifyOptions,
};
use crate::query::request::PathField;
use crate::query::verify::{
    CopyRecord, FindingRecord, ShownVersion, VerifyProgress, VerifyRecord, VerifyRequest,
};
use crate::timespec::rfc3339;

/// Runs a verify; what it tells goes to `tell`, and its summary.
pub(super) fn run(
    fs: &Fs,
    request: &VerifyRequest,
    tell: &mut dyn FnMut(VerifyRecord) -> bool,
) -> Result<(), String> {
    let options = VerifyOptions {
        rate: NonZeroU64::new(request.rate),
        begin: if request.restart { Begin::Anew } else { Begin::WhereItStopped },
        healing: if request.repair { Healing::Repair } else { Healing::Report },
    };
    let done = fs.verify(options, &mut |told| {
        let goes_on = tell(match told {
            Told::Progress(verified) => VerifyRecord::Progress(progress(verified, true)),
            Told::Found(finding) => VerifyRecord::Finding(Box::new(describe(finding))),
        });
        if goes_on { Go::On } else { Go::Stop }
    });
    let verified = done.map_err(|error| error.to_string())?;
    tell(VerifyRecord::Summary(progress(&verified, false)));
    Ok(())
}

/// How far a run is.
pub(super) fn progress(of: &Verified, running: bool) -> VerifyProgress {
    let time = |ns: i64| (ns != 0).then(|| rfc3339(ns));
    VerifyProgress {
        running,
        started: time(of.started_ns),
        finished: time(of.finished_ns),
        objects: of.objects,
        packs: of.packs,
        files: of.files,
        bytes: of.bytes,
        total_bytes: of.expected_bytes,
        skipped: of.skipped,
        external: of.external,
        damaged: of.damaged,
        healed: of.healed,
        pack_damages: of.pack_damages,
    }
}

fn describe(finding: &Finding) -> FindingRecord {
    let (kind, path, pack) = match &finding.subject {
        Subject::Object => ("object", None, None),
        Subject::File(path) => ("file", Some(PathField(path.clone())), None),
        Subject::Pack(name) => ("pack", None, Some(name.clone())),
    };
    let trouble = match finding.trouble {
        Trouble::BitRot => "bit-rot",
        Trouble::External => "external",
        Trouble::Missing => "missing",
        Trouble::Damaged => "damaged",
        Trouble::Unreadable => "unreadable",
    };
    let (outcome, from, error) = match &finding.outcome {
        Outcome::Harmless => ("harmless", None, None),
        Outcome::Lost => ("lost", None, None),
        Outcome::Healable(copy) => ("healable", Some(copy), None),
        Outcome::Failed(copy, error) => ("failed", Some(copy), Some(error.clone())),
        Outcome::Healed(copy) => ("healed", Some(copy), None),
    };
    FindingRecord {
        kind: kind.into(),
        trouble: trouble.into(),
        detail: finding.detail.clone(),
        path,
        pack,
        sha256: finding.content.map(|(hash, _)| hash),
        size: finding.content.map(|(_, size)| size),
        versions: finding.versions.iter().map(|(path, number)| shown(path, *number)).collect(),
        copies: finding.copies.iter().map(copy_record).collect(),
        outcome: outcome.into(),
        from: from.map(copy_record),
        error,
    }
}

fn shown(path: &[u8], number: u64) -> ShownVersion {
    ShownVersion { path: PathField(path.into()), number }
}

fn copy_record(copy: &Copy) -> CopyRecord {
    let (kind, sha256, version, snapshot) = match copy {
        Copy::Object(hash) => ("object", Some(*hash), None, None),
        Copy::Version(path, number) => ("version", None, Some(shown(path, *number)), None),
        Copy::Longer(path, number) => ("longer", None, Some(shown(path, *number)), None),
        Copy::Snapshot(path) => ("snapshot", None, None, Some(PathField(path.clone()))),
    };
    CopyRecord { kind: kind.into(), sha256, version, snapshot }
}
