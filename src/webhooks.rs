//! Webhooks: changes that are posted to somebody else as they happen.
//!
//! Owns `webhooks.json`, which says what goes where, with the secrets, and `webhooks-sent.json`, which says how far
//! each is; both are private. A webhook gets what root sees, so only root and who mounted have to do with them. They
//! are made at the command line, also where no daemon runs, and over the API; the daemon sees it within a second.
//!
//! # Order of steps
//! `post → 2xx → place`: a crash between the last two has the same changes posted again, with the same numbers. So
//! each change comes at least once, and in order.

mod batch;
mod runner;
mod sender;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use data_encoding::BASE64;
use rustix::rand::GetRandomFlags;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::catalog::ChangeOp;
use crate::jsonfile::{JsonFile, JsonFileError};
use crate::timespec::rfc3339;
use crate::types::Seq;
pub use runner::Runner;

/// Bytes of a secret.
const SECRET_BYTES: usize = 32;
/// What every secret begins with.
const SECRET_PREFIX: &str = "whsec_";
/// Webhooks of a mount.
const MOST: usize = 32;

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// What it is called.
    pub name: String,
    /// Where changes go.
    pub url: String,
    /// What it is signed with.
    secret: Secret,
    /// Only what is at and below these paths; everything if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub below: Vec<String>,
    /// Only changes of these kinds; all if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ops: Vec<ChangeOp>,
    /// Changes after this one.
    pub since: Seq,
    /// When it was made, in nanoseconds since 1970.
    pub created_ns: i64,
}

/// A secret, which is shown to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// The key that it stands for.
    fn key(&self) -> Vec<u8> {
        let text = self.0.strip_prefix(SECRET_PREFIX).unwrap_or(&self.0);
        BASE64.decode(text.as_bytes()).unwrap_or_default()
    }
}

/// What a new webhook is to be.
#[derive(Debug, Clone)]
pub struct NewWebhook {
    /// What it is called: one word.
    pub name: String,
    /// Where changes go: `http://` or `https://`.
    pub url: String,
    /// Only what is at and below these paths.
    pub below: Vec<String>,
    /// Only changes of these kinds.
    pub ops: Vec<ChangeOp>,
    /// Changes after this one.
    pub since: Seq,
}

/// How far a webhook is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// When the webhook was made of which this is told.
    created_ns: i64,
    /// Of which catalog.
    catalog: Option<uuid::Uuid>,
    /// The last change that was taken, or that was of no interest.
    pub seq: Seq,
    /// When that happened, in nanoseconds since 1970.
    time_ns: i64,
    /// When changes were taken last, in nanoseconds since 1970.
    #[serde(default)]
    pub success_ns: Option<i64>,
    /// Why they were not the last time; nothing since they were.
    #[serde(default)]
    pub error: Option<String>,
    /// Since when they are not, in nanoseconds since 1970.
    #[serde(default)]
    pub failing_ns: Option<i64>,
    /// How often they were not since.
    #[serde(default)]
    pub failures: u32,
}

/// A webhook and how far it is, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WebhookRecord {
    /// What it is called.
    pub name: String,
    /// Where changes go.
    pub url: String,
    /// Only what is at and below these paths; everything if there are none.
    pub below: Vec<String>,
    /// Only changes of these kinds; all if there are none.
    pub ops: Vec<ChangeOp>,
    /// When it was made.
    pub created: String,
    /// The last change that was taken, or that was of no interest.
    pub seq: Seq,
    /// How many changes came after that.
    pub behind: u64,
    /// How it is.
    pub state: WebhookState,
    /// When changes were taken last.
    pub success: Option<String>,
    /// Why they were not the last time; null since they were.
    pub error: Option<String>,
    /// Since when they are not.
    pub failing: Option<String>,
    /// How often they were not since.
    pub failures: u32,
}

/// How a webhook is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WebhookState {
    /// Its changes are taken.
    Well,
    /// They are not, and it is tried again.
    Failing,
    /// They are not for a day, and it is tried once an hour.
    Paused,
}

