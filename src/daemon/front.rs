//! What answers questions: the control socket and the HTTP API.
//!
//! Owns the order in which they begin, and what they know of the mount. Clients find the mount once everything
//! answers.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::Daemon;
use super::host::{MountHost, Served};
use super::reconciler::Asker;
use super::restorer::Restorer;
use crate::api::{self, CertFiles, Tls, TlsError};
use crate::causes::with_causes;
use crate::config::{Api, MountConfig};
use crate::content::Contents;
use crate::control::registry::{self, Registration};
use crate::control::{Server, ServerConfig};
use crate::fuse::session::PassthroughStatus;
use crate::keys::KeyFile;
use crate::query::Service;
use crate::webhooks::{Runner, Webhooks};

/// What answers questions.
pub(super) struct Front {
    server: Server,
    http: api::Server,
    webhooks: Runner,
}

impl Front {
    pub(super) fn stop(self) {
        self.webhooks.stop();
        self.http.stop();
        self.server.stop();
    }
}

/// Reads the certificate of the API, if it is to have one.
pub(super) fn open_tls(config: &MountConfig) -> anyhow::Result<Option<Arc<Tls>>> {
    let mut served = std::iter::once(&config.api).chain(&config.api_also);
    let network =
        config.api != Api::Off && served.any(|at| matches!(at, Api::Usual | Api::Listen(_)));
    let Some(cert) = config.api_cert.clone().filter(|_| network) else {
        anyhow::ensure!(
            config.api_cert.is_some() || config.api_cert_key.is_none(),
            "`api_cert_key=` is of no use without `api_cert=`, which names the certificate"
        );
        return Ok(None);
    };
    let key = config.api_cert_key.clone().unwrap_or_else(|| cert.clone());
    let tls: Result<Tls, TlsError> = Tls::open(CertFiles { cert, key });
    Ok(Some(Arc::new(tls?)))
}

impl Daemon {
    /// Answers at the socket, and lets clients find it.
    pub(super) fn open_front(
        &self,
        runtime_dir: &Path,
        passthrough: PassthroughStatus,
        asker: Asker,
    ) -> anyhow::Result<(Front, Registration)> {
        registry::create_runtime_dir(runtime_dir)?;
        let served = Arc::new(OnceLock::new());
        let backing = self.fs.root().try_clone_to_owned()?;
        let id = registry::id_of(&backing)?;
        let host = MountHost {
            config: self.config.clone(),
            disk: self.disk,
            state_path: self.state_path.clone(),
            not_copied: Arc::clone(&self.not_copied),
            snapshots: Arc::clone(&self.snapshots),
            fs: Arc::clone(&self.fs),
            catalog: Arc::clone(&self.catalog),
            threads: self.threads,
            started_ns: self.started_ns,
            passthrough,
            unwatched: self.unwatched.clone(),
            api: Arc::clone(&served),
            asker,
            restorer: Restorer(Arc::clone(&self.fs)),
        };
        let backing = Arc::new(backing);
        let contents = Contents::new(Arc::clone(&backing), self.store.clone());
        let contents = contents.with_snapshots(Arc::clone(&self.snapshots) as _);
        let service = Arc::new(Service {
            catalog: Arc::clone(&self.catalog),
            backing,
            contents,
            mountpoint: self.config.mountpoint.clone(),
            host: Arc::new(host),
        });
        let socket = registry::socket_path(runtime_dir, &id);
        let http = self.open_api(Arc::clone(&service), &served)?;
        // Whoever starts an assistant's program gets to it here, and by no network.
        http.listen(&api::Listen::Unix(registry::api_socket(&socket)), None)?;
        let server = Server::start(ServerConfig { socket, service: Arc::clone(&service) })?;
        let webhooks = Runner::start(Webhooks::new(&self.state_path), service)?;
        let registration = Registration::publish(
            runtime_dir,
            &self.config.backing,
            self.fs.root(),
            &self.config.mountpoint,
            &self.config.state_dir(),
        )?;
        Ok((Front { server, http, webhooks }, registration))
    }

    /// Answers over HTTP where it is asked to, and notes that in `served`.
    fn open_api(
        &self,
        service: Arc<Service>,
        served: &OnceLock<Served>,
    ) -> anyhow::Result<api::Server> {
        let router = api::router(api::ApiConfig {
            service,
            keys: KeyFile::new(&self.state_path),
            webhooks: Webhooks::new(&self.state_path),
            guest: self.config.api_guest.clone(),
            hosts: self.config.api_hosts.clone(),
            roots: vec![self.config.mountpoint.clone(), self.config.backing.clone()],
        });
        let server = api::Server::start(router, api::Patience::default())?;
        let Some(listen) = listen(&self.config.api) else { return Ok(server) };
        match server.listen(&listen, self.tls.clone()) {
            Ok(address) => {
                let scheme = if self.tls.is_some() { "https" } else { "http" };
                let at = address.map(|address| format!("{scheme}://{address}"));
                let at = at.unwrap_or_else(|| listen.to_string());
                let _ = served.set(Served { at, tls: self.tls.clone() });
            }
            // Another mount has the usual address: who wants two says where.
            Err(error) if self.config.api == Api::Usual => {
                let error = with_causes(&error);
                tracing::warn!(error, "no HTTP API: `api=ADDRESS:PORT` says where to serve it");
            }
            Err(error) => return Err(error.into()),
        }
        for also in self.config.api_also.iter().filter_map(self::listen) {
            server.listen(&also, self.tls.clone())?;
        }
        Ok(server)
    }
}

fn listen(at: &Api) -> Option<api::Listen> {
    match at {
        Api::Off => None,
        Api::Usual => Some(api::Listen::Tcp(Api::USUAL)),
        Api::Listen(address) => Some(api::Listen::Tcp(*address)),
        Api::Unix(path) => Some(api::Listen::Unix(path.clone())),
    }
}
