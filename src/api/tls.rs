//! TLS for listeners of the network.
//!
//! Owns the certificate and its key: how they are read, and the look at their files from time to time. What is new
//! there goes to whoever connects from then on; connections that are open keep what they began with. Files
//! that are no good are told in the log and in `status`, and what was good last goes on serving. Writes
//! nothing.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use crate::causes::with_causes;

/// How often the files are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(2);
/// More bytes than any chain of certificates has.
const MAX_BYTES: u64 = 1 << 20;

/// Where a certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertFiles {
    /// The certificate, followed by those that vouch for it, in PEM form.
    pub cert: PathBuf,
    /// Its private key, in PEM form; may be the same file.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(
        "cannot read {} for `{option}=`, as user {uid} does: let that user read it, or name another file",
        path.display()
    )]
    Read {
        /// Which.
        path: PathBuf,
        /// The option that names it.
        option: &'static str,
        /// Who tried.
        uid: u32,
        /// Why.
        source: io::Error,
    },
    /// There is no certificate in the file.
    #[error(
        "{} has no certificate: `api_cert=` takes a PEM file, the own certificate first, then those \
         that vouch for it",
        path.display()
    )]
    NoCertificate {
        /// Which.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// There is no key in the file.
    #[error(
        "{} has no private key that needs no passphrase: `api_cert_key=` takes a PEM file with one",
        path.display()
    )]
    NoKey {
        /// Which.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// They are no good, or do not belong together.
    #[error(
        "the certificate {} cannot be used with the key {}: `api_cert=` and `api_cert_key=` take a pair",
        files.cert.display(), files.key.display()
    )]
    Pair {
        /// Which.
        files: CertFiles,
        /// Why.
        source: rustls::Error,
    },
}

/// A certificate that is kept up to date with its files.
pub struct Tls {
    files: CertFiles,
    /// Whether somebody looks at the files from time to time.
    is_kept_up: AtomicBool,
    /// Locked alone.
    current: Mutex<Current>,
}

struct Current {
    acceptor: TlsAcceptor,
    /// The files that were read last, whether or not they were any good.
    stamps: Option<[Stamp; 2]>,
    problem: Option<String>,
}

/// What tells one file from the next.
type Stamp = (u64, u64, u64, i64, i64);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// If they cannot be used.
    pub fn open(files: CertFiles) -> Result<Self, TlsError> {
        let stamps = files.stamps();
        let acceptor = files.read()?;
        let current = Mutex::new(Current { acceptor, stamps, problem: None });
        Ok(Self { files, is_kept_up: AtomicBool::new(false), current })
    }

    /// Where the certificate is.
    pub fn cert(&self) -> &Path {
        &self.files.cert
    }

    /// What is wrong with the files as they are now, if an older certificate serves in their place.
    pub fn problem(&self) -> Option<String> {
        self.current.lock().problem.clone()
    }

    /// What greets a client.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.current.lock().acceptor.clone()
    }

    /// Whether nobody has asked this before: one look serves all listeners.
    pub(super) fn is_left_alone(&self) -> bool {
        !self.is_kept_up.swap(true, Ordering::Relaxed)
    }

    /// Reads the files again if they are others. To be called where it may block.
    pub(super) fn look(&self) {
        // Taken first: what changes while it is read is read once more.
        let stamps = self.files.stamps();
        if stamps == self.current.lock().stamps {
            return;
        }
        let read = self.files.read();
        let mut current = self.current.lock();
        current.stamps = stamps;
        current.problem = read.as_ref().err().map(|error| with_causes(error));
        match read {
            Ok(acceptor) => {
                current.acceptor = acceptor;
                tracing::info!(path = %self.files.cert.display(), "the HTTP API has a new certificate");
            }
            Err(error) => {
                let error = with_causes(&error);
                tracing::warn!(error, "the HTTP API goes on with the certificate it has");
            }
        }
    }
}

impl CertFiles {
    /// Nothing if one of them is not there.
    fn stamps(&self) -> Option<[Stamp; 2]> {
        let stamp = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            let (device, inode, size) = (found.dev(), found.ino(), found.size());
            Some((device, inode, size, found.ctime(), found.ctime_nsec()))
        };
        Some([stamp(&self.cert)?, stamp(&self.key)?])
    }

    fn read(&self) -> Result<TlsAcceptor, TlsError> {
        let none = |source| TlsError::NoCertificate { path: self.cert.clone(), source };
        let cert = read(&self.cert, "api_cert")?;
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(&cert).collect::<Result<_, _>>().map_err(none)?;
        if chain.is_empty() {
            return Err(none(pem::Error::NoItemsFound));
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key, "api_cert_key")?)
            .map_err(|source| TlsError::NoKey { path: self.key.clone(), source })?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key));
        let mut config = config.map_err(|source| TlsError::Pair { files: self.clone(), source })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

fn read(path: &Path, option: &'static str) -> Result<Vec<u8>, TlsError> {
    let try_read = || {
        // A pipe would never end.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let uid = rustix::process::geteuid().as_raw();
    try_read().map_err(|source| TlsError::Read { path: path.into(), option, uid, source })
}
