//! `horace mcp`.
//!
//! Owns the way between an assistant at stdin and stdout and the daemon: messages go to `/mcp` at the daemon's
//! own socket, where the kernel says who asks, and answers come back as they are, so that there is one
//! place where tools are made. Nothing else is written to stdout.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use rmcp::model::{ClientJsonRpcMessage, ErrorData, RequestId, ServerJsonRpcMessage};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, Transport, UnixSocketHttpClient, stdio};
use tokio::sync::mpsc;

use crate::causes::with_causes;
use crate::control::lookup::Target;
use crate::control::registry;

use super::{Advised, Context, Outcome};

/// Where MCP is, at the daemon's socket.
const PLACE: &str = "http://localhost/mcp";
/// How long answers are waited for once nobody asks any more.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answer an assistant on stdin and stdout by the Model Context Protocol, with what this user may see, or
/// what the key in the variable `HORACE_KEY` is good for
#[derive(Debug, clap::Args)]
pub(super) struct Mcp {
    /// The mount, or any path in it [default: that of the working directory]
    mountpoint: Option<PathBuf>,
}

impl Mcp {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<Outcome> {
        let Target::Served { record, .. } = context.dir_target(self.mountpoint.as_deref())? else {
            let hint = "start it with `horace mount BACKING MOUNTPOINT`";
            return Err(Advised::new("the mount is not running", hint).into());
        };
        let socket = registry::api_socket(&record.socket);
        // An assistant would tell of it only when it is asked something.
        UnixStream::connect(&socket)
            .with_context(|| format!("cannot reach the daemon at {}", socket.display()))?;
        let socket = socket.to_str().context("the path of the daemon's socket is not UTF-8")?;
        let key = std::env::var("HORACE_KEY").ok().filter(|key| !key.is_empty());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let relayed = runtime.block_on(async { relay(socket, key).run().await });
        // A read of stdin that waits would hold up the end.
        runtime.shutdown_background();
        relayed.map(|()| Outcome::Complete)
    }
}

/// The way between both.
struct Relay<A, D> {
    assistant: A,
    daemon: D,
    /// Requests without an answer.
    open: Vec<RequestId>,
    /// What went wrong on the way to the daemon.
    failures: (mpsc::UnboundedSender<Failure>, mpsc::UnboundedReceiver<Failure>),
}

/// A request that did not get there, if it was one, and why.
type Failure = (Option<RequestId>, String);

/// A way from stdin and stdout to the daemon at a socket.
fn relay(
    socket: &str,
    key: Option<String>,
) -> Relay<impl Transport<rmcp::RoleServer>, impl Transport<rmcp::RoleClient>> {
    let (stdin, stdout) = stdio();
    let mut config = StreamableHttpClientTransportConfig::with_uri(PLACE);
    if let Some(key) = key {
        config = config.auth_header(key);
    }
    let client = UnixSocketHttpClient::new(socket, PLACE);
    Relay {
        assistant: AsyncRwTransport::new_server(stdin, stdout),
        daemon: StreamableHttpClientTransport::with_client(client, config),
        open: Vec::new(),
        failures: mpsc::unbounded_channel(),
    }
}

impl<A: Transport<rmcp::RoleServer>, D: Transport<rmcp::RoleClient>> Relay<A, D> {
    async fn run(mut self) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                asked = self.assistant.receive() => match asked {
                    Some(message) => self.pass_on(message),
                    None => break,
                },
                answer = self.daemon.receive() => self.answer(answer).await?,
                Some(failure) = self.failures.1.recv() => self.fail(failure).await?,
            }
        }
        // Whoever asks and hangs up may still read.
        let rest = async {
            while !self.open.is_empty() {
                tokio::select! {
                    answer = self.daemon.receive() => self.answer(answer).await?,
                    Some(failure) = self.failures.1.recv() => self.fail(failure).await?,
                }
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, rest).await.unwrap_or(Ok(()))
    }

    /// Sends a message to the daemon, beside others.
    fn pass_on(&mut self, message: ClientJsonRpcMessage) {
        let request = match &message {
            ClientJsonRpcMessage::Request(request) => Some(request.id.clone()),
            _ => None,
        };
        self.open.extend(request.clone());
        let (sent, failures) = (self.daemon.send(message), self.failures.0.clone());
        tokio::spawn(async move {
            if let Err(error) = sent.await {
                // Whoever would hear of it has ended.
                let _ = failures.send((request, with_causes(&error)));
            }
        });
    }

    async fn answer(&mut self, answer: Option<ServerJsonRpcMessage>) -> anyhow::Result<()> {
        let Some(message) = answer else {
            while let Ok(failure) = self.failures.1.try_recv() {
                self.fail(failure).await?;
            }
            for request in std::mem::take(&mut self.open) {
                self.fail((Some(request), "it has ended".into())).await?;
            }
            anyhow::bail!("the daemon answers no more");
        };
        let answered = match &message {
            ServerJsonRpcMessage::Response(response) => Some(&response.id),
            ServerJsonRpcMessage::Error(error) => error.id.as_ref(),
            _ => None,
        };
        self.open.retain(|open| Some(open) != answered);
        self.tell(message).await
    }

    async fn fail(&mut self, (request, why): Failure) -> anyhow::Result<()> {
        tracing::warn!(error = why, "a message did not get to the daemon");
        let Some(request) = request else { return Ok(()) };
        self.open.retain(|open| *open != request);
        let told = ErrorData::internal_error(format!("the daemon does not answer: {why}"), None);
        self.tell(ServerJsonRpcMessage::error(told, Some(request))).await
    }

    async fn tell(&mut self, message: ServerJsonRpcMessage) -> anyhow::Result<()> {
        Ok(self.assistant.send(message).await?)
    }
}
