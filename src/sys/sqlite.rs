//! One setting of SQLite that it offers no function for.
//!
//! SQLite writes symlinks in a database's path out before it opens it. The catalog is opened through
//! `/proc/self/fd`, because the mount may hide the directory that the link names; written out, the path
//! would lead into the mount. So SQLite is told that nothing is a symlink, and the kernel follows.
#![expect(unsafe_code, reason = "SQLite's table of system calls is only in its C interface")]

use std::ffi::CStr;
use std::sync::Once;

use rusqlite::ffi;

/// Has SQLite leave the symlinks in paths to the kernel, in the whole process, from now on.
pub fn leave_symlinks_to_the_kernel() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        type Stat = unsafe extern "C" fn(*const libc::c_char, *mut libc::stat) -> libc::c_int;
        let stat: Stat = libc::stat;
        let name: &CStr = c"lstat";
        // SAFETY: the default VFS exists for the life of the process. `lstat` and `stat` have the
        // same signature, which is the one SQLite casts the pointer back to.
        unsafe {
            let vfs = ffi::sqlite3_vfs_find(std::ptr::null());
            if let Some(set) = vfs.as_ref().and_then(|vfs| vfs.xSetSystemCall) {
                let stat = std::mem::transmute::<Stat, unsafe extern "C" fn()>(stat);
                set(vfs, name.as_ptr(), Some(stat));
            }
        }
    });
}
