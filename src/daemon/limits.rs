//! How hard a reconcile may work.
//!
//! Owns which limits are in force: what the configuration says, over what suits the kind of disk.

use std::num::{NonZeroU64, NonZeroUsize};
use std::os::fd::OwnedFd;

use crate::config::{Disk, MountConfig};
use crate::fs::Limits;
use crate::sizespec::Rate;

/// Types of filesystems whose files lie on another machine, as `statfs(2)` has them: NFS, SMB (two of them),
/// Ceph, AFS, 9P, Coda.
const NETWORK: [i64; 7] =
    [0x6969, 0xfe53_4d42, 0xff53_4d42, 0x00c3_6400, 0x5346_414f, 0x0102_1997, 0x7375_7245];

/// What the backing directory lies on: as the configuration has it, or as its filesystem shows.
///
/// That a disk rotates cannot be told from here: virtual ones say so whatever they lie on, and ZFS and btrfs
/// have no one disk.
pub(super) fn disk(config: &MountConfig, backing: &OwnedFd) -> Disk {
    config.disk.unwrap_or_else(|| match rustix::fs::fstatfs(backing) {
        Ok(found) if NETWORK.contains(&found.f_type) => Disk::Network,
        _ => Disk::Ssd,
    })
}

/// The limits of a reconcile.
pub(super) fn limits(config: &MountConfig, disk: Disk, cores: usize) -> Limits {
    let (threads, mib) = match disk {
        Disk::Ssd => (cores.min(4), None),
        // A second reader would only move the heads.
        Disk::Hdd => (1, NonZeroU64::new(64)),
        // Most of the time it is waited for answers.
        Disk::Network => (4, NonZeroU64::new(32)),
    };
    let threads = config.reconcile_threads.or(NonZeroUsize::new(threads));
    let Rate(rate) = config.reconcile_rate.unwrap_or(Rate(mib.map(|mib| mib.saturating_mul(MIB))));
    Limits { threads: threads.unwrap_or(NonZeroUsize::MIN), rate }
}

const MIB: NonZeroU64 = NonZeroU64::new(1 << 20).expect("not zero");

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("", Disk::Ssd, 16, (4, None))]
    #[case("", Disk::Ssd, 2, (2, None))]
    #[case("", Disk::Hdd, 16, (1, Some(64 << 20)))]
    #[case("", Disk::Network, 2, (4, Some(32 << 20)))]
    #[case("reconcile_threads=7", Disk::Hdd, 2, (7, Some(64 << 20)))]
    #[case("reconcile_rate=max", Disk::Network, 2, (4, None))]
    #[case("reconcile_threads=1,reconcile_rate=1M", Disk::Ssd, 2, (1, Some(1 << 20)))]
    fn what_is_given_goes_over_the_kind_of_disk(
        #[case] options: &str,
        #[case] disk: Disk,
        #[case] cores: usize,
        #[case] expected: (usize, Option<u64>),
    ) {
        let mut config = MountConfig::new("/b", "/m");
        config.apply_options(options).unwrap();
        let limits = limits(&config, disk, cores);
        assert_eq!((limits.threads.get(), limits.rate.map(NonZeroU64::get)), expected);
    }

    #[test]
    fn a_disk_that_is_named_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        let backing = OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let mut config = MountConfig::new("/b", "/m");
        assert_eq!(disk(&config, &backing), Disk::Ssd);
        config.disk = Some(Disk::Network);
        assert_eq!(disk(&config, &backing), Disk::Network);
    }
}
