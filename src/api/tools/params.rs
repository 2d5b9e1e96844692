//! What the tools take. Fields that are not known are let be, as the predecessor did.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Failure, ToolCode};

/// What is said of a file.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Metadata {
    pub(super) owner: Option<String>,
    pub(super) purpose: Option<String>,
    pub(super) status: Option<String>,
    pub(super) correlation_id: Option<String>,
    pub(super) tags: Option<Vec<String>>,
    /// The name or identity of a collection that it gets into.
    pub(super) collection: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Register {
    pub(super) file_path: String,
    #[serde(default)]
    pub(super) metadata: Metadata,
}

#[derive(Debug, Deserialize)]
pub(super) struct Update {
    pub(super) file_id: String,
    #[serde(default)]
    pub(super) metadata: Metadata,
}

/// Which files are searched for.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    pub(super) tags: Vec<String>,
    pub(super) owner: Option<String>,
    pub(super) created_after: Option<String>,
    pub(super) created_before: Option<String>,
    /// A media type, also as `image/*`, or what names end with after a dot.
    pub(super) file_type: Option<String>,
    pub(super) min_size: Option<u64>,
    pub(super) max_size: Option<u64>,
    pub(super) collection: Option<String>,
    pub(super) status: Option<String>,
}

/// What the older of the two interfaces has in a field of its own.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Query {
    Text(String),
    Wanted(Box<Wanted>),
}

#[derive(Debug, Deserialize)]
pub(super) struct Search {
    pub(super) query: Option<Query>,
    #[serde(flatten)]
    pub(super) wanted: Wanted,
    #[serde(default = "fifty")]
    pub(super) limit: usize,
    #[serde(default)]
    pub(super) offset: usize,
    #[serde(default)]
    pub(super) sort_by: SortBy,
    #[serde(default)]
    pub(super) order: Order,
}

fn fifty() -> usize {
    50
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SortBy {
    #[default]
    CreatedAt,
    UpdatedAt,
    Size,
    Path,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Order {
    Asc,
    #[default]
    Desc,
}

#[derive(Debug, Deserialize)]
pub(super) struct Info {
    pub(super) file_id: String,
    #[serde(default)]
    pub(super) include_versions: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Create {
    pub(super) name: String,
    pub(super) description: Option<String>,
    #[serde(default)]
    pub(super) file_ids: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct List {
    #[serde(default = "fifty")]
    pub(super) limit: usize,
    #[serde(default)]
    pub(super) offset: usize,
}

#[derive(Debug, Deserialize)]
pub(super) struct Restore {
    pub(super) file_id: String,
    pub(super) version: u32,
}

/// Reads the parameters of a tool; none are the same as an empty object.
pub(super) fn read<T: DeserializeOwned>(params: Value) -> Result<T, Failure> {
    let params = if params.is_null() { Value::Object(Default::default()) } else { params };
    serde_json::from_value(params)
        .map_err(|error| Failure::new(ToolCode::InvalidParams, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_search_is_nested_or_flat() {
        let nested: Search = read(json!({ "query": { "owner": "ann" }, "order": "asc" })).unwrap();
        let Some(Query::Wanted(wanted)) = nested.query else { panic!("it is nested") };
        assert_eq!((wanted.owner.as_deref(), nested.limit), (Some("ann"), 50));
        let flat: Search = read(json!({ "owner": "ann", "tags": ["a"], "limit": 3 })).unwrap();
        assert_eq!((flat.wanted.owner.as_deref(), flat.limit), (Some("ann"), 3));
        assert!(read::<Search>(json!({ "sort_by": "colour" })).is_err());
        assert!(read::<Search>(Value::Null).is_ok());
    }
}
