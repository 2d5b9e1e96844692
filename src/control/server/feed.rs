//! Packed contents on their way to a client.
//!
//! A small one is unpacked into memory and handed over as a file. A larger one goes through a pipe, of
//! which the client gets the reading end with the line; what follows the line is the end of the answer,
//! or what is wrong with the content. Owns the patience with a client that does not read.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::io::retry_on_intr;
use rustix::pipe::PipeFlags;

use super::connection::{ANSWER_TIMEOUT, SocketSink};
use crate::query::{SendError, Sink};
use crate::store::Packed;
use crate::sys::Errno;

/// Contents up to this size go through memory.
const SMALL: u64 = 8 << 20;
/// Bytes that are unpacked at a time, and wait in the pipe.
const PART: usize = 1 << 20;

/// Hands over a line and the first `size` bytes of a content.
pub(super) fn send(
    sink: &mut SocketSink<'_>,
    line: &[u8],
    content: &Packed,
    size: u64,
) -> Result<(), SendError> {
    let size = size.min(content.size_bytes());
    if size <= SMALL {
        let memory = rustix::fs::memfd_create("content", MemfdFlags::CLOEXEC).map_err(broken)?;
        let mut memory = File::from(memory);
        copy(content, size, &mut |part| memory.write_all(part))?;
        return Ok(sink.file(line, memory.into())?);
    }
    let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
    let (reading, writing) = rustix::pipe::pipe_with(flags).map_err(broken)?;
    // It is the client's, who waits; ours is another one.
    rustix::fs::fcntl_setfl(&reading, rustix::fs::OFlags::empty()).map_err(broken)?;
    // What a user may not have is not needed.
    let _ = rustix::pipe::fcntl_setpipe_size(&writing, PART);
    sink.file(line, reading)?;
    sink.flush()?;
    let stream: &UnixStream = sink.0.get_ref();
    copy(content, size, &mut |part| feed(&writing, stream, part))
}

/// Reads the first `size` bytes part by part.
fn copy(
    content: &Packed,
    size: u64,
    take: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), SendError> {
    let mut buffer = vec![0; PART.min(usize::try_from(size).unwrap_or(PART))];
    let mut at = 0;
    while at < size {
        let room = usize::try_from(size - at).unwrap_or(PART).min(buffer.len());
        let n = content.read_at(&mut buffer[..room], at)?;
        if n == 0 {
            break;
        }
        take(&buffer[..n])?;
        at += n as u64;
    }
    Ok(())
}

/// Writes all of a part, as the client reads it.
fn feed(pipe: &OwnedFd, client: &UnixStream, mut part: &[u8]) -> io::Result<()> {
    while !part.is_empty() {
        match retry_on_intr(|| rustix::io::write(pipe, part)) {
            Ok(written) => part = &part[written..],
            Err(Errno::AGAIN) => wait(pipe, client)?,
            Err(error) => return Err(broken(error)),
        }
    }
    Ok(())
}

/// Waits until there is room in the pipe.
fn wait(pipe: &OwnedFd, client: &UnixStream) -> io::Result<()> {
    let mut polled = [PollFd::new(pipe, PollFlags::OUT), PollFd::new(client, PollFlags::RDHUP)];
    let patience = Timespec::try_from(ANSWER_TIMEOUT).map_err(|_| io::ErrorKind::TimedOut)?;
    let ready = retry_on_intr(|| poll(&mut polled, Some(&patience)))?;
    // It is hung up on from either side: the client has gone, or the daemon stops.
    let gone = polled[1].revents().intersects(PollFlags::HUP | PollFlags::ERR);
    if ready == 0 || gone {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(())
}

fn broken(error: Errno) -> io::Error {
    error.into()
}