impl WebhookRecord {
    /// Of a webhook of a log that ends somewhere.
    pub fn new(webhook: &Webhook, sent: &Sent, end: Seq, now_ns: i64) -> Self {
        let state = match sent.failing_ns {
            None => WebhookState::Well,
            Some(since) if sender::is_long(now_ns.saturating_sub(since)) => WebhookState::Paused,
            Some(_) => WebhookState::Failing,
        };
        Self {
            name: webhook.name.clone(),
            url: webhook.url.clone(),
            below: webhook.below.clone(),
            ops: webhook.ops.clone(),
            created: rfc3339(webhook.created_ns),
            seq: sent.seq,
            behind: end.0.saturating_sub(sent.seq.0),
            state,
            success: sent.success_ns.map(rfc3339),
            error: sent.error.clone(),
            failing: sent.failing_ns.map(rfc3339),
            failures: sent.failures,
        }
    }
}

/// Why webhooks cannot be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Their file cannot be used.
    #[error(transparent)]
    File(#[from] JsonFileError),
    /// A name is taken.
    #[error("there is a webhook `{0}` already: remove it first, or take another name")]
    Taken(String),
    /// A name is none.
    #[error(
        "`{0}` is no name for a webhook: letters, digits, `-`, `_` and `.`, at most 64 of them"
    )]
    BadName(String),
    /// An address is none.
    #[error("a webhook has an address `http://HOST/…` or `https://HOST/…`, without a user in it")]
    BadUrl,
    /// There are many.
    #[error("there are {MOST} webhooks already")]
    TooMany,
    /// There is no such webhook.
    #[error("there is no webhook `{0}`")]
    Unknown(String),
    /// There is no randomness.
    #[error("cannot make a secret")]
    Random,
}

/// The webhooks of a mount.
#[derive(Debug)]
pub struct Webhooks {
    wanted: JsonFile<Vec<Webhook>>,
    sent: JsonFile<BTreeMap<String, Sent>>,
}

impl Webhooks {
    /// Those of a state directory.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        let dir = state_dir.into();
        let wanted = JsonFile::new(dir.clone(), "webhooks.json");
        Self { wanted, sent: JsonFile::new(dir, "webhooks-sent.json") }
    }

    /// All of them, with how far each is.
    ///
    /// # Errors
    /// If a file cannot be read. That there is none is fine.
    pub fn list(&self) -> Result<Vec<(Webhook, Sent)>, WebhookError> {
        let (wanted, sent) = (self.wanted.read()?, self.sent.read()?);
        Ok(wanted.iter().map(|webhook| (webhook.clone(), sent_of(webhook, &sent))).collect())
    }

    /// Makes one and returns its secret: nobody can tell it again.
    ///
    /// # Errors
    /// If its name or address is none, or the file cannot be written.
    pub fn add(&self, new: NewWebhook, now_ns: i64) -> Result<String, WebhookError> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if new.name.is_empty() || new.name.len() > 64 || !new.name.chars().all(is_part) {
            return Err(WebhookError::BadName(new.name));
        }
        sender::check_url(&new.url)?;
        let mut bytes = [0; SECRET_BYTES];
        match rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty()) {
            Ok(SECRET_BYTES) => {}
            _ => return Err(WebhookError::Random),
        }
        let secret = format!("{SECRET_PREFIX}{}", BASE64.encode(&bytes));
        let NewWebhook { name, url, below, ops, since } = new;
        let below = below.iter().map(|path| path.trim_matches('/').to_owned());
        let below = below.filter(|path| !path.is_empty()).collect();
        let kept = Secret(secret.clone());
        let webhook = Webhook { name, url, secret: kept, below, ops, since, created_ns: now_ns };
        self.wanted.change(|webhooks| {
            if webhooks.iter().any(|known| known.name == webhook.name) {
                return Err(WebhookError::Taken(webhook.name.clone()));
            }
            if webhooks.len() >= MOST {
                return Err(WebhookError::TooMany);
            }
            webhooks.push(webhook);
            Ok(())
        })?;
        Ok(secret)
    }

    /// Takes one away.
    ///
    /// # Errors
    /// If there is none of that name, or the file cannot be written.
    pub fn remove(&self, name: &str) -> Result<(), WebhookError> {
        self.wanted.change(|webhooks| {
            let before = webhooks.len();
            webhooks.retain(|webhook| webhook.name != name);
            if webhooks.len() == before { Err(WebhookError::Unknown(name.into())) } else { Ok(()) }
        })
    }

    /// Those that are wanted, and nothing else of them.
    fn wanted(&self) -> Result<Arc<Vec<Webhook>>, JsonFileError> {
        self.wanted.read()
    }

    /// Notes how far one is.
    fn note(&self, webhook: &Webhook, sent: &Sent) -> Result<(), JsonFileError> {
        let wanted = self.wanted.read()?;
        self.sent.change(|all| {
            // What is wanted no more is forgotten.
            all.retain(|name, _| wanted.iter().any(|webhook| webhook.name == *name));
            all.insert(webhook.name.clone(), sent.clone());
            Ok(())
        })
    }
}

