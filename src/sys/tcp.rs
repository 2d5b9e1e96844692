//! Who holds the other end of a connection within this machine.

use std::io;
use std::net::{IpAddr, SocketAddr};

/// The user whose socket is bound to `local` and connected to `remote`, both as that user sees them;
/// nothing if no socket of this network namespace is.
///
/// # Errors
/// If the kernel's tables cannot be read.
pub fn owner_of(local: SocketAddr, remote: SocketAddr) -> io::Result<Option<u32>> {
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match std::fs::read_to_string(table) {
            Ok(text) => {
                if let Some(uid) = find(&text, local, remote) {
                    return Ok(Some(uid));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// A line is `sl local remote state queues timer retransmits uid ...`.
fn find(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (here, there) = (address(words.next()?)?, address(words.next()?)?);
        let uid = words.nth(4)?.parse().ok()?;
        (here == plain(local) && there == plain(remote)).then_some(uid)
    })
}

/// An address and port in the kernel's form: words of 32 bits in the order of this machine.
fn address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let words: Option<Vec<[u8; 4]>> = (0..address.len() / 8)
        .map(|n| {
            let word = u32::from_str_radix(address.get(n * 8..n * 8 + 8)?, 16).ok()?;
            Some(word.to_ne_bytes())
        })
        .collect();
    let address = match *words? {
        [four] => IpAddr::from(four),
        [a, b, c, d] => {
            let bytes: [u8; 16] = [a, b, c, d].concat().try_into().ok()?;
            IpAddr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

fn plain(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_other_end_of_a_connection_has_an_owner() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(listen) else {
                eprintln!("SKIPPED: no {listen}");
                continue;
            };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, peer) = listener.accept().unwrap();
            let own = rustix::process::getuid().as_raw();
            let owner = |local, remote| owner_of(local, remote).unwrap();
            assert_eq!(owner(peer, server.local_addr().unwrap()), Some(own));
            assert_eq!(client.local_addr().unwrap(), peer);
            let nobody = "127.0.0.1:1".parse().unwrap();
            assert_eq!(owner(nobody, server.local_addr().unwrap()), None);
        }
    }

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        let four = format!("{}:1F90", word([127, 0, 0, 1]));
        assert_eq!(address(&four), Some(("127.0.0.1".parse().unwrap(), 8080)));
        let [none, mark] = [[0; 4], [0, 0, 255, 255]].map(word);
        let mapped = format!("{none}{none}{mark}{}:0001", word([10, 0, 0, 7]));
        assert_eq!(address(&mapped), Some(("10.0.0.7".parse().unwrap(), 1)));
        assert_eq!(address("xyz:1"), None);
        assert_eq!(address(":1"), None);
    }
}
