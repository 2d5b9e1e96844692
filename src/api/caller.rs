//! Who asks, and what they may.
//!
//! Owns the decision. A key says who asks, and what for. Without one, the users of this machine see what
//! they may see in the mount: over the Unix socket and over loopback the kernel knows who they are. Others are
//! guests, if guests are wanted. Only a key is good for changing anything, or root at the Unix socket.
//! A `Host` that is not ours is refused, so that no page of the web gets here by a name that it
//! controls; and a page of another origin may not ask at all.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Request};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::peer::Peer;
use super::problem::{Code, Problem};
use super::{Api, State};
use crate::clock::now_ns;
use crate::keys::{Key, Scope};
use crate::sys::creds::Actor;
use crate::sys::users;
use crate::types::path::is_below;

/// Somebody who asks.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// With whose eyes, and as whom.
    pub(super) actor: Actor,
    /// What for.
    scope: Scope,
    /// Paths at and below which they may ask, none of them empty; everywhere if there are none.
    below: Vec<Vec<u8>>,
    /// What they are called in the log.
    name: String,
}

impl Caller {
    /// A user of this machine without a key.
    fn local(peer: &Peer, actor: &Actor) -> Self {
        let is_root = peer.is_process() && actor.is_privileged();
        Self {
            scope: if is_root { Scope::Admin } else { Scope::Read },
            below: Vec::new(),
            name: format!("user {}", actor.identity.uid),
            actor: actor.clone(),
        }
    }

    /// Refuses those who may not do what takes this scope.
    pub(super) fn need(&self, scope: Scope) -> Result<(), Problem> {
        if self.scope >= scope {
            return Ok(());
        }
        let detail = match scope {
            Scope::Read => "this takes a key",
            Scope::Restore => "this takes a key with the scope `restore`, as `horace key` makes it",
            Scope::Admin => "this takes a key with the scope `admin`, as `horace key` makes it",
        };
        Err(Problem::new(Code::Forbidden, detail))
    }

    /// Refuses those whose key is not good for a path.
    pub(super) fn need_path(&self, path: &[u8]) -> Result<(), Problem> {
        if self.below.is_empty() || self.below.iter().any(|top| is_below(path, top)) {
            return Ok(());
        }
        let tops: Vec<_> = self.below.iter().map(|top| String::from_utf8_lossy(top)).collect();
        let detail = format!("this key is good for `{}` only", tops.join("`, `"));
        Err(Problem::new(Code::Forbidden, detail))
    }

    /// Refuses those whose key is not good for everything.
    pub(super) fn need_everything(&self) -> Result<(), Problem> {
        self.need_path(b"")
    }

    /// The paths at and below which they may ask.
    pub(super) fn tops(&self) -> Vec<Vec<u8>> {
        if self.below.is_empty() { vec![Vec::new()] } else { self.below.clone() }
    }

    /// What they are called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Says in the log that they have something changed.
    pub(super) fn audit(&self, what: &str, path: &[u8]) {
        let path = String::from_utf8_lossy(path);
        tracing::info!(target: "horace::audit", by = self.name, uid = self.actor.identity.uid, what, %path);
    }
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<Arc<Peer>>();
        let peer = Arc::clone(peer.ok_or_else(|| Problem::internal("a request from nowhere"))?);
        let secret = secret(&parts.headers)?;
        if let Some(wait) = api.gate.admit(peer.source()) {
            let detail = "too many requests at once: ask again in a while";
            return Err(Problem::new(Code::TooMany, detail).retry_after(wait));
        }
        let api = Arc::clone(api);
        if secret.is_none()
            && let Some(actor) = peer.known()
        {
            return Ok(Self::local(&peer, actor));
        }
        // The tables of the kernel and of users may be slow.
        let identified = tokio::task::spawn_blocking(move || identify(&api, &peer, secret));
        identified.await.map_err(Problem::internal)?
    }
}

/// The key that a request shows.
fn secret(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let text = value.to_str().ok();
    let secret = text.and_then(|text| {
        let (scheme, secret) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim().to_owned())
    });
    let form = "a key is shown as `Authorization: Bearer KEY`";
    Ok(Some(secret.ok_or_else(|| Problem::new(Code::Unauthorized, form))?))
}

