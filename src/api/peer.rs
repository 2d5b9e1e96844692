//! Who is at the other end of a connection, as far as the kernel tells.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use crate::sys::creds::Actor;
use crate::sys::{tcp, users};

/// The other end of a connection.
#[derive(Debug)]
pub enum Peer {
    /// A process of this machine, which the kernel names.
    Process(Actor),
    /// An end of a TCP connection.
    Tcp {
        /// Its address.
        remote: SocketAddr,
        /// The address that it has connected to.
        local: SocketAddr,
        /// Whose socket it is, once that was looked up.
        owner: OnceLock<Option<Actor>>,
    },
}

impl Peer {
    /// The other end of a TCP connection.
    pub fn tcp(remote: SocketAddr, local: SocketAddr) -> Self {
        Self::Tcp { remote, local, owner: OnceLock::new() }
    }

    /// The user of this machine who asks, if one does.
    pub(super) fn actor(&self) -> Option<&Actor> {
        match self {
            Self::Process(actor) => Some(actor),
            Self::Tcp { remote, local, owner } => {
                owner.get_or_init(|| owner_of(*remote, *local)).as_ref()
            }
        }
    }

    /// The same, if it was looked up already.
    pub(super) fn known(&self) -> Option<&Actor> {
        match self {
            Self::Process(actor) => Some(actor),
            Self::Tcp { owner, .. } => owner.get()?.as_ref(),
        }
    }

    /// Whether what it asks came over no network.
    pub(super) fn is_process(&self) -> bool {
        matches!(self, Self::Process(_))
    }

    /// What is counted together: an address, or a user.
    pub(super) fn source(&self) -> Source {
        match self {
            Self::Process(actor) => Source::User(actor.identity.uid),
            Self::Tcp { remote, .. } => Source::Address(remote.ip().to_canonical()),
        }
    }
}

/// Where requests come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    User(u32),
    Address(IpAddr),
}

/// Over loopback the kernel knows both ends.
fn owner_of(remote: SocketAddr, local: SocketAddr) -> Option<Actor> {
    if !remote.ip().to_canonical().is_loopback() {
        return None;
    }
    match tcp::owner_of(remote, local) {
        Ok(owner) => Some(Actor { identity: users::identity_of(owner?), pid: 0 }),
        Err(error) => {
            tracing::warn!(%error, "cannot tell who asks");
            None
        }
    }
}