/// How far a webhook is; another of the same name does not count.
fn sent_of(webhook: &Webhook, all: &BTreeMap<String, Sent>) -> Sent {
    let known = all.get(&webhook.name).filter(|sent| sent.created_ns == webhook.created_ns);
    let new = Sent { created_ns: webhook.created_ns, seq: webhook.since, ..Sent::default() };
    known.cloned().unwrap_or(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn new(name: &str, url: &str) -> NewWebhook {
        let (below, ops) = (vec!["/a/".into(), "/".into()], Vec::new());
        NewWebhook { name: name.into(), url: url.into(), below, ops, since: Seq(7) }
    }

    #[test]
    fn webhooks_are_kept_privately_and_their_secrets_shown_once() {
        let dir = tempfile::tempdir().unwrap();
        let webhooks = Webhooks::new(dir.path());
        let secret = webhooks.add(new("one", "http://localhost:1/"), 5).unwrap();
        let (webhook, sent) = webhooks.list().unwrap().remove(0);
        assert_eq!((webhook.below.as_slice(), sent.seq), (&["a".to_string()][..], Seq(7)));
        assert_eq!(webhook.secret.key().len(), SECRET_BYTES);
        assert!(!format!("{webhook:?}").contains(&secret[8..]));
        let mode = std::fs::metadata(webhooks.wanted.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let far = Sent { seq: Seq(9), ..sent };
        webhooks.note(&webhook, &far).unwrap();
        assert_eq!(Webhooks::new(dir.path()).list().unwrap()[0].1, far);
        webhooks.remove("one").unwrap();
        assert!(matches!(webhooks.remove("one"), Err(WebhookError::Unknown(_))));
        webhooks.add(new("one", "http://localhost:1/"), 6).unwrap();
        assert_eq!(webhooks.list().unwrap()[0].1.seq, Seq(7), "another of the same name");
    }

    #[test]
    fn what_is_no_webhook_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let webhooks = Webhooks::new(dir.path());
        for url in ["", "ftp://h/", "http:///x", "http://u:p@h/", "/x", "http://h/ x"] {
            assert!(matches!(webhooks.add(new("n", url), 1), Err(WebhookError::BadUrl)), "{url}");
        }
        for name in ["", "a b", "a/b"] {
            let refused = webhooks.add(new(name, "http://h/"), 1);
            assert!(matches!(refused, Err(WebhookError::BadName(_))), "{name}");
        }
        webhooks.add(new("n", "https://h:8443/x?y"), 1).unwrap();
        assert!(matches!(webhooks.add(new("n", "http://h/"), 1), Err(WebhookError::Taken(_))));
    }
}
