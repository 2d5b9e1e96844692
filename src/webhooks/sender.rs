//! One post, and when the next is tried.
//!
//! Owns the form of the request, which is that of Standard Webhooks, and its bounds: no redirect is followed, of the
//! answer only the status counts, and there is a limit to how long anything may take.

use std::error::Error;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use axum::http::uri::Scheme;
use axum::http::{Request, StatusCode, Uri};
use data_encoding::BASE64;
use hmac::{Hmac, Mac};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sha2::Sha256;
use tokio::time::timeout;

use super::batch::Post;
use super::{Webhook, WebhookError};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the whole may take.
const ANSWER: Duration = Duration::from_secs(30);
/// How long after a failure it is tried again, first and at most.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// How often it is tried after it has failed for long.
const RARELY: Duration = Duration::from_secs(3600);
/// What is long, in nanoseconds.
const LONG_NS: i64 = 24 * 3600 * 1_000_000_000;

/// Why a post was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) reason: String,
    /// How long the receiver wants to be left alone.
    pub(super) wait: Option<Duration>,
}

impl Refused {
    pub(super) fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), wait: None }
    }
}

/// Whoever posts to one address.
pub(super) enum Sender {
    Plain(Client<HttpConnector, Body>),
    Tls(Client<HttpsConnector<HttpConnector>, Body>),
}

impl Sender {
    /// For the address of a webhook.
    pub(super) fn new(url: &str) -> Result<Self, Refused> {
        let mut plain = HttpConnector::new();
        plain.set_connect_timeout(Some(CONNECT));
        if !url.starts_with("https:") {
            return Ok(Self::Plain(Client::builder(TokioExecutor::new()).build(plain)));
        }
        plain.enforce_http(false);
        let provider = rustls::crypto::ring::default_provider();
        let builder = HttpsConnectorBuilder::new().with_provider_and_native_roots(provider);
        let builder = builder.map_err(|error| {
            Refused::because(format!("this machine has no certificates to trust: {error}"))
        })?;
        let tls = builder.https_only().enable_http1().wrap_connector(plain);
        Ok(Self::Tls(Client::builder(TokioExecutor::new()).build(tls)))
    }

    /// Posts; it is taken if the answer is a 2xx.
    pub(super) async fn post(
        &self,
        webhook: &Webhook,
        post: &Post,
        now_ns: i64,
    ) -> Result<(), Refused> {
        let seconds = now_ns / 1_000_000_000;
        let signature = sign(&webhook.secret.key(), &post.id, seconds, &post.body);
        let request = Request::post(&webhook.url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("horace/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &post.id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature)
            .body(Body::from(Bytes::clone(&post.body)));
        let request = request.map_err(|error| Refused::because(error.to_string()))?;
        let answer = async {
            match self {
                Self::Plain(client) => client.request(request).await,
                Self::Tls(client) => client.request(request).await,
            }
        };
        let answer = timeout(ANSWER, answer).await;
        let answer = answer.map_err(|_| Refused::because("no answer within half a minute"))?;
        let answer = answer.map_err(|error| Refused::because(told(&error)))?;
        let wait =
            answer.headers().get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok());
        let wait = wait.map(|seconds: u32| Duration::from_secs(u64::from(seconds)).min(RARELY));
        verdict(answer.status()).map_err(|reason| Refused { reason, wait })
    }
}

/// What a status means.
fn verdict(status: StatusCode) -> Result<(), String> {
    if status.is_success() {
        Ok(())
    } else if status.is_redirection() {
        Err(format!("it leads elsewhere ({}), which is not followed", status.as_u16()))
    } else {
        Err(format!("it answered {}", status.as_u16()))
    }
}

/// An error with its last cause, which says most.
fn told(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    format!("it cannot be reached: {last}")
}

/// The signature of a post.
fn sign(key: &[u8], id: &str, seconds: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
    mac.update(format!("{id}.{seconds}.").as_bytes());
    mac.update(body);
    format!("v1,{}", BASE64.encode(&mac.finalize().into_bytes()))
}

/// Whether something has failed for so long that it is tried but rarely.
pub(super) fn is_long(failing_ns: i64) -> bool {
    failing_ns >= LONG_NS
}

/// How long to wait after so many failures in such a time; `random` is from 0 to 1, so that not all come at once.
pub(super) fn delay(failures: u32, failing_ns: i64, random: f64) -> Duration {
    let (first, most) = AGAIN;
    let whole = match is_long(failing_ns) {
        true => RARELY,
        false => first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(most),
    };
    whole.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

/// Refuses what is no address of a receiver.
pub(super) fn check_url(url: &str) -> Result<(), WebhookError> {
    let uri: Uri = url.parse().map_err(|_| WebhookError::BadUrl)?;
    let is_http = [Scheme::HTTP, Scheme::HTTPS].iter().any(|known| uri.scheme() == Some(known));
    let host =
        uri.authority().is_some_and(|at| !at.host().is_empty() && !at.as_str().contains('@'));
    if is_http && host { Ok(()) } else { Err(WebhookError::BadUrl) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_specification() {
        let key = BASE64.decode(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn failures_are_followed_by_longer_and_longer_pauses() {
        let seconds = |failures, hours: i64, random| {
            delay(failures, hours * 3_600_000_000_000, random).as_secs_f64()
        };
        let whole: Vec<f64> = (1..=4).map(|failures| seconds(failures, 0, 1.0)).collect();
        assert!(whole.iter().zip([1.0, 2.0, 4.0, 8.0]).all(|(a, b)| (a - b).abs() < 1e-6));
        assert!((seconds(1, 0, 0.0) - 0.5).abs() < 1e-6, "and never at the same time");
        assert!((seconds(u32::MAX, 23, 1.0) - 300.0).abs() < 1e-6);
        assert!((seconds(50, 24, 1.0) - 3600.0).abs() < 1e-6);
    }

    #[test]
    fn only_success_is_success() {
        for (status, good) in [(200, true), (204, true), (301, false), (410, false), (500, false)] {
            assert_eq!(verdict(StatusCode::from_u16(status).unwrap()).is_ok(), good, "{status}");
        }
    }
}
