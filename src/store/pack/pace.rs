//! How fast background work may go.

use std::time::Duration;

use super::error::PackError;

/// What background work is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Go on.
    Go,
    /// Sleep for so long, then ask again.
    Wait(Duration),
    /// Give up. What is not finished is begun again another time.
    Stop,
}

/// Asked between any two chunks, with how many bytes have been worked through since it was last asked.
pub type Pacer<'a> = dyn Fn(u64) -> Pace + 'a;

/// Waits for as long as the pacer wants.
///
/// # Errors
/// [`PackError::Stopped`].
pub(super) fn keep(pacer: &Pacer<'_>, bytes: u64) -> Result<(), PackError> {
    let mut pace = pacer(bytes);
    loop {
        match pace {
            Pace::Go => return Ok(()),
            Pace::Wait(time) => std::thread::sleep(time),
            Pace::Stop => return Err(PackError::Stopped),
        }
        pace = pacer(0);
    }
}