fn identify(api: &Api, peer: &Peer, secret: Option<String>) -> Result<Caller, Problem> {
    if let Some(secret) = secret {
        return match api.config.keys.find(&secret, now_ns()) {
            Ok(Some(key)) => with_key(key),
            Ok(None) => {
                if let Some(wait) = api.gate.fail(peer.source()) {
                    let detail = "too many wrong keys: try again in a while";
                    return Err(Problem::new(Code::TooMany, detail).retry_after(wait));
                }
                Err(Problem::new(Code::Unauthorized, "there is no such key, or it has ended"))
            }
            Err(error) => Err(Problem::internal(error)),
        };
    }
    if let Some(actor) = peer.actor() {
        return Ok(Caller::local(peer, actor));
    }
    match &api.config.guest {
        Some(guest) => Ok(Caller {
            actor: actor(guest)?,
            scope: Scope::Read,
            below: Vec::new(),
            name: "guest".into(),
        }),
        None => Err(Problem::new(
            Code::Unauthorized,
            "who asks? Show a key that `horace key create` has made: `Authorization: Bearer KEY`",
        )),
    }
}

fn with_key(key: Key) -> Result<Caller, Problem> {
    let below = key.below.iter().map(|path| path.trim_matches('/').as_bytes().to_vec());
    Ok(Caller {
        actor: actor(&key.user)?,
        scope: key.scope,
        below: below.filter(|path| !path.is_empty()).collect(),
        name: format!("key {}", key.name),
    })
}

fn actor(user: &str) -> Result<Actor, Problem> {
    let uid = users::uid_of(user)
        .ok_or_else(|| Problem::new(Code::Forbidden, format!("there is no user `{user}` here")))?;
    Ok(Actor { identity: users::identity_of(uid), pid: 0 })
}

/// Refuses requests that a browser was tricked into.
pub(super) async fn check_host(
    axum::extract::State(api): State,
    request: Request,
    next: Next,
) -> Response {
    match refuse_strangers(&api.config.hosts, request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn refuse_strangers(hosts: &[String], uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let authority = uri.authority().map(ToString::to_string);
    let header = headers.get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    let Some(host) = authority.or(header) else {
        return Err(Problem::bad_request("a request has a `Host`"));
    };
    if !is_ours(hosts, &host) {
        let detail = "this is not reached by that name; `api_host=` adds one";
        return Err(Problem::new(Code::Misdirected, detail));
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or("");
    let from = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    if from.is_some_and(|from| from.eq_ignore_ascii_case(&host)) {
        return Ok(());
    }
    Err(Problem::new(Code::Forbidden, "pages of other origins may not ask here"))
}

/// Addresses cannot be made to lead elsewhere as names can.
fn is_ours(hosts: &[String], host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or(six),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.parse::<std::net::IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|ours| ours.eq_ignore_ascii_case(name))
}

/// How long somebody who guesses keys has to wait.
pub(super) const PENALTY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use rstest::rstest;

    fn check(host: &'static str, origin: Option<&'static str>) -> Option<Code> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(host));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
        }
        let ours = ["nas.lan".to_string()];
        let answer = refuse_strangers(&ours, &Uri::from_static("/x"), &headers);
        answer.err().map(|problem| problem.code())
    }

    #[rstest]
    #[case("localhost:8000", None, None)]
    #[case("127.0.0.1:8000", None, None)]
    #[case("[::1]:8000", None, None)]
    #[case("NAS.lan", None, None)]
    #[case("nas.lan:8000", Some("http://nas.lan:8000"), None)]
    #[case("evil.example:8000", None, Some(Code::Misdirected))]
    #[case("localhost.evil.example", None, Some(Code::Misdirected))]
    #[case("localhost:8000", Some("http://evil.example"), Some(Code::Forbidden))]
    #[case("localhost:8000", Some("null"), Some(Code::Forbidden))]
    #[case("localhost:8000", Some("http://localhost:9000"), Some(Code::Forbidden))]
    fn strangers_are_refused(
        #[case] host: &'static str,
        #[case] origin: Option<&'static str>,
        #[case] expected: Option<Code>,
    ) {
        assert_eq!(check(host, origin), expected);
    }

    #[test]
    fn a_key_for_some_paths_is_good_for_no_others() {
        let identity = crate::sys::creds::Identity { uid: 0, gid: 0, groups: Vec::new() };
        let caller = Caller {
            actor: Actor { identity, pid: 0 },
            scope: Scope::Restore,
            below: vec![b"projects/a".to_vec()],
            name: "key a".into(),
        };
        for good in ["projects/a", "projects/a/b"] {
            assert!(caller.need_path(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in ["", "projects", "projects/ab", "other"] {
            assert!(caller.need_path(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(caller.need_everything().is_err());
        assert!(caller.need(Scope::Read).is_ok() && caller.need(Scope::Restore).is_ok());
        assert!(caller.need(Scope::Admin).is_err());
    }
}
