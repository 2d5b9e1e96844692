//! The web page at `/`.
//!
//! Owns which files it consists of and what it may do in a browser: run its own scripts, and ask the server that it
//! came from. The files are part of the program, so that the page is that of the API it asks.

use std::sync::Arc;

use axum::Router;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;

use super::Api;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self' blob: data:; connect-src 'self'; frame-src 'self' blob:; base-uri 'none'; \
    form-action 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The files below `/page/`, each with its media type and what is in it.
macro_rules! files {
    ($($name:literal $media_type:ident,)*) => {
        const FILES: &[(&str, &str, &str)] = &[
            $((concat!("/page/", $name), $media_type, include_str!(concat!("page/", $name))),)*
        ];
    };
}

files! {
    "page.css" STYLE,
    "activity.js" SCRIPT,
    "api.js" SCRIPT,
    "browse.js" SCRIPT,
    "chart.js" SCRIPT,
    "crumbs.js" SCRIPT,
    "diff.js" SCRIPT,
    "dom.js" SCRIPT,
    "file.js" SCRIPT,
    "format.js" SCRIPT,
    "health.js" SCRIPT,
    "key.js" SCRIPT,
    "list.js" SCRIPT,
    "page.js" SCRIPT,
    "path.js" SCRIPT,
    "preview.js" SCRIPT,
    "route.js" SCRIPT,
    "search.js" SCRIPT,
    "snapshots.js" SCRIPT,
    "space.js" SCRIPT,
    "steps.js" SCRIPT,
    "time.js" SCRIPT,
}

/// The page takes no key: what it shows, it asks for.
pub(super) fn router() -> Router<Arc<Api>> {
    FILES.iter().fold(Router::new(), |page, &(place, media_type, text)| {
        page.route(place, get(async move || file(media_type, text)))
    })
}

/// What is at `/` for a browser.
pub(super) fn index() -> impl IntoResponse {
    file(HTML, include_str!("page/index.html"))
}

fn file(media_type: &'static str, text: &'static str) -> impl IntoResponse {
    ([(CONTENT_TYPE, media_type), (CONTENT_SECURITY_POLICY, POLICY)], text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_served() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/page");
        let there = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        let there = there.filter(|name| name != "index.html").count();
        assert_eq!(there, FILES.len());
    }
}
