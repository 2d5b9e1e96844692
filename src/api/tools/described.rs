//! What `tools/list` tells of the tools.

use serde_json::{Value, json};

/// Every tool, with what it takes.
pub(super) fn tools() -> Value {
    let text = |told: &str| json!({ "type": "string", "description": told });
    let number = |least: u32| json!({ "type": "integer", "minimum": least });
    let tags = json!({ "type": "array", "items": { "type": "string" } });
    let file = text("The identity of the file, or its path");
    let metadata = json!({
        "type": "object",
        "description": "What is to be said of the file",
        "properties": {
            "owner": text("Whose it is"),
            "purpose": text("What it is for"),
            "status": text("What has become of it; `active` if nothing is said"),
            "correlation_id": text("What it belongs to elsewhere"),
            "tags": tags,
            "collection": text("The name or identity of a collection that it gets into"),
        },
    });
    let paged = |mut properties: Value| {
        properties["limit"] =
            json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 50 });
        properties["offset"] = json!({ "type": "integer", "minimum": 0, "default": 0 });
        properties
    };
    json!([
        tool(
            "register_file",
            "Tells what the catalog has of a file, and says something of it. Tags are added.",
            json!({ "file_path": text("Its path"), "metadata": metadata }),
            &["file_path"],
        ),
        tool(
            "search_files",
            "Finds files that may be read. The filters may also be in an object `query`.",
            paged(json!({
                "tags": tags,
                "owner": text("Whose they are"),
                "created_after": text("First seen at or after this time"),
                "created_before": text("First seen before or at this time"),
                "file_type": text("A media type, `image/*`, or what names end with after a dot"),
                "min_size": number(0),
                "max_size": number(0),
                "collection": text("The name or identity of a collection"),
                "status": text("What has become of them [default: active]"),
                "sort_by": { "enum": ["created_at", "updated_at", "size", "path"] },
                "order": { "enum": ["asc", "desc"] },
            })),
            &[],
        ),
        tool(
            "get_file_info",
            "Tells what is known of a file.",
            json!({ "file_id": file, "include_versions": { "type": "boolean", "default": false } }),
            &["file_id"],
        ),
        tool(
            "create_collection",
            "Makes a collection, or adds files to it. `metadata` of a collection is not kept.",
            json!({
                "name": text("What it is called"),
                "description": text("What it is"),
                "file_ids": { "type": "array", "items": file },
            }),
            &["name"],
        ),
        tool("list_collections", "Lists collections.", paged(json!({})), &[]),
        tool(
            "update_file",
            "Says something of a file. Tags take the place of those that it has.",
            json!({ "file_id": file, "metadata": metadata }),
            &["file_id"],
        ),
        tool(
            "restore_version",
            "Brings a version of a file back, as its newest one.",
            json!({ "file_id": file, "version": number(1) }),
            &["file_id", "version"],
        ),
    ])
}

fn tool(name: &str, description: &str, properties: Value, required: &[&str]) -> Value {
    let schema = json!({ "type": "object", "properties": properties, "required": required });
    json!({ "name": format!("horace_{name}"), "description": description, "inputSchema": schema })
}
