//! `GET /info`: one file and its versions.

use axum::Json;
use serde_json::{Value, json};

use super::super::State;
use super::super::caller::Caller;
use super::{Given, Refusal, checksum, or_no_file, stamp};
use crate::catalog::Content;
use crate::query::records::VersionRecord;
use crate::query::request::{PathField, Request};
use crate::types::Kind;

pub(super) async fn info(
    state: State,
    caller: Caller,
    given: Given,
) -> Result<Json<Value>, Refusal> {
    let text = given.required("path")?;
    let path = super::path(&state, text)?;
    caller.need_path(&path)?;
    let there = state.is_there(&path).await?;
    if there != Some(Kind::File) && (there.is_some() || !given.switch("include_deleted")) {
        return Err(super::no_file(text));
    }
    let request = Request::Log { path: PathField(path.clone()) };
    let versions = state.records::<VersionRecord>(&caller, request, usize::MAX).await;
    let versions = versions.map_err(|problem| or_no_file(problem, text))?;
    let Some((newest, oldest)) = versions.first().zip(versions.last()) else {
        return Err(super::no_file(text));
    };
    let sum = newest.sha256.map(checksum);
    Ok(Json(json!({
        "file_id": newest.file_id,
        "path": String::from_utf8_lossy(&path),
        "is_deleted": there.is_none(),
        "current_checksum": sum,
        "checksum": sum,
        "size_bytes": newest.size,
        "created_at": stamp(&oldest.time),
        "updated_at": stamp(&newest.time),
        "version_created_at": stamp(&newest.time),
        "versions": versions.iter().map(|version| told(version, &path)).collect::<Vec<_>>(),
    })))
}

fn told(version: &VersionRecord, path: &[u8]) -> Value {
    let name = String::from_utf8_lossy(path);
    let mime = mime_guess::from_path(&*name).first_or_octet_stream();
    json!({
        "checksum": version.sha256.map(checksum),
        "size_bytes": version.size,
        "timestamp": stamp(&version.time),
        "created_at": stamp(&version.time),
        "version_id": version.number,
        "seq": version.seq,
        "mtime": stamp(&version.mtime),
        "mode": version.mode,
        "uid": version.writer.as_ref().map(|writer| writer.uid),
        "gid": version.writer.as_ref().map(|writer| writer.gid),
        "mime": mime.essence_str(),
        "content_available": version.content != Content::None,
        "source": version.origin,
    })
}
