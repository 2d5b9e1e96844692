//! `GET /collections`: the directories at the root.

use axum::Json;
use serde_json::{Value, json};

use super::super::State;
use super::super::caller::Caller;
use super::super::problem::Problem;
use crate::query::records::{ManifestRecord, TreeRecord};
use crate::query::request::{NameField, PathField, Request};
use crate::types::Kind;

pub(super) async fn collections(state: State, caller: Caller) -> Result<Json<Value>, Problem> {
    let (path, after) = (PathField::default(), NameField::default());
    let request = Request::Tree { path, at_ns: None, after, limit: u64::MAX };
    let mut records: Vec<TreeRecord> = state.records(&caller, request, usize::MAX).await?;
    records.retain(|record| record.kind == Kind::Dir && caller.need_path(&record.name.0).is_ok());
    let mut details = Vec::new();
    for record in &records {
        let path = PathField(record.name.0.clone());
        let request = Request::Manifest { path, at_ns: None };
        // A directory that may be seen but not listed counts as empty.
        let files = state.records::<ManifestRecord>(&caller, request, usize::MAX).await;
        let files = files.unwrap_or_default();
        details.push(json!({
            "name": String::from_utf8_lossy(&record.name.0),
            "file_count": files.len(),
            "total_bytes": files.iter().map(|file| file.size).sum::<u64>(),
            "updated_at": super::stamp(&record.mtime),
        }));
    }
    let names: Vec<&Value> = details.iter().map(|detail| &detail["name"]).collect();
    Ok(Json(json!({ "collections": names, "details": details })))
}
