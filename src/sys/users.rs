//! What this machine knows of its users.
#![expect(unsafe_code, reason = "rustix has no wrapper for the user database")]

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;

use super::creds::Identity;

/// The largest entry of the database that is read, in bytes.
const MOST: usize = 1 << 20;

/// The group of those who have none.
const NO_GROUP: u32 = 65_534;

/// The user with a number, with the groups that logging in would give; one that nobody has named is in
/// no group.
pub fn identity_of(uid: u32) -> Identity {
    let named = look_up(|entry, buffer, found| {
        // SAFETY: `entry` and `found` are valid for writes, and `buffer` is as long as is said.
        unsafe {
            libc::getpwuid_r(uid, entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), found)
        }
    });
    match named {
        Some((name, _, gid)) => Identity { uid, gid, groups: groups_of(&name, gid) },
        None => Identity { uid, gid: NO_GROUP, groups: Vec::new() },
    }
}

/// The number of the user with a name; a number stands for itself.
pub fn uid_of(name: &str) -> Option<u32> {
    let text = CString::new(name).ok()?;
    let named = look_up(|entry, buffer, found| {
        // SAFETY: as above, and `text` ends with a zero byte.
        unsafe {
            libc::getpwnam_r(
                text.as_ptr(),
                entry.as_mut_ptr(),
                buffer.as_mut_ptr(),
                buffer.len(),
                found,
            )
        }
    });
    named.map(|(_, uid, _)| uid).or_else(|| name.parse().ok())
}

type Ask<'a> =
    dyn Fn(&mut MaybeUninit<libc::passwd>, &mut [libc::c_char], *mut *mut libc::passwd) -> i32 + 'a;

/// Asks with more and more room for the answer.
fn look_up(
    ask: impl Fn(&mut MaybeUninit<libc::passwd>, &mut [libc::c_char], *mut *mut libc::passwd) -> i32,
) -> Option<(CString, u32, u32)> {
    let ask: &Ask<'_> = &ask;
    let mut buffer = vec![0; 1024];
    loop {
        let mut entry = MaybeUninit::uninit();
        let mut found = std::ptr::null_mut();
        match ask(&mut entry, &mut buffer, &raw mut found) {
            0 if found.is_null() => return None,
            0 => {
                // SAFETY: an answer was found, so `entry` is written, and its name lies in `buffer`.
                let (name, entry) = unsafe {
                    let entry = entry.assume_init();
                    (CStr::from_ptr(entry.pw_name).to_owned(), entry)
                };
                return Some((name, entry.pw_uid, entry.pw_gid));
            }
            libc::ERANGE if buffer.len() < MOST => buffer.resize(buffer.len() * 2, 0),
            libc::EINTR => {}
            _ => return None,
        }
    }
}

fn groups_of(name: &CStr, gid: u32) -> Vec<u32> {
    let mut groups = vec![0; 32];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `groups` has room for `count` numbers, and `name` ends with a zero byte.
        let fits =
            unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let wanted = usize::try_from(count).unwrap_or(0);
        if fits >= 0 {
            groups.truncate(wanted);
            return groups;
        }
        if wanted <= groups.len() || wanted > MOST {
            return vec![gid];
        }
        groups.resize(wanted, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(uid_of("root"), Some(0));
        assert_eq!(uid_of("4711"), Some(4711));
        assert_eq!(uid_of("nobody at all"), None);
        let root = identity_of(0);
        assert_eq!((root.uid, root.gid), (0, 0));
        assert!(root.groups.contains(&0));
        let nameless = identity_of(4_000_000_000);
        assert_eq!((nameless.gid, nameless.groups), (NO_GROUP, Vec::new()));
    }
}
